"""The one place that asks for another group's offsets, and sets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from pipeline.contracts import TopicName
from pipeline.errors import FatalError, PermanentError
from pipeline.kafka._connection import connection_options
from pipeline.kafka._group import Partition
from pipeline.kafka._places import Places, Point, open_places
from pipeline.kafka.errors import BrokerUnavailable
from pipeline.kafka.names import Names
from pipeline.kafka.reader import Bounds
from pipeline.kafka.settings import KafkaSettings

_PATIENCE: Final = 4
"""How many times ``kafka.request_timeout_seconds`` a whole command may take."""


class GroupBusy(PermanentError):
    """The group has live members: it would overwrite what is set."""

    def __init__(self, group: str, members: str) -> None:
        """Say what to do."""
        super().__init__("group_busy", f"{group} has {members}: stop them first; nothing was changed")


class GroupClient:
    """One group as the cluster knows it; see :class:`pipeline.kafka.groups.Client`."""

    def __init__(self, group: str, settings: KafkaSettings, admin: Any, places: Places) -> None:
        self._group = group
        self._settings = settings
        self._admin = admin
        self._places = places
        self._names = Names(settings)

    async def members(self) -> int:
        """Return how many members the group has now."""
        [answer] = await self._admin.describe_consumer_groups([self._group])
        [group] = answer.groups
        code, members = group[0], group[5]
        if code and code != kafka.GroupIdNotFound.errno:
            raise kafka.for_code(code)
        return len(members)

    async def committed(self) -> dict[Partition, int]:
        """Return every offset that the group has committed, in topics of ours."""
        try:
            answer = await self._admin.list_consumer_group_offsets(self._group)
        except TypeError:
            # the embedded broker answers nothing, which the client takes for a list
            raise FatalError("admin_unsupported", "This broker does not tell the offsets of groups.") from None
        found = {}
        for place, committed in answer.items():
            try:
                topic = self._names.logical(place.topic)
            except KeyError:
                continue  # without our prefix: not ours to move
            found[Partition(topic, place.partition)] = committed.offset
        return found

    async def partitions(self, topics: Iterable[TopicName]) -> list[Partition]:
        """Return the partitions of those of the topics that exist."""
        return await self._places.partitions(topics)

    async def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        """Return what the partitions hold now."""
        return await self._places.bounds(partitions)

    async def offsets(self, bounds: Mapping[Partition, Bounds], point: Point) -> dict[Partition, int]:
        """Return the offset of a point in each partition."""
        return await self._places.offsets(bounds, point)

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Set offsets of a group without members; the broker refuses if one has joined meanwhile.

        Raises:
            GroupBusy: A member has joined.
        """
        options = await asyncio.to_thread(connection_options, self._settings, client_id="card-pipeline-rewind")
        consumer = AIOKafkaConsumer(**options, group_id=self._group, enable_auto_commit=False, auto_offset_reset="none")
        places = Places(consumer, self._names)
        try:
            await consumer.start()
            places.claim(offsets)
            await consumer.commit({places.raw(one): offset for one, offset in offsets.items()})
        except kafka.CommitFailedError:
            raise GroupBusy(self._group, "a member that has just joined") from None
        finally:
            await consumer.stop()


@asynccontextmanager
async def open_group(settings: KafkaSettings, group: str) -> AsyncIterator[GroupClient]:
    """Connect for looking at one group and for setting its offsets, without joining it.

    Args:
        settings: The cluster.
        group: Its name in the cluster.

    Raises:
        BrokerUnavailable: No answer in time, also later on.
        FatalError: The broker cannot describe groups.
    """
    async with open_places(settings) as places:
        options = await asyncio.to_thread(connection_options, settings, client_id="card-pipeline-admin")
        admin = AIOKafkaAdminClient(**options)
        try:
            async with asyncio.timeout(_PATIENCE * settings.request_timeout_seconds):
                await admin.start()
                yield GroupClient(group, settings, admin, places)
        except (kafka.IncompatibleBrokerVersion, kafka.UnsupportedVersionError) as error:
            raise FatalError("admin_unsupported", "This broker cannot describe groups.") from error
        except (kafka.KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailable(
                "broker_unavailable", f"No answer about {group}: {type(error).__name__}."
            ) from error
        finally:
            await admin.close()

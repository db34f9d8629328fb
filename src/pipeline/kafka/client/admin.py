"""aiokafka's admin client: topics, and the offsets of other groups."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin import NewTopic as AioNewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.errors import FatalError
from pipeline.kafka.client.causes import CLIENT_ERRORS, refusal, unavailable
from pipeline.kafka.client.connection import connection_options, create_no_topics, ensure_brokers
from pipeline.kafka.client.reader import KafkaPartitionReader, open_reader
from pipeline.kafka.errors import GroupBusy
from pipeline.kafka.protocols import Partition
from pipeline.kafka.settings import KafkaSettings, Names

_LOOK_AGAIN: Final = 0.1
"""Seconds between two checks that created topics exist."""
_PATIENCE: Final = 4
"""How many times ``kafka.request_timeout_seconds`` a whole command may take."""


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to create, by its name in the cluster."""

    name: str
    partitions: int
    replication_factor: int
    configs: Mapping[str, str]


class TopicAdmin:
    """The topics of a cluster, by their names there.

    Args:
        admin: Started.
    """

    def __init__(self, admin: Any) -> None:
        self._admin = admin

    async def topics(self) -> dict[str, list[int]]:
        """Return all topics, each with the number of replicas of each partition."""
        described = await self._admin.describe_topics()
        return {topic["topic"]: [len(one["replicas"]) for one in topic["partitions"]] for topic in described}

    async def create_topics(self, topics: Sequence[NewTopic]) -> None:
        """Create topics and wait until a broker shows them: other components may be started right after.

        Raises:
            FatalError: The cluster refuses, with its reason.
        """
        answer = await self._admin.create_topics(
            [
                AioNewTopic(
                    name=topic.name,
                    num_partitions=topic.partitions,
                    replication_factor=topic.replication_factor,
                    topic_configs=dict(topic.configs),
                )
                for topic in topics
            ]
        )
        _raise_refusal(answer.topic_errors)
        names = {topic.name for topic in topics}
        while not names <= {  # noqa: ASYNC110 - only the cluster knows when
            name for name, partitions in (await self.topics()).items() if partitions
        }:
            await asyncio.sleep(_LOOK_AGAIN)

    async def configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the configuration of topics.

        Raises:
            FatalError: The cluster does not describe one of them.
        """
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found: dict[str, dict[str, str]] = {}
        for answer in await self._admin.describe_configs(resources):
            for code, message, _kind, name, entries in answer.resources:
                if code:
                    error = kafka.for_code(code)
                    why = message or error.__name__
                    raise refusal(error(), f"Describing the settings of {name}") or FatalError(
                        "topic_refused", f"The cluster does not describe {name}: {why}"
                    )
                found[name] = {entry[0]: entry[1] or "" for entry in entries}
        return found


def _raise_refusal(errors: Sequence[Any]) -> None:
    for name, code, *message in errors:
        if code not in (0, kafka.TopicAlreadyExistsError.errno):
            error = kafka.for_code(code)
            why = (message and message[0]) or error.__name__
            raise refusal(error(), f"Creating {name}") or FatalError(
                "topic_refused", f"The cluster does not create {name}: {why}"
            )


class KafkaGroupAdmin:
    """Implements :class:`~pipeline.kafka.protocols.GroupAdmin`.

    Attributes:
        reader: Reads the group's topics.
    """

    def __init__(self, group: str, settings: KafkaSettings, admin: Any, reader: KafkaPartitionReader) -> None:
        self.reader = reader
        self._group = group
        self._settings = settings
        self._admin = admin
        self._names = Names(settings)

    async def members(self) -> int:
        """See GroupAdmin."""
        [answer] = await self._admin.describe_consumer_groups([self._group])
        [group] = answer.groups
        code, members = group[0], group[5]
        if code and code != kafka.GroupIdNotFound.errno:
            raise kafka.for_code(code)
        return len(members)

    async def committed(self) -> dict[Partition, int]:
        """See GroupAdmin."""
        try:
            answer = await self._admin.list_consumer_group_offsets(self._group)
        except TypeError:
            # the embedded broker answers with nothing, but the client expects a list
            raise FatalError("admin_unsupported", "This broker does not answer with the offsets of groups.") from None
        found = {}
        for tp, committed in answer.items():
            try:
                topic = self._names.logical(tp.topic)
            except KeyError:
                continue  # without the prefix: not a topic of this installation
            found[Partition(topic, tp.partition)] = committed.offset
        return found

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """See GroupAdmin. The broker refuses if a member has joined meanwhile."""
        options = await asyncio.to_thread(connection_options, self._settings, client_id="card-pipeline-offsets")
        consumer = AIOKafkaConsumer(**options, group_id=self._group, enable_auto_commit=False, auto_offset_reset="none")
        raw = {TopicPartition(self._names.topic(one.topic), one.number): offset for one, offset in offsets.items()}
        try:
            await consumer.start()
            await ensure_brokers(consumer._client)  # noqa: SLF001
            consumer.assign(list(raw))
            consumer.pause(*raw)  # only to commit: nothing is fetched
            await consumer.commit(raw)
        except kafka.CommitFailedError:
            raise GroupBusy(self._group, "a member that has just joined") from None
        finally:
            await consumer.stop()


@asynccontextmanager
async def open_topics(settings: KafkaSettings) -> AsyncIterator[TopicAdmin]:
    """Connect for creating and describing topics.

    Raises:
        BrokerUnavailable: No answer in time, also later on.
        FatalError: The broker cannot create or describe topics.
    """
    async with _admin(settings, about="topics", unsupported="This broker cannot create or describe topics.") as admin:
        cluster = await admin.describe_cluster()
        if cluster["controller_id"] not in {broker["node_id"] for broker in cluster["brokers"]}:
            raise FatalError(
                "admin_unsupported",
                "This cluster names no controller: topics can neither be created nor described here.",
            )
        yield TopicAdmin(admin)


@asynccontextmanager
async def open_group(settings: KafkaSettings, group: str) -> AsyncIterator[KafkaGroupAdmin]:
    """Connect for looking at one group and for setting its offsets, without joining it.

    Args:
        settings: The cluster.
        group: Its name in the cluster.

    Raises:
        BrokerUnavailable: No answer in time, also later on.
        FatalError: The broker cannot describe groups.
    """
    async with (
        open_reader(settings) as reader,
        _admin(settings, about=group, unsupported="This broker cannot describe groups.") as admin,
    ):
        yield KafkaGroupAdmin(group, settings, admin, reader)


@asynccontextmanager
async def _admin(settings: KafkaSettings, *, about: str, unsupported: str) -> AsyncIterator[Any]:
    options = await asyncio.to_thread(connection_options, settings, client_id="card-pipeline-admin")
    admin = AIOKafkaAdminClient(**options)
    create_no_topics(admin._client)  # noqa: SLF001
    try:
        async with asyncio.timeout(_PATIENCE * settings.request_timeout_seconds):
            await admin.start()
            yield admin
    except (kafka.IncompatibleBrokerVersion, kafka.UnsupportedVersionError) as error:
        raise FatalError("admin_unsupported", unsupported) from error
    except CLIENT_ERRORS as error:
        raise await unavailable(error, settings, f"Asking about {about}") from error
    finally:
        await admin.close()

"""Wraps aiokafka's consumer as a reader without a group: it never joins or commits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.contracts import Record, TopicName
from pipeline.kafka.client.causes import CLIENT_ERRORS, unavailable
from pipeline.kafka.client.connection import connection_options, create_no_topics, ensure_brokers
from pipeline.kafka.client.records import DecodingWatch, record_of
from pipeline.kafka.errors import BrokerUnavailable
from pipeline.kafka.protocols import Bounds, Partition, Point
from pipeline.kafka.settings import KafkaSettings, Names

_SEARCH_SECONDS: Final = 5.0
"""How long the embedded broker may take to return the next records."""
_LOOKS: Final = 5
_LOOK_AGAIN: Final = 0.3
"""Seconds between two checks that a topic exists. Creation on first use takes a moment."""


class KafkaPartitionReader:
    """Implements :class:`~pipeline.kafka.protocols.PartitionReader`.

    Args:
        consumer: Started, with nothing assigned.
        names: Translates topics.
    """

    def __init__(self, consumer: Any, names: Names) -> None:
        self._consumer = consumer
        self._names = names
        self._decoding = DecodingWatch(names)
        self._decoding.attach(consumer)

    async def topics(self) -> list[TopicName]:
        """Return all topics with the prefix of the settings that may be described, sorted."""
        found = []
        for name in await self._consumer.topics():
            with contextlib.suppress(KeyError):  # without the prefix
                found.append(self._names.logical(name))
        return sorted(found)

    async def missing(self, topics: Sequence[TopicName]) -> list[str]:
        """Return the cluster's names of those topics that do not exist, or that may not be described.

        It never creates a topic, even if the cluster creates topics on first use: such a topic would have the wrong
        retention. Only on the embedded broker it does, because there is no other way.
        """
        names = [self._names.topic(topic) for topic in topics]
        cluster = await self._consumer._client.fetch_all_metadata()  # noqa: SLF001 - whether there is a controller
        missing = [name for name in names if name not in cluster.topics()]
        if cluster.controller is not None:
            return missing
        for _ in range(_LOOKS):
            missing = [name for name in names if not await self._created(name)]
            if not missing:
                break
            await asyncio.sleep(_LOOK_AGAIN)
        return missing

    async def _created(self, name: str) -> bool:
        await self._consumer._client.add_topic(name)  # noqa: SLF001 - nothing public asks about one topic
        await self._consumer._client.force_metadata_update()  # noqa: SLF001
        return bool(self._consumer.partitions_for_topic(name))

    async def partitions(self, topics: Iterable[TopicName]) -> list[Partition]:
        """See PartitionReader."""
        there = await self._consumer.topics()
        wanted = {self._names.topic(topic): topic for topic in topics if self._names.topic(topic) in there}
        # all at once: a query for offsets would discover one topic after the other, with a pause before each
        await self._consumer._client.set_topics(list(wanted))  # noqa: SLF001 - there is no other way without a group
        return [
            Partition(topic, number)
            for name, topic in wanted.items()
            for number in sorted(self._consumer.partitions_for_topic(name) or ())
        ]

    async def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        """See PartitionReader."""
        raw = [self._raw(partition) for partition in partitions]
        first, end = await self._consumer.beginning_offsets(raw), await self._consumer.end_offsets(raw)
        return {one: Bounds(first[tp], end[tp]) for one, tp in zip(partitions, raw, strict=True)}

    async def offsets(self, bounds: Mapping[Partition, Bounds], point: Point) -> dict[Partition, int]:
        """See PartitionReader."""
        if isinstance(point, str):
            return {one: there.first if point == "earliest" else there.end for one, there in bounds.items()}
        moment = int(point.timestamp() * 1000)  # times of records are cut to milliseconds too
        if self._consumer._client.cluster.controller is None:  # noqa: SLF001 - only the embedded broker has none
            return await self._search(bounds, moment)
        found = await self._consumer.offsets_for_times({self._raw(one): moment for one in bounds})
        at = {one: found[self._raw(one)] for one in bounds}
        return {one: there.end if at[one] is None else at[one].offset for one, there in bounds.items()}

    async def _search(self, bounds: Mapping[Partition, Bounds], moment: int) -> dict[Partition, int]:
        """Read each partition up to the first record at or after the time: the embedded broker cannot look up times."""
        found = {one: there.end for one, there in bounds.items()}
        unread = {one for one, there in bounds.items() if there.first < there.end}
        self.start({one: bounds[one].first for one in unread})
        while unread:
            got = await self.fetch(sorted(unread), _SEARCH_SECONDS)
            if not got:
                raise BrokerUnavailable("broker_unavailable", f"No records came within {_SEARCH_SECONDS:.0f} seconds.")
            for one, records in got.items():
                late = [record.offset for record in records if record.timestamp_ms >= moment]
                found[one] = min([*late, found[one]])
                if late or await self.position(one) >= bounds[one].end:
                    unread.discard(one)
                    self.pause(one)
        return found

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """See PartitionReader."""
        self._consumer.assign([self._raw(partition) for partition in offsets])
        for partition, offset in offsets.items():
            self._consumer.seek(self._raw(partition), offset)

    async def fetch(self, partitions: Sequence[Partition], wait: float) -> dict[Partition, list[Record]]:
        """See PartitionReader."""
        await self._decoding.check()
        raw = [self._raw(partition) for partition in partitions]
        got = await self._consumer.getmany(*raw, timeout_ms=round(wait * 1000))
        return {self._partition(tp): self._records(tp, raws) for tp, raws in got.items()}

    async def position(self, partition: Partition) -> int:
        """See PartitionReader."""
        found: int = await self._consumer.position(self._raw(partition))
        return found

    def pause(self, partition: Partition) -> None:
        """See PartitionReader."""
        self._consumer.pause(self._raw(partition))

    def resume(self, partition: Partition) -> None:
        """See PartitionReader."""
        self._consumer.resume(self._raw(partition))

    def _raw(self, partition: Partition) -> Any:
        return TopicPartition(self._names.topic(partition.topic), partition.number)

    def _partition(self, tp: Any) -> Partition:
        return Partition(self._names.logical(tp.topic), tp.partition)

    def _records(self, tp: Any, raws: Any) -> list[Record]:
        topic = self._names.logical(tp.topic)
        return [record_of(raw, topic) for raw in raws]


@asynccontextmanager
async def open_reader(settings: KafkaSettings, what: str = "Kafka") -> AsyncIterator[KafkaPartitionReader]:
    """Connect for reading without a group.

    Args:
        settings: The cluster.
        what: Name of the data, for errors.

    Raises:
        BrokerUnavailable: No answer in time, also later on.
    """
    options = await asyncio.to_thread(connection_options, settings, client_id="card-pipeline-reader")
    consumer = AIOKafkaConsumer(
        **options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=max(1 << 20, 2 * settings.max_record_bytes),
    )
    create_no_topics(consumer._client)  # noqa: SLF001
    try:
        async with asyncio.timeout(settings.request_timeout_seconds):
            await consumer.start()
        await ensure_brokers(consumer._client)  # noqa: SLF001
        yield KafkaPartitionReader(consumer, Names(settings))
    except CLIENT_ERRORS as error:
        raise await unavailable(error, settings, f"Reading {what}") from error
    finally:
        await consumer.stop()

"""Which partitions and offsets there are, and where in them a moment lies; for readers without a group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, Literal

from aiokafka import TopicPartition

from pipeline.contracts import Record, TopicName
from pipeline.kafka._group import Partition, decoded
from pipeline.kafka._groupless import groupless
from pipeline.kafka.errors import BrokerUnavailable
from pipeline.kafka.names import Names
from pipeline.kafka.reader import Bounds
from pipeline.kafka.settings import KafkaSettings

_SEARCH_SECONDS: Final = 5.0
"""How long the embedded broker may take to give the next records."""

Point = datetime | Literal["earliest", "latest"]
"""A place in time: the first record at or after a moment (by records' timestamps), the first, or behind the last."""


class Places:
    """A Kafka consumer that never joins a group, in our words.

    Args:
        consumer: Started, with nothing assigned.
        names: Translates topics.
    """

    def __init__(self, consumer: Any, names: Names) -> None:
        self._consumer = consumer
        self._names = names

    async def partitions(self, topics: Iterable[TopicName]) -> list[Partition]:
        """Return the partitions of those of the topics that exist; no topic is made by asking."""
        there = await self._consumer.topics()
        wanted = {self._names.topic(topic): topic for topic in topics if self._names.topic(topic) in there}
        # all at once; asking for offsets would learn of one topic after the other, with a pause before each
        await self._consumer._client.set_topics(list(wanted))  # noqa: SLF001 - there is no other way without a group
        return [
            Partition(topic, number)
            for name, topic in wanted.items()
            for number in sorted(self._consumer.partitions_for_topic(name) or ())
        ]

    async def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        """Return what the partitions hold now."""
        raw = [self.raw(partition) for partition in partitions]
        first, end = await self._consumer.beginning_offsets(raw), await self._consumer.end_offsets(raw)
        return {one: Bounds(first[place], end[place]) for one, place in zip(partitions, raw, strict=True)}

    async def offsets(self, bounds: Mapping[Partition, Bounds], point: Point) -> dict[Partition, int]:
        """Return the offset of a point in each partition; the end where nothing is as late.

        Raises:
            BrokerUnavailable: No answer in time.
        """
        if isinstance(point, str):
            return {one: there.first if point == "earliest" else there.end for one, there in bounds.items()}
        moment = int(point.timestamp() * 1000)  # times of records are cut to milliseconds too
        if self._consumer._client.cluster.controller is None:  # noqa: SLF001 - only the embedded broker has none
            return await self._search(bounds, moment)
        found = await self._consumer.offsets_for_times({self.raw(one): moment for one in bounds})
        at = {one: found[self.raw(one)] for one in bounds}
        return {one: there.end if at[one] is None else at[one].offset for one, there in bounds.items()}

    async def _search(self, bounds: Mapping[Partition, Bounds], moment: int) -> dict[Partition, int]:
        """Read each partition up to the first record that is as late: the embedded broker cannot look up times."""
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
        """Fetch these partitions, and no others, from these offsets on."""
        self._consumer.assign([self.raw(partition) for partition in offsets])
        for partition, offset in offsets.items():
            self._consumer.seek(self.raw(partition), offset)

    def claim(self, partitions: Iterable[Partition]) -> None:
        """Name the partitions whose offsets are committed next, without fetching anything of them."""
        raw = [self.raw(partition) for partition in partitions]
        self._consumer.assign(raw)
        self._consumer.pause(*raw)

    async def fetch(self, partitions: Sequence[Partition], wait: float) -> dict[Partition, list[Record]]:
        """Return fetched records of these partitions, in offset order, at the latest after so many seconds."""
        raw = [self.raw(partition) for partition in partitions]
        got = await self._consumer.getmany(*raw, timeout_ms=round(wait * 1000))
        return {
            self._partition(place): [self._record(place, record) for record in records]
            for place, records in got.items()
        }

    async def position(self, partition: Partition) -> int:
        """Return the offset that is fetched next."""
        found: int = await self._consumer.position(self.raw(partition))
        return found

    def pause(self, partition: Partition) -> None:
        """Fetch no more of it."""
        self._consumer.pause(self.raw(partition))

    def resume(self, partition: Partition) -> None:
        """Fetch it again."""
        self._consumer.resume(self.raw(partition))

    def raw(self, partition: Partition) -> Any:
        """Return the client's own name of a partition."""
        return TopicPartition(self._names.topic(partition.topic), partition.number)

    def _partition(self, place: Any) -> Partition:
        return Partition(self._names.logical(place.topic), place.partition)

    def _record(self, place: Any, raw: Any) -> Record:
        key, headers = decoded(raw.key, raw.headers)
        topic = self._names.logical(place.topic)
        return Record(topic, place.partition, raw.offset, key, raw.value or b"", headers, raw.timestamp)


@asynccontextmanager
async def open_places(settings: KafkaSettings) -> AsyncIterator[Places]:
    """Connect for reading without a group.

    Raises:
        BrokerUnavailable: No answer in time, also later on.
    """
    async with groupless(settings, "Kafka") as consumer:
        yield Places(consumer, Names(settings))

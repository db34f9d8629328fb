"""Topics in memory, as readers without a group and as rewinds see them: PartitionReader and GroupAdmin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from pipeline.contracts import Record, TopicName
from pipeline.kafka import BatchUndecodable, Bounds, GroupBusy, KafkaSettings, NotAuthorized, Partition, Point


class FakePartitions:
    """A cluster that does what the test says.

    Attributes:
        group: The one group there is.
        committed_offsets: Its offsets.
        live: Its members.
        joins: Whether one joins right before a commit.
        commits: What was committed.
        groups: Under which names the group was asked for.
        fetched: Partitions of each fetch.
        forbidden: Topics that may not be read.
    """

    def __init__(self, *, at_once: int = 500) -> None:
        self.group = "g"
        self.committed_offsets: dict[Partition, int] = {}
        self.live = 0
        self.joins = False
        self.commits: list[dict[Partition, int]] = []
        self.groups: list[str] = []
        self.fetched: list[list[Partition]] = []
        self.forbidden: set[TopicName] = set()
        self._at_once = at_once
        self._first: dict[Partition, int] = {}
        self._records: dict[Partition, list[Record]] = {}
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._gaps: dict[Partition, int] = {}
        self._later: list[Record] = []
        self._spoilt: dict[Partition, tuple[int, int | None]] = {}

    # what the test says

    def topic(self, topic: TopicName, *, partitions: int = 1, first: int = 0) -> None:
        for number in range(partitions):
            self._first[Partition(topic, number)] = first
            self._records[Partition(topic, number)] = []

    def put(self, topic: TopicName, *times: int, partition: int = 0) -> None:
        """Append records with these timestamps in milliseconds; each value names topic, partition and offset."""
        self._records[Partition(topic, partition)].extend(self._made(Partition(topic, partition), times))

    def put_later(self, topic: TopicName, *times: int, partition: int = 0) -> None:
        """Append them when everything else was fetched."""
        self._later.extend(self._made(Partition(topic, partition), times))

    def end_with_gap(self, topic: TopicName, offsets: int, *, partition: int = 0) -> None:
        """Let a partition end with offsets that hold no record, as aborted transactions leave them."""
        self._gaps[Partition(topic, partition)] = offsets

    def spoil(self, topic: TopicName, first: int, behind: int | None, *, partition: int = 0) -> None:
        """Let the records from one offset on be in a batch that cannot be decoded and ends behind another."""
        self._spoilt[Partition(topic, partition)] = (first, behind)

    def hang(self, topic: TopicName, *, partition: int = 0) -> None:
        """Let a partition end with an offset whose record never comes."""
        self._gaps[Partition(topic, partition)] = -1

    def _made(self, partition: Partition, times: Iterable[int]) -> list[Record]:
        following = self._first[partition] + len(self._records[partition])
        return [
            Record(*partition, offset, "k", f"{partition.topic}/{partition.number}/{offset}".encode(), (), time)
            for offset, time in enumerate(times, following)
        ]

    @asynccontextmanager
    async def connect(self, _settings: KafkaSettings, group: str = "") -> AsyncIterator[FakePartitions]:
        self.groups.append(group)
        yield self

    # what readers call

    async def partitions(self, topics: Iterable[TopicName]) -> list[Partition]:
        return [one for topic in topics for one in self._records if one.topic == topic]

    async def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        return {
            one: Bounds(self._first[one], self._first[one] + len(self._records[one]) + abs(self._gaps.get(one, 0)))
            for one in partitions
        }

    async def offsets(self, bounds: Mapping[Partition, Bounds], point: Point) -> dict[Partition, int]:
        if isinstance(point, str):
            return {one: there.first if point == "earliest" else there.end for one, there in bounds.items()}
        moment = point.timestamp() * 1000
        return {
            one: next((record.offset for record in self._records[one] if record.timestamp_ms >= moment), there.end)
            for one, there in bounds.items()
        }

    def start(self, offsets: Mapping[Partition, int]) -> None:
        self._positions = dict(offsets)

    async def fetch(self, partitions: Sequence[Partition], wait: float) -> dict[Partition, list[Record]]:
        del wait
        self.fetched.append(list(partitions))
        for one in partitions:
            if one.topic in self.forbidden:
                raise NotAuthorized(f"Reading {one.topic}")
        found: dict[Partition, list[Record]] = {}
        for one in partitions:
            rest = [record for record in self._records[one] if record.offset >= self._positions[one]][: self._at_once]
            if one in self._spoilt:
                first, behind = self._spoilt[one]
                if self._positions[one] == first:
                    raise BatchUndecodable(one.topic, one.number, first, behind, "Unknown compression codec 0x05")
                rest = [record for record in rest if record.offset < first]
            if rest and one not in self._paused:
                self._positions[one] = rest[-1].offset + 1
                found[one] = rest
            elif not rest and one not in self._paused and self._gaps.get(one, 0) > 0:
                self._positions[one] += self._gaps.pop(one)
        if not found:
            for record in self._later:
                self._records[Partition(record.topic, record.partition)].append(record)
            self._later.clear()
        return found

    async def position(self, partition: Partition) -> int:
        return self._positions[partition]

    def pause(self, partition: Partition) -> None:
        self._paused.add(partition)

    def resume(self, partition: Partition) -> None:
        self._paused.discard(partition)

    # what a rewind calls

    @property
    def reader(self) -> FakePartitions:
        return self

    async def members(self) -> int:
        return self.live

    async def committed(self) -> dict[Partition, int]:
        return self.committed_offsets if self.groups[-1] == self.group else {}

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        if self.joins:
            raise GroupBusy("g", "a member that has just joined")
        self.commits.append(dict(offsets))

"""A Kafka of one topic in memory, for subscribers: partitions, committed offsets, and members that may be killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from pipeline.contracts import Record, TopicName
from pipeline.kafka import Publisher
from pipeline.kafka.protocols import Partition, RebalanceListener
from pipeline.kafka.testing import MemoryPublisher

FEES: Final = "card-events.fees"
NOON_MS: Final = 1_769_083_200_000


class FakeLog:
    """Implements Cluster; :meth:`connect` makes members.

    Attributes:
        committed: What the group committed, by partition.
        members: All that were made, the last one lives.
        fetch_size: Records that one fetch returns at most.
        dead_letters: Keeps them.
        absent: Topics that are said to be missing.
        read: What windows were read from: offsets.
        read_errors: What the next readings of windows raise.
        goes_back: How many offsets back a window is read.
        dead: Members made from now on can commit nothing.
    """

    def __init__(self, topic: TopicName = FEES, partitions: int = 1) -> None:
        self.topic = topic
        self.records: dict[int, list[Record]] = {number: [] for number in range(partitions)}
        self.committed: dict[int, int] = {}
        self.members: list[FakeMember] = []
        self.fetch_size = 7
        self.dead_letters = MemoryPublisher()
        self.absent: list[str] = []
        self.read: list[list[int]] = []
        self.read_errors: list[Exception] = []
        self.goes_back = 1_000_000
        self.dead = False

    def append(
        self,
        ident: str,
        *,
        key: str = "k",
        kind: str = "weavr.unknown",
        value: bytes = b"{}",
        partition: int = 0,
        skip: int = 0,
        at_ms: int = NOON_MS,
    ) -> Record:
        """Append an event, ``skip`` offsets behind the last one."""
        log = self.records[partition]
        offset = (log[-1].offset + 1 if log else 0) + skip
        headers = (("ce_id", ident.encode()), ("ce_type", kind.encode()), ("content-type", b"application/json"))
        record = Record(self.topic, partition, offset, key, value, headers, at_ms)
        log.append(record)
        return record

    async def connect(self) -> FakeMember:
        member = FakeMember(self)
        self.members.append(member)
        return member

    # Cluster

    async def missing(self, topics: Sequence[TopicName]) -> list[str]:
        return [topic for topic in topics if topic in self.absent]

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publisher]:
        yield self.dead_letters

    async def read_back(self, first: Record) -> AsyncIterator[Record]:
        await asyncio.sleep(0)
        if self.read_errors:
            raise self.read_errors.pop(0)
        before = [
            record
            for record in self.records[first.partition]
            if first.offset - self.goes_back <= record.offset < first.offset
        ]
        self.read.append([record.offset for record in before])
        for record in before:
            yield record


class FakeMember:
    """Implements Group: the only member of its group. ``dead`` lets no commit through any more."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self._listener: RebalanceListener | None = None
        self._assigning: asyncio.Task[None] | None = None
        self._position: dict[int, int] = {}
        self._paused: set[int] = set()
        self.member: tuple[str, int] | None = None
        self.dead = log.dead
        self.closed = False

    @property
    def heartbeat_age(self) -> float:
        return 0.0

    @property
    def membership(self) -> tuple[str, int] | None:
        return self.member

    def subscribe(self, listener: RebalanceListener) -> None:
        self._listener = listener
        self._assigning = asyncio.create_task(self.assign(*self._log.records))

    async def assign(self, *numbers: int, generation: int | None = None) -> None:
        """End a rebalance: these partitions are the member's, from the committed offsets on."""
        assert self._listener
        self.member = ("me", generation or (self.member[1] + 1 if self.member else 1))
        self._position = {number: self._log.committed.get(number, 0) for number in numbers}
        self._paused.clear()
        await self._listener.on_assigned(self.assignment())

    async def revoke(self) -> None:
        """Begin a rebalance."""
        assert self._listener
        await self._listener.on_revoked()

    async def fetch(self, max_records: int, wait: float) -> Mapping[Partition, Sequence[Record]]:
        assert wait > 0
        fetched = {}
        for number, position in self._position.items():
            size = min(max_records, self._log.fetch_size)
            found = [record for record in self._log.records[number] if record.offset >= position][:size]
            if found and number not in self._paused:
                fetched[Partition(self._log.topic, number)] = found
                self._position[number] = found[-1].offset + 1
        await asyncio.sleep(0 if fetched else 0.001)
        return fetched

    async def commit(self, offsets: Mapping[Partition, int]) -> bool:
        await asyncio.sleep(0)
        if self.dead:
            return False
        self._log.committed.update({partition.number: offset for partition, offset in offsets.items()})
        return True

    async def start_offset(self, partition: Partition) -> int | None:
        return self._log.committed.get(partition.number, 0)

    def assignment(self) -> frozenset[Partition]:
        return frozenset(Partition(self._log.topic, number) for number in self._position)

    def pause(self, partition: Partition) -> None:
        self._paused.add(partition.number)

    def resume(self, partition: Partition) -> None:
        self._paused.discard(partition.number)

    def seek(self, partition: Partition, offset: int) -> None:
        self._position[partition.number] = offset

    async def refresh_ends(self, partitions: Sequence[Partition]) -> None:
        assert partitions

    def end(self, partition: Partition) -> int | None:
        log = self._log.records[partition.number]
        return log[-1].offset + 1 if log else 0

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - as the protocol has it
        assert timeout > 0
        self.closed = True
        if self._assigning:
            self._assigning.cancel()

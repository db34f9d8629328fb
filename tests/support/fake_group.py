"""A Kafka client for group members that does what the test says: see ``pipeline.kafka.protocols.GroupClient``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence

from pipeline.contracts import Record, Topic
from pipeline.kafka.protocols import Partition, RebalanceListener


class FakeGroup:
    """One member's view of a group.

    Attributes:
        age: Seconds since the last heartbeat.
        answers: What the next commits answer: True, False, or an error to raise; True when used up.
        commits: What was committed, one entry per commit.
        start_offsets: Committed offsets, for work that starts over; missing ones cannot be learnt.
    """

    def __init__(self, topic: Topic = Topic.BATCH_REQUESTED) -> None:
        self.topic = topic
        self.age = 0.0
        self.member: tuple[str, int] | None = None
        self.listener: RebalanceListener | None = None
        self.partitions: frozenset[Partition] = frozenset()
        self.answers: deque[bool | Exception] = deque()
        self.commits: list[dict[int, int]] = []
        self.commit_hangs = False
        self.paused: set[int] = set()
        self.seeks: list[tuple[int, int]] = []
        self.start_offsets: dict[int, int] = {}
        self.fetch_errors: deque[Exception] = deque()
        self.closed = False
        self._subscribed = asyncio.Event()
        self._next: dict[int, int] = {}
        self._fetched: dict[Partition, list[Record]] = {}
        self._more = asyncio.Event()
        self._ends: dict[int, int] = {}

    # what the test says

    async def assign(self, *numbers: int, member: str = "me", generation: int | None = None) -> None:
        """End a rebalance: these partitions are the member's."""
        await self._subscribed.wait()
        assert self.listener
        last = self.member[1] if self.member else 0
        self.member = (member, generation or last + 1)
        self.partitions = frozenset(Partition(self.topic, number) for number in numbers)
        self.paused.clear()
        await self.listener.on_assigned(self.partitions)

    async def revoke(self) -> None:
        """Begin a rebalance."""
        assert self.listener
        await self.listener.on_revoked()

    def record(self, key: str, value: bytes, partition: int = 0, offset: int | None = None) -> Record:
        at = self._next.get(partition, 0) if offset is None else offset
        self._next[partition] = at + 1
        return Record(self.topic, partition, at, key, value, (), 1_700_000_000_000)

    def deliver(self, *records: Record) -> None:
        """Let the next fetch return these."""
        for record in records:
            self._fetched.setdefault(Partition(record.topic, record.partition), []).append(record)
        self._more.set()

    def send(self, *pairs: tuple[str, bytes], partition: int = 0) -> list[Record]:
        """Let the next fetch return new records."""
        records = [self.record(key, value, partition) for key, value in pairs]
        self.deliver(*records)
        return records

    # what the member calls

    @property
    def heartbeat_age(self) -> float:
        return self.age

    @property
    def membership(self) -> tuple[str, int] | None:
        return self.member

    def subscribe(self, listener: RebalanceListener) -> None:
        self.listener = listener
        self._subscribed.set()

    async def fetch(self, max_records: int, wait: float) -> Mapping[Partition, Sequence[Record]]:
        assert max_records > 0
        if self.fetch_errors:
            raise self.fetch_errors.popleft()
        try:
            async with asyncio.timeout(wait):
                await self._more.wait()
        except TimeoutError:
            return {}
        self._more.clear()
        fetched, self._fetched = self._fetched, {}
        self._ends |= {number: end for number, end in self._next.items() if number not in self.paused}
        return fetched

    async def commit(self, offsets: Mapping[Partition, int]) -> bool:
        if self.commit_hangs:
            await asyncio.Event().wait()
        answer = self.answers.popleft() if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        if answer:
            self.commits.append({partition.number: offset for partition, offset in offsets.items()})
        return answer

    async def start_offset(self, partition: Partition) -> int | None:
        await asyncio.sleep(0)
        return self.start_offsets.get(partition.number)

    def assignment(self) -> frozenset[Partition]:
        return self.partitions

    def pause(self, partition: Partition) -> None:
        self.paused.add(partition.number)

    def resume(self, partition: Partition) -> None:
        self.paused.discard(partition.number)

    def seek(self, partition: Partition, offset: int) -> None:
        self.seeks.append((partition.number, offset))

    async def refresh_ends(self, partitions: Sequence[Partition]) -> None:
        self._ends |= {partition.number: self._next.get(partition.number, 0) for partition in partitions}

    def end(self, partition: Partition) -> int | None:
        return self._ends.get(partition.number)

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - as the protocol has it
        assert timeout > 0
        self.closed = True

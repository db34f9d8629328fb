"""Reading several topics at once, without a group, in the order in which their records arrived."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from pipeline.contracts import Record, TopicName
from pipeline.kafka._group import Partition
from pipeline.kafka._places import Point, open_places
from pipeline.kafka.errors import BrokerUnavailable
from pipeline.kafka.reader import Bounds
from pipeline.kafka.settings import KafkaSettings

_AHEAD: Final = 500
"""Records of a partition that may wait before no more is fetched of it. To fetch of the hungry alone would be slow: the
client holds back a fetch while it has records of others that nobody took."""
_LIVE_WAIT: Final = 1.0
"""Seconds that one wait for new records lasts; only how soon a lost connection is noticed depends on it."""


class Client(Protocol):
    """What reading needs of a Kafka client; see :class:`pipeline.kafka._places.Places`."""

    async def partitions(self, topics: Iterable[TopicName]) -> list[Partition]: ...  # noqa: D102 - see Places
    async def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]: ...  # noqa: D102
    async def offsets(self, bounds: Mapping[Partition, Bounds], point: Point) -> dict[Partition, int]: ...  # noqa: D102
    async def fetch(self, partitions: Sequence[Partition], wait: float) -> dict[Partition, list[Record]]: ...  # noqa: D102
    async def position(self, partition: Partition) -> int: ...  # noqa: D102
    def start(self, offsets: Mapping[Partition, int]) -> None: ...  # noqa: D102
    def pause(self, partition: Partition) -> None: ...  # noqa: D102
    def resume(self, partition: Partition) -> None: ...  # noqa: D102


Connect = Callable[[KafkaSettings], AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def _connected(settings: KafkaSettings) -> AsyncIterator[Client]:
    async with open_places(settings) as places:
        yield places


async def tail(
    settings: KafkaSettings,
    topics: Sequence[TopicName],
    *,
    since: Point,
    follow: bool,
    missing: Callable[[TopicName], object],
    connect: Connect = _connected,
) -> AsyncGenerator[Record, None]:
    """Yield the records of several topics, merged by their timestamps; each partition keeps its own order.

    What is there at the beginning is merged exactly; afterwards records come as they are fetched. Memory is bounded by
    two fetches per partition. Partitions that are added meanwhile are not read.

    Args:
        settings: The cluster.
        topics: What to read.
        since: Where to begin.
        follow: Whether to go on for ever, with what comes; else it ends where the topics ended at the beginning.
        missing: Called for each topic that does not exist; may raise.
        connect: Opens a client.

    Raises:
        BrokerUnavailable: No answer in time. While following, an absent broker is waited for.
    """
    async with connect(settings) as client:
        partitions = await client.partitions(topics)
        for topic in topics:
            if not any(partition.topic == topic for partition in partitions):
                missing(topic)
        bounds = await client.bounds(partitions)
        starts = await client.offsets(bounds, since)
        if not starts:
            return
        client.start(starts)
        ends = {one: there.end for one, there in bounds.items() if starts[one] < there.end}
        for one in partitions:
            if one not in ends:
                client.pause(one)
        async for record in _backlog(client, ends, settings.request_timeout_seconds, beyond=follow):
            yield record
        for one in partitions:
            client.resume(one)
        while follow:
            got = await client.fetch(partitions, _LIVE_WAIT)
            for record in heapq.merge(*got.values(), key=_arrival):
                yield record


async def _backlog(
    client: Client, ends: Mapping[Partition, int], patience: float, *, beyond: bool
) -> AsyncGenerator[Record, None]:
    """Yield what stands before the ends; of what was fetched beyond them too, if that is wanted."""
    merge = Merge(ends)
    while True:
        while (record := merge.pop()) is not None:
            yield record
        if not merge.hungry:
            return
        short = merge.short
        got = await client.fetch(short, patience)
        for one, records in got.items():
            merge.put(one, [record for record in records if beyond or record.offset < ends[one]])
        over = [one for one in short if await client.position(one) >= ends[one]]
        for one in over:
            client.pause(one)
            merge.finish(one)
        if not got and not over:
            raise BrokerUnavailable("broker_unavailable", "No records came within kafka.request_timeout_seconds.")


class Merge:
    """Orders records of several partitions by their timestamps, without waiting for more than the next of each.

    Args:
        partitions: From which records are expected.
    """

    def __init__(self, partitions: Iterable[Partition]) -> None:
        self._waiting: dict[Partition, deque[Record]] = {one: deque() for one in partitions}
        self._finished: set[Partition] = set()
        self._heads: list[tuple[int, Partition]] = []
        self._hungry = set(self._waiting)

    @property
    def hungry(self) -> list[Partition]:
        """Partitions whose next record is not known yet; nothing can be said before it is, or they are finished."""
        return sorted(self._hungry)

    @property
    def short(self) -> list[Partition]:
        """Partitions of which few records wait and more are expected; the hungry are among them."""
        return sorted(
            one for one, waiting in self._waiting.items() if one not in self._finished and len(waiting) < _AHEAD
        )

    def put(self, partition: Partition, records: Sequence[Record]) -> None:
        """Take the next records of a partition, in their order."""
        self._waiting[partition].extend(records)
        if records and partition in self._hungry:
            self._hungry.discard(partition)
            heapq.heappush(self._heads, (records[0].timestamp_ms, partition))

    def finish(self, partition: Partition) -> None:
        """Expect no more of a partition."""
        self._finished.add(partition)
        self._hungry.discard(partition)

    def pop(self) -> Record | None:
        """Return the earliest record, or None: a partition is hungry, or all are finished."""
        if self._hungry or not self._heads:
            return None
        _, partition = heapq.heappop(self._heads)
        waiting = self._waiting[partition]
        record = waiting.popleft()
        if waiting:
            heapq.heappush(self._heads, (waiting[0].timestamp_ms, partition))
        elif partition not in self._finished:
            self._hungry.add(partition)
        return record


def _arrival(record: Record) -> int:
    return record.timestamp_ms

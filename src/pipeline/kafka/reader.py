"""Reads topics without a group: a bounded range, or several topics merged and followed."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Final

from pipeline.contracts import Record, TopicName
from pipeline.kafka.client.reader import KafkaPartitionReader, open_reader
from pipeline.kafka.errors import BatchUndecodable, BrokerUnavailable, TopicMissing
from pipeline.kafka.protocols import Bounds, Partition, PartitionReader, Point
from pipeline.kafka.settings import KafkaSettings
from pipeline.observability import get_logger

log = get_logger(__name__)

_AHEAD: Final = 500
"""Maximum number of records of a partition that wait in a merge before its fetches stop.

Fetching only the partitions with an empty buffer would be slow, because the client delays a fetch while it has records
of other partitions.
"""
_LIVE_WAIT: Final = 1.0
"""Seconds that one wait for new records lasts. It only affects how soon a lost connection is noticed."""
_LAST_MS: Final = 253_402_300_799_000
"""About the last millisecond that a datetime can hold: producers may write any number."""

Connect = Callable[[KafkaSettings], AbstractAsyncContextManager[PartitionReader]]


async def missing_topics(settings: KafkaSettings, topics: Sequence[TopicName]) -> list[str]:
    """Return the cluster's names of those topics that do not exist, or that may not be described.

    It creates none, except on the embedded broker, which has no other way to create topics.

    Raises:
        BrokerUnavailable: No answer in time.
    """
    async with open_reader(settings, "Metadata") as reader:
        return await reader.missing(topics)


async def topic_names(settings: KafkaSettings) -> list[TopicName]:
    """Return the topics of the cluster that have the prefix of the settings and may be described, sorted.

    Raises:
        BrokerUnavailable: No answer in time.
    """
    async with open_reader(settings, "Metadata") as reader:
        return await reader.topics()


async def topic_bounds(settings: KafkaSettings, topic: TopicName) -> dict[int, Bounds]:
    """Return the offsets that each partition of a topic holds now.

    Raises:
        BrokerUnavailable: No answer in time, or there is no such topic.
    """
    async with open_reader(settings, topic) as reader:
        bounds = await reader.bounds(await _partitions(reader, topic))
        return {partition.number: there for partition, there in bounds.items()}


async def read_topic(
    settings: KafkaSettings, topic: TopicName, *, ranges: Mapping[int, Bounds] | None = None
) -> AsyncIterator[Record]:
    """Yield the records of a topic, in offset order within each partition; memory is bounded by one fetch.

    Args:
        settings: The cluster.
        topic: What to read.
        ranges: Partitions and offsets to read; deleted offsets are skipped. Default: all current offsets.

    Raises:
        BrokerUnavailable: No answer in time, or there is no such topic.
        BatchUndecodable: A batch cannot be decoded; every record of its partition before it was yielded.
    """
    async with open_reader(settings, topic) as reader:
        found = await reader.bounds(await _partitions(reader, topic))
        wanted = _wanted({partition.number: there for partition, there in found.items()}, ranges)
        async for record in _until(reader, {Partition(topic, number): one for number, one in wanted.items()}, settings):
            yield record


async def read_back(settings: KafkaSettings, first: Record, *, most: int, milliseconds: int) -> AsyncIterator[Record]:
    """Yield the records of one partition right before a given one, in offset order; memory is bounded by one fetch.

    Older records (by timestamp) at the beginning of the range are left out. A batch that cannot be decoded is left out
    too: it comes before the given record, so an operator has skipped it on purpose. The log names it.

    Args:
        settings: The cluster.
        first: The record at the end of the range; it is not yielded.
        most: Maximum number of offsets to go back.
        milliseconds: How much older than ``first`` a record may be, if the broker can look that up.

    Raises:
        BrokerUnavailable: No answer in time.
    """
    if not first.offset or not most:
        return  # there is nothing before it: a new group needs no connection for each partition
    partition = Partition(first.topic, first.partition)
    async with open_reader(settings, first.topic) as reader:
        start = await _start_of_range(reader, partition, first, most=most, milliseconds=milliseconds)
        while start < first.offset:
            try:
                async for record in _until(reader, {partition: Bounds(start, first.offset)}, settings):
                    yield record
            except BatchUndecodable as error:
                log.warning("batch_left_out", **error.position, why=error.why)
                start = max(error.next_offset or 0, error.offset + 1)  # a damaged batch may have any value
            else:
                return


async def _start_of_range(
    reader: PartitionReader, partition: Partition, first: Record, *, most: int, milliseconds: int
) -> int:
    there = (await reader.bounds([partition]))[partition]
    start = max(there.first, first.offset - most)
    since = first.timestamp_ms - milliseconds
    if since <= 0:
        return start
    time = datetime.fromtimestamp(min(since, _LAST_MS) / 1000, UTC)
    offset = (await reader.offsets({partition: there}, time))[partition]
    # a broker without times may answer anything: then only the number limits the range
    return max(start, offset) if offset <= first.offset else start


async def _partitions(reader: KafkaPartitionReader, topic: TopicName) -> list[Partition]:
    if await reader.missing([topic]):
        raise TopicMissing(f"Reading {topic}")
    return await reader.partitions([topic])


def _wanted(there: Mapping[int, Bounds], ranges: Mapping[int, Bounds] | None) -> dict[int, Bounds]:
    asked = there if ranges is None else ranges
    cut = {
        number: Bounds(max(first, there[number].first), min(end, there[number].end))
        for number, (first, end) in asked.items()
        if number in there
    }
    return {number: bounds for number, bounds in cut.items() if bounds.first < bounds.end}


async def _until(
    reader: PartitionReader, ranges: Mapping[Partition, Bounds], settings: KafkaSettings
) -> AsyncIterator[Record]:
    """Yield records until each partition's position reaches its end (the last offsets may hold no record)."""
    reader.start({partition: bounds.first for partition, bounds in ranges.items()})
    ends = {partition: bounds.end for partition, bounds in ranges.items()}
    while ends:
        got = await reader.fetch(list(ends), settings.request_timeout_seconds)
        for partition, records in got.items():
            for record in records:
                if record.offset < ends[partition]:
                    yield record
        finished = [partition for partition, end in ends.items() if await reader.position(partition) >= end]
        for partition in finished:
            reader.pause(partition)
            del ends[partition]
        if not got and not finished:
            raise BrokerUnavailable("broker_unavailable", "No records came within kafka.request_timeout_seconds.")


async def tail(
    settings: KafkaSettings,
    topics: Sequence[TopicName],
    *,
    since: Point,
    follow: bool,
    missing: Callable[[TopicName], object],
    connect: Connect = open_reader,
) -> AsyncGenerator[Record, None]:
    """Yield the records of several topics, merged by their timestamps; each partition keeps its own order.

    Records that exist at the beginning are merged exactly; later ones come as they are fetched. Memory is bounded by
    two fetches per partition. Partitions that are added meanwhile are not read.

    Args:
        settings: The cluster.
        topics: What to read.
        since: Where to begin.
        follow: Whether to continue for ever with new records. Otherwise it stops at the ends that the topics had at the
            start.
        missing: Called for each topic that does not exist; may raise.
        connect: Opens a reader.

    Raises:
        BrokerUnavailable: No answer in time. While it follows, it waits for an absent broker.
        BatchUndecodable: A batch cannot be decoded; every record of its partition before it was fetched.
    """
    async with connect(settings) as reader:
        partitions = await reader.partitions(topics)
        for topic in topics:
            if not any(partition.topic == topic for partition in partitions):
                missing(topic)
        bounds = await reader.bounds(partitions)
        starts = await reader.offsets(bounds, since)
        if not starts:
            return
        reader.start(starts)
        ends = {one: there.end for one, there in bounds.items() if starts[one] < there.end}
        for one in partitions:
            if one not in ends:
                reader.pause(one)
        async for record in _backlog(reader, ends, settings.request_timeout_seconds, beyond=follow):
            yield record
        for one in partitions:
            reader.resume(one)
        while follow:
            got = await reader.fetch(partitions, _LIVE_WAIT)
            for record in heapq.merge(*got.values(), key=_arrival):
                yield record


async def _backlog(
    reader: PartitionReader, ends: Mapping[Partition, int], patience: float, *, beyond: bool
) -> AsyncGenerator[Record, None]:
    """Yield the records before the ends, and with ``beyond`` also fetched ones after them."""
    merge = Merge(ends)
    while True:
        while (record := merge.pop()) is not None:
            yield record
        if not merge.empty:
            return
        short = merge.short
        got = await reader.fetch(short, patience)
        for one, records in got.items():
            merge.put(one, [record for record in records if beyond or record.offset < ends[one]])
        over = [one for one in short if await reader.position(one) >= ends[one]]
        for one in over:
            reader.pause(one)
            merge.finish(one)
        if not got and not over:
            raise BrokerUnavailable("broker_unavailable", "No records came within kafka.request_timeout_seconds.")


class Merge:
    """Orders records of several partitions by their timestamps. It needs only the next record of each partition.

    Args:
        partitions: The partitions that send records.
    """

    def __init__(self, partitions: Iterable[Partition]) -> None:
        self._waiting: dict[Partition, deque[Record]] = {one: deque() for one in partitions}
        self._finished: set[Partition] = set()
        self._heads: list[tuple[int, Partition]] = []
        self._empty = set(self._waiting)

    @property
    def empty(self) -> list[Partition]:
        """Partitions whose next record is not known yet.

        Until they get one or are finished, no record can be ordered.
        """
        return sorted(self._empty)

    @property
    def short(self) -> list[Partition]:
        """Unfinished partitions with few or no waiting records."""
        return sorted(
            one for one, waiting in self._waiting.items() if one not in self._finished and len(waiting) < _AHEAD
        )

    def put(self, partition: Partition, records: Sequence[Record]) -> None:
        """Take the next records of a partition, in their order."""
        self._waiting[partition].extend(records)
        if records and partition in self._empty:
            self._empty.discard(partition)
            heapq.heappush(self._heads, (records[0].timestamp_ms, partition))

    def finish(self, partition: Partition) -> None:
        """Expect no more of a partition."""
        self._finished.add(partition)
        self._empty.discard(partition)

    def pop(self) -> Record | None:
        """Return the earliest record; None if a partition has no record to compare yet, or all are finished."""
        if self._empty or not self._heads:
            return None
        _, partition = heapq.heappop(self._heads)
        waiting = self._waiting[partition]
        record = waiting.popleft()
        if waiting:
            heapq.heappush(self._heads, (waiting[0].timestamp_ms, partition))
        elif partition not in self._finished:
            self._empty.add(partition)
        return record


def _arrival(record: Record) -> int:
    return record.timestamp_ms

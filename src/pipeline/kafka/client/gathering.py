"""Gathers records into batches: records that arrive while a partition's batch is being sent form the next batch."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from struct import iter_unpack
from typing import Any, Final, Protocol

from aiokafka import errors as kafka
from aiokafka.structs import RecordMetadata, TopicPartition

from pipeline.contracts import TOPICS, OutgoingRecord
from pipeline.kafka.client.send_queue import Batch, Take

TOO_LARGE: Final = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)

_BATCH_BYTES: Final = 262_144
"""A batch gets no further record above this size, so that brokers with small limits accept it."""

_FACTOR: Final = 0x5BD1E995
_32_BITS: Final = 0xFFFFFFFF


@lru_cache(maxsize=1024)  # keys repeat
def _murmur2(data: bytes) -> int:
    """Return Kafka's hash of a key (32-bit Murmur 2). It reads four bytes at a time, twice as fast as aiokafka's."""
    words, rest = data[: len(data) & ~3], data[len(data) & ~3 :]
    hashed = 0x9747B28C ^ len(data)
    for (word,) in iter_unpack("<I", words):
        mixed = word * _FACTOR & _32_BITS
        hashed = (hashed * _FACTOR ^ (mixed ^ mixed >> 24) * _FACTOR) & _32_BITS
    if rest:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _FACTOR & _32_BITS
    hashed = (hashed ^ hashed >> 13) * _FACTOR & _32_BITS
    return hashed ^ hashed >> 15


_NUMBERED: Final = tuple(spec.topic for spec in TOPICS if spec.numbered)
_DIGITS: Final = 8
"""Most digits of a key's number."""


def partition_of(key: bytes, every: Sequence[int]) -> int:
    """Return the partition of a key. Kafka's Java clients choose the same one.

    Args:
        key: Key of the record.
        every: Numbers of the topic's partitions, ascending.
    """
    return every[(_murmur2(key) & 0x7FFFFFFF) % len(every)]


def partition_of_record(record: OutgoingRecord, key: bytes, every: Sequence[int]) -> int:
    """Return the partition of a record that names none. ``key`` and ``every`` are as for :func:`partition_of`.

    In a topic with numbered keys, the record with number ``n`` goes ``n`` partitions after the partition of the key
    without its number. So the records of one job spread evenly, and a repeated record goes to the same partition again.
    """
    if record.topic in _NUMBERED:
        name, _, number = key.rpartition(b"#")
        if number.isdigit() and len(number) <= _DIGITS:
            return every[(every.index(partition_of(name, every)) + int(number)) % len(every)]
    return partition_of(key, every)


def partition_of_key(key: str, partitions: int) -> int:
    """Return the partition of a key in a topic with this number of partitions."""
    return partition_of(key.encode(), range(partitions))


class BatchSender(Protocol):
    """The part of a producer that gathering needs. Errors are KafkaError."""

    async def partitions(self, topic: str) -> Sequence[int]:
        """Return the numbers of a topic's partitions, ascending, as soon as they are known."""
        ...

    def known_partitions(self, topic: str) -> Sequence[int]:
        """Return the numbers of a topic's partitions, ascending; empty if they are not known."""
        ...

    def new_builder(self) -> Any:
        """Return an empty batch builder (aiokafka's ``DefaultRecordBatchBuilder``)."""
        ...

    def offer(self, at: TopicPartition, take: Take) -> None:
        """Call ``take`` once, when a request can carry a batch of this partition, and send what it returns.

        No other batch of the partition may be offered or in flight.
        """
        ...

    def take_back(self, at: TopicPartition, records: int) -> None:
        """Take back the sequence numbers of a partition's last batch, because a broker has refused it."""
        ...


@dataclass(slots=True, eq=False)
class _Waiting:
    record: OutgoingRecord
    key: bytes
    confirmed: asyncio.Future[RecordMetadata]
    settled: Callable[[], object]


@dataclass(slots=True, eq=False)
class _Lane:
    """The waiting records of one partition, and those of its batch that is being sent.

    It is busy while the sender has such a batch or may take the next one.
    """

    at: TopicPartition
    waiting: deque[_Waiting] = field(default_factory=deque)
    busy: bool = False
    sending: Sequence[_Waiting] = ()
    alone: int = 0
    """How many of the next records to send one by one, each in its own batch."""


class Gathering:
    """Sends the records of a partition in their order, one batch at a time, without waiting for a batch to fill.

    Args:
        sender: Sends the batches.
        topic_name: Returns a topic's name on the cluster.
    """

    def __init__(self, sender: BatchSender, topic_name: Callable[[str], str]) -> None:
        self._sender = sender
        self._topic_name = topic_name
        self._loop = asyncio.get_running_loop()
        self._arrived: list[_Waiting] = []
        self._unknown: dict[str, list[_Waiting]] = {}
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._finding: set[asyncio.Task[None]] = set()
        self._flushed: asyncio.Future[None] | None = None
        self._closed: Exception | None = None

    def send(
        self, record: OutgoingRecord, settled: Callable[[], object] = lambda: None
    ) -> asyncio.Future[RecordMetadata]:
        """Take a record. The future returns once every in-sync replica has it, and raises once it is refused.

        The caller may cancel the future, but the record is sent anyway.

        Args:
            record: The record. Records of one partition that arrive at the same moment share a batch.
            settled: Called when the record is confirmed or refused, even if the future was cancelled.
        """
        future: asyncio.Future[RecordMetadata] = self._loop.create_future()
        one = _Waiting(record, record.key.encode(), future, settled)
        if self._closed is not None:
            _refuse([one], self._closed)
            return future
        if not self._arrived:
            self._loop.call_soon(self._queue_arrived)
        self._arrived.append(one)
        return future

    async def flush(self) -> None:
        """Wait until every record that was taken is confirmed or refused."""
        self._queue_arrived()
        while self._finding or any(lane.busy for lane in self._lanes.values()):
            self._flushed = self._loop.create_future()
            await asyncio.wait([*self._finding, self._flushed], return_when=asyncio.FIRST_COMPLETED)

    def close(self, error: Exception) -> None:
        """Refuse every record that is not sent yet, and all later records, with this error."""
        self._closed = error
        left = [*self._arrived, *(one for queue in self._unknown.values() for one in queue)]
        self._arrived.clear()
        self._unknown.clear()
        for lane in self._lanes.values():
            left += lane.waiting
            lane.waiting.clear()
        _refuse(left, error)
        for task in self._finding:
            task.cancel()

    def drop_abandoned(self) -> None:
        """Drop the records that no batch holds yet, and whose callers have ended the future with an error."""
        for waiting in (*self._unknown.values(), *(lane.waiting for lane in self._lanes.values())):
            for one in [one for one in waiting if _is_abandoned(one)]:
                waiting.remove(one)
                one.settled()

    def held_up(self, topic: str) -> int:
        """Return how many records of a topic are not confirmed, if one that is being sent was abandoned; else 0."""
        lanes = [lane for (name, _), lane in self._lanes.items() if name == self._topic_name(topic)]
        if not any(_is_abandoned(one) for lane in lanes for one in lane.sending):
            return 0
        return sum(len(lane.waiting) + len(lane.sending) for lane in lanes)

    def _queue_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        known: dict[str, Sequence[int]] = {}
        ready = list[_Lane]()
        for one in arrived:
            topic = self._topic_name(one.record.topic)
            if topic not in known:
                known[topic] = self._sender.known_partitions(topic)
            if topic in self._unknown:
                self._unknown[topic].append(one)
            elif known[topic]:
                ready += self._queue(topic, known[topic], one)
            else:
                self._unknown[topic] = [one]
                task = self._loop.create_task(self._find_and_queue(topic))
                self._finding.add(task)
                task.add_done_callback(self._finding.discard)
        for lane in ready:
            self._offer(lane)

    async def _find_and_queue(self, topic: str) -> None:
        try:
            partitions = await self._sender.partitions(topic)
        except Exception as error:  # noqa: BLE001 - the callers that wait for the records raise it
            _refuse(self._unknown.pop(topic, []), error)
            return
        if not partitions:  # metadata may name a topic before its partitions
            _refuse(self._unknown.pop(topic, []), kafka.UnknownTopicOrPartitionError(topic))
            return
        for lane in [lane for one in self._unknown.pop(topic, []) for lane in self._queue(topic, partitions, one)]:
            self._offer(lane)

    def _queue(self, topic: str, partitions: Sequence[int], one: _Waiting) -> Sequence[_Lane]:
        """Add a record to the lane of its partition. Return the lane if the caller has to offer its next batch."""
        number = one.record.partition
        if number is None:
            number = partition_of_record(one.record, one.key, partitions)
        elif number not in partitions:
            _refuse([one], kafka.UnknownTopicOrPartitionError(f"{topic} has no partition {number}"))
            return ()
        lane = self._lanes.get((topic, number))
        if lane is None:
            lane = self._lanes[topic, number] = _Lane(TopicPartition(topic, number))
        lane.waiting.append(one)
        if lane.busy:
            return ()
        lane.busy = True
        return (lane,)

    def _offer(self, lane: _Lane) -> None:
        """Let the sender take the next batch of a lane that has waiting records."""
        try:
            self._sender.offer(lane.at, partial(self._next_batch, lane))
        except Exception as error:  # noqa: BLE001 - the callers that wait for the records raise it
            _refuse(lane.waiting, error)
            lane.waiting.clear()
            self._go_on(lane)

    def _next_batch(self, lane: _Lane) -> Batch | None:
        """Return a batch of as many waiting records as fit, and at least one; None if none is left."""
        waiting, taken = lane.waiting, list[_Waiting]()
        builder = self._sender.new_builder()
        while waiting and (not taken or (lane.alone == 0 and _fits(builder, waiting[0].record))):
            one = waiting[0]
            try:
                appended = builder.append(len(taken), None, one.key, one.record.value, list(one.record.headers))
            except Exception as error:  # noqa: BLE001 - the caller that waits for the record raises it
                _refuse([waiting.popleft()], error)
                continue
            if appended is None:
                break
            taken.append(waiting.popleft())
        if not taken:
            self._go_on(lane)
            return None
        lane.alone = max(lane.alone - 1, 0)
        lane.sending = taken
        return Batch(builder, lane.at, len(taken), partial(self._settle, lane, taken))

    def _settle(self, lane: _Lane, records: list[_Waiting], outcome: RecordMetadata | Exception) -> None:
        if not isinstance(outcome, Exception):
            _confirm(records, outcome)
        elif isinstance(outcome, TOO_LARGE):
            self._sender.take_back(lane.at, len(records))
            if len(records) == 1:
                _refuse(records, outcome)
            elif self._closed is not None:
                _refuse(records, self._closed)
            else:  # one record is too large, or only the whole batch is: send them one by one
                lane.waiting.extendleft(reversed(records))
                lane.alone = len(records)
        else:
            _refuse(records, outcome)
        self._go_on(lane)

    def _go_on(self, lane: _Lane) -> None:
        lane.sending = ()
        if lane.waiting:
            self._offer(lane)
            return
        lane.busy = False
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)


def _is_abandoned(one: _Waiting) -> bool:
    return one.confirmed.done() and not one.confirmed.cancelled() and one.confirmed.exception() is not None


def _fits(builder: Any, record: OutgoingRecord) -> bool:
    return bool(builder.size() + len(record.value) <= _BATCH_BYTES)


def _confirm(records: Sequence[_Waiting], first: RecordMetadata) -> None:
    topic, partition, at, offset, *rest = first
    for number, one in enumerate(records):
        if not one.confirmed.done():
            one.confirmed.set_result(RecordMetadata(topic, partition, at, offset + number, *rest))
        one.settled()


def _refuse(records: Iterable[_Waiting], error: BaseException) -> None:
    for one in records:
        if not one.confirmed.done():
            one.confirmed.set_exception(copy.copy(error))  # each copy is raised separately, with its own traceback
        one.settled()

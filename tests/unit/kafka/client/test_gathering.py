"""Records are gathered in batches: in order, each with its own offset, and none refused for its neighbours."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from aiokafka import errors as kafka
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import RecordMetadata, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import OutgoingRecord, Topic, chunk_key
from pipeline.kafka.client.gathering import Gathering, partition_of, partition_of_record
from pipeline.kafka.client.send_queue import Batch, Take

TOPIC = "webhook-events.code"
REAL = "cluster.webhook-events.code"


class Builder:
    """Collects values as aiokafka's builder of batches does."""

    def __init__(self, room: int) -> None:
        self.values: list[bytes] = []
        self._room = room

    def append(self, offset: int, timestamp: int | None, key: bytes, value: bytes, headers: list[Any]) -> object:
        assert (offset, timestamp, isinstance(headers, list)) == (len(self.values), None, True)
        assert key
        if self.values and self.size() + len(value) > self._room:
            return None
        self.values.append(value)
        return self

    def size(self) -> int:
        return sum(map(len, self.values))


@dataclass
class UnderWay:
    at: TopicPartition
    values: list[bytes]
    batch: Batch


class Sender:
    """Partitions of a broker: each appends in order what the test lets through."""

    def __init__(self, partitions: int = 1) -> None:
        self.every: Sequence[int] = list(range(partitions))
        self.known = True
        self.found = asyncio.Event()
        self.refuse: Exception | None = None
        self.room = 1 << 20
        self.held: list[tuple[TopicPartition, Take]] | None = None
        self.builder = Builder(self.room)
        self.under_way: list[UnderWay] = []
        self.logs: dict[int, list[bytes]] = {}
        self.sizes: list[int] = []
        self.taken_back: list[tuple[int, int]] = []

    async def partitions(self, topic: str) -> Sequence[int]:
        assert topic == REAL
        await self.found.wait()
        if self.refuse is not None:
            raise self.refuse
        return self.every

    def known_partitions(self, topic: str) -> Sequence[int]:
        assert topic == REAL
        return self.every if self.known else []

    def new_builder(self) -> Any:
        self.builder = Builder(self.room)
        return self.builder

    def offer(self, at: TopicPartition, take: Take) -> None:
        """Take a batch at once, as if a request could always carry it; or later, while ``held`` is a list."""
        if self.refuse is not None:
            raise self.refuse
        if self.held is not None:
            self.held.append((at, take))
            return
        assert at.partition not in {one.at.partition for one in self.under_way}, "one batch of a partition at a time"
        batch = take()
        if batch is not None:
            assert batch.records == len(self.builder.values) > 0
            assert batch.at == at
            self.under_way.append(UnderWay(at, self.builder.values, batch))

    def take_back(self, at: TopicPartition, records: int) -> None:
        self.taken_back.append((at.partition, records))

    def confirm(self, most: int | None = None) -> None:
        """Answer the oldest batch; a broker takes no batch larger than ``most`` bytes."""
        one = self.under_way.pop(0)
        self.sizes.append(len(one.values))
        if most is not None and sum(map(len, one.values)) > most:
            one.batch.failure(kafka.MessageSizeTooLargeError())
            return
        log = self.logs.setdefault(one.at.partition, [])
        first = len(log)
        log.extend(one.values)
        one.batch.done(first, 7, 0)

    async def confirm_all(self, most: int | None = None) -> None:
        for _ in range(9):
            await asyncio.sleep(0)
        while self.under_way:
            self.confirm(most)
            for _ in range(9):
                await asyncio.sleep(0)


def gathering(sender: Sender) -> Gathering:
    return Gathering(sender, lambda topic: f"cluster.{topic}")


def record(value: bytes, key: str = "k") -> OutgoingRecord:
    return OutgoingRecord(TOPIC, key, value, (("ce_id", b"1"),))


async def test_records_of_one_moment_share_a_batch_and_each_has_its_own_offset() -> None:
    sender = Sender()
    gathered = gathering(sender)
    futures = [gathered.send(record(b"%d" % number)) for number in range(3)]
    await sender.confirm_all()
    assert sender.sizes == [3]
    assert [future.result() for future in futures] == [
        RecordMetadata(REAL, 0, TopicPartition(REAL, 0), offset, 7, 1, 0) for offset in range(3)
    ]


async def test_what_comes_while_a_batch_is_away_is_the_next_one() -> None:
    sender = Sender()
    gathered = gathering(sender)
    gathered.send(record(b"0"))
    await asyncio.sleep(0)
    late = [gathered.send(record(b"%d" % number)) for number in (1, 2)]
    await asyncio.sleep(0)
    assert len(sender.under_way) == 1
    await sender.confirm_all()
    assert sender.sizes == [1, 2]
    assert sender.logs[0] == [b"0", b"1", b"2"]
    assert [future.result().offset for future in late] == [1, 2]


async def test_what_its_caller_gave_up_is_dropped_unless_it_is_being_sent() -> None:
    """A cancelled caller has not given up: its record is sent."""
    sender, settled = Sender(), list[bytes]()
    gathered = gathering(sender)

    def send(value: bytes) -> asyncio.Future[RecordMetadata]:
        return gathered.send(record(value), lambda: settled.append(value))

    sending = send(b"0")
    await asyncio.sleep(0)
    late, cancelled, _ = send(b"1"), send(b"2"), send(b"3")
    await asyncio.sleep(0)
    cancelled.cancel()
    assert gathered.held_up(TOPIC) == 0
    for future in (sending, late):
        future.set_exception(TimeoutError())
        future.exception()
    gathered.drop_abandoned()
    assert (settled, gathered.held_up(TOPIC)) == ([b"1"], 3)
    await sender.confirm_all()
    assert sender.logs[0] == [b"0", b"2", b"3"]
    assert (settled, gathered.held_up(TOPIC)) == ([b"1", b"0", b"2", b"3"], 0)


async def test_a_batch_stops_before_it_grows_above_its_size() -> None:
    """A single record of any size is a batch; the broker decides about it."""
    sender = Sender()
    gathered = gathering(sender)
    for size in (300_000, 100_000, 100_000, 100_000):
        gathered.send(record(b"x" * size))
    await sender.confirm_all()
    assert sender.sizes == [1, 2, 1]
    sender.room = 10
    for size in (6, 4, 4):
        gathered.send(record(b"x" * size))
    await sender.confirm_all()
    assert sender.sizes[3:] == [2, 1]


async def test_only_the_record_that_is_refused_alone_is_too_large() -> None:
    """Its neighbours of the same batch are sent again, in order."""
    sender = Sender()
    gathered = gathering(sender)
    values = [b"a", b"x" * 50, b"b", b"c"]
    futures = [gathered.send(record(value)) for value in values]
    await sender.confirm_all(most=40)
    assert sender.logs[0] == [b"a", b"b", b"c"]
    assert [type(future.exception()) for future in futures] == [
        type(None),
        kafka.MessageSizeTooLargeError,
        *[type(None)] * 2,
    ]
    assert [future.result().offset for future in futures if not future.exception()] == [0, 1, 2]
    assert sender.taken_back == [(0, 4), (0, 1)]
    gathered.send(record(b"d"))
    gathered.send(record(b"e"))
    await sender.confirm_all()
    assert sender.sizes == [4, 1, 1, 1, 1, 2]


async def test_records_that_are_too_large_only_together_are_all_taken() -> None:
    sender = Sender()
    gathered = gathering(sender)
    futures = [gathered.send(record(b"x" * 20)) for _ in range(4)]
    await sender.confirm_all(most=40)
    assert [future.result().offset for future in futures] == [0, 1, 2, 3]


async def test_a_refused_batch_fails_its_own_records_alone() -> None:
    sender = Sender()
    gathered = gathering(sender)
    first = [gathered.send(record(b"%d" % number)) for number in range(2)]
    await asyncio.sleep(0)
    second = gathered.send(record(b"2"))
    await asyncio.sleep(0)
    sender.under_way.pop().batch.failure(kafka.NotEnoughReplicasError())
    await sender.confirm_all()
    errors = [future.exception() for future in first]
    assert [type(error) for error in errors] == [kafka.NotEnoughReplicasError] * 2
    assert errors[0] is not errors[1]
    assert second.result().offset == 0


async def test_a_producer_that_is_broken_refuses_each_record() -> None:
    sender = Sender()
    gathered = gathering(sender)
    sender.refuse = kafka.ProducerClosed()
    futures = [gathered.send(record(b"x" * 200_000)) for _ in range(3)]
    await sender.confirm_all()
    assert {type(future.exception()) for future in futures} == {kafka.ProducerClosed}
    sender.refuse = None
    again = gathered.send(record(b"x"))
    await sender.confirm_all()
    assert again.result().offset == 0


@pytest.mark.parametrize("error", [None, kafka.UnknownTopicOrPartitionError()])
async def test_records_wait_until_the_partitions_of_their_topic_are_known(error: Exception | None) -> None:
    sender = Sender()
    sender.known = False
    gathered = gathering(sender)
    futures = [gathered.send(record(b"0"))]
    await asyncio.sleep(0)
    futures.append(gathered.send(record(b"1")))
    await asyncio.sleep(0)
    sender.known = error is None
    futures.append(gathered.send(record(b"2")))
    await asyncio.sleep(0)
    assert not sender.under_way
    sender.refuse = error
    sender.found.set()
    await sender.confirm_all()
    if error is None:
        assert sender.logs[0] == [b"0", b"1", b"2"]
    else:
        assert {type(future.exception()) for future in futures} == {kafka.UnknownTopicOrPartitionError}


async def test_flush_returns_when_each_record_has_its_answer() -> None:
    sender = Sender()
    sender.known = False
    gathered = gathering(sender)
    futures = [gathered.send(record(b"0"))]
    flushed = asyncio.create_task(gathered.flush())
    await asyncio.sleep(0.001)
    assert not flushed.done()
    sender.found.set()
    futures.append(gathered.send(record(b"1")))
    await asyncio.sleep(0.001)
    assert not flushed.done()
    await sender.confirm_all()
    await flushed
    assert all(future.done() for future in futures)


async def test_closing_refuses_what_was_not_handed_over_and_all_that_comes_later() -> None:
    sender = Sender()
    gathered = gathering(sender)
    sent = gathered.send(record(b"0"))
    await asyncio.sleep(0)
    waits = gathered.send(record(b"1"))
    await asyncio.sleep(0)
    just_arrived = gathered.send(record(b"2"))
    gathered.close(kafka.KafkaTimeoutError("closed"))
    for refused in (waits, just_arrived, gathered.send(record(b"3"))):
        assert isinstance(refused.exception(), kafka.KafkaTimeoutError)
    assert not sent.done()
    sender.under_way.pop().batch.failure(kafka.ProducerClosed())
    await sender.confirm_all()
    assert isinstance(sent.exception(), kafka.ProducerClosed)
    assert sender.logs == {}


@pytest.mark.parametrize("refused", [False, True])
async def test_a_record_is_settled_once_whether_or_not_its_sender_waits(*, refused: bool) -> None:
    """It is in flight until then, although its future has ended."""
    sender = Sender()
    gathered = gathering(sender)
    settled: list[int] = []
    futures = [gathered.send(record(b"%d" % number), partial(settled.append, number)) for number in range(4)]
    futures[0].cancel()
    futures[1].set_exception(TimeoutError())
    await asyncio.sleep(0)
    assert settled == []
    if refused:
        sender.under_way.pop().batch.failure(kafka.NotEnoughReplicasError())
    await sender.confirm_all()
    assert settled == [0, 1, 2, 3]
    assert futures[0].cancelled()
    assert isinstance(futures[1].exception(), TimeoutError)
    assert [future.exception() is not None for future in futures[2:]] == [refused] * 2
    gathered.close(kafka.KafkaTimeoutError("closed"))
    assert isinstance(gathered.send(record(b"x"), partial(settled.append, 4)).exception(), kafka.KafkaTimeoutError)
    assert settled == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("closed_first", [False, True])
async def test_closing_refuses_a_batch_that_was_just_refused_as_too_large(*, closed_first: bool) -> None:
    """It would be sent again, record by record, by a producer that sends no more."""
    sender = Sender()
    gathered = gathering(sender)
    settled: list[int] = []
    futures = [gathered.send(record(b"%d" % number), partial(settled.append, number)) for number in range(2)]
    await asyncio.sleep(0)
    sender.held = []
    if closed_first:
        gathered.close(kafka.KafkaTimeoutError("closed"))
    sender.confirm(most=1)
    gathered.close(kafka.KafkaTimeoutError("closed"))
    assert [take() for _, take in sender.held] == [None] * (not closed_first)
    for _ in range(9):
        await asyncio.sleep(0)
    assert sender.under_way == []
    assert {type(future.exception()) for future in futures if future.done()} == {kafka.KafkaTimeoutError}
    assert settled == [0, 1]
    await asyncio.wait_for(gathered.flush(), 1)


async def test_a_batch_has_all_records_that_came_until_a_request_can_carry_it() -> None:
    sender = Sender()
    sender.held = []
    gathered = gathering(sender)
    for number in range(3):
        gathered.send(record(b"%d" % number))
        await asyncio.sleep(0)
    ((at, take),) = sender.held
    sender.held = None
    sender.offer(at, take)
    await sender.confirm_all()
    assert sender.sizes == [3]


@pytest.mark.parametrize("known", [False, True])
async def test_a_record_of_a_topic_without_partitions_is_refused(*, known: bool) -> None:
    """Metadata may name a topic before its partitions."""
    sender = Sender(partitions=0)
    sender.known = known
    sender.found.set()
    gathered = gathering(sender)
    settled: list[int] = []
    sent = gathered.send(record(b"0"), partial(settled.append, 0))
    for _ in range(9):
        await asyncio.sleep(0)
    assert settled == [0]
    assert isinstance(sent.exception(), kafka.UnknownTopicOrPartitionError)
    sender.every = [0]
    later = gathered.send(record(b"1"))
    await sender.confirm_all()
    assert later.result().offset == 0


class RealSender(Sender):
    """Fills batches of aiokafka's."""

    def new_builder(self) -> Any:
        return DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 20)

    def offer(self, at: TopicPartition, take: Take) -> None:
        assert at.topic == REAL
        batch = take()
        if batch is not None:
            self.sizes.append(batch.records)
            batch.done(0, 7, 0)


async def test_a_record_that_no_batch_can_hold_is_refused_alone() -> None:
    """Those beside it, behind it, and of other partitions are sent all the same."""
    sender = RealSender(partitions=3)
    gathered = gathering(sender)
    bad = (("\ud800", b""),)  # UTF-8 cannot encode it
    settled: list[int] = []
    records = [
        OutgoingRecord(TOPIC, "k", b"0", (), 0),
        OutgoingRecord(TOPIC, "k", b"1", bad, 0),
        OutgoingRecord(TOPIC, "k", b"2", (), 0),
        OutgoingRecord(TOPIC, "k", b"3", bad, 1),
        OutgoingRecord(TOPIC, "k", b"4", (), 2),
    ]
    futures = [gathered.send(one, partial(settled.append, number)) for number, one in enumerate(records)]
    for _ in range(9):
        await asyncio.sleep(0)
    assert sorted(settled) == [0, 1, 2, 3, 4]
    assert [isinstance(future.exception(), UnicodeEncodeError) for future in futures] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert sender.sizes == [2, 1]
    assert (await gathered.send(OutgoingRecord(TOPIC, "k", b"5", (), 1))).partition == 1
    await asyncio.wait_for(gathered.flush(), 1)


async def test_closing_ends_the_search_for_a_topic() -> None:
    sender = Sender()
    sender.known = False
    gathered = gathering(sender)
    unknown = gathered.send(record(b"0"))
    await asyncio.sleep(0)
    gathered.close(kafka.KafkaTimeoutError("closed"))
    assert isinstance(unknown.exception(), kafka.KafkaTimeoutError)
    await asyncio.wait_for(gathered.flush(), 1)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.sampled_from("abcdef"), st.integers(1, 60)),
            st.tuples(st.just("confirm"), st.just(""), st.just(0)),
            st.tuples(st.just("turn"), st.just(""), st.just(0)),
        ),
        max_size=60,
    )
)
def test_each_key_stays_in_order_and_each_record_is_answered_once(steps: list[tuple[str, str, int]]) -> None:
    """Law: each record that fits is appended once, in order, at the offset that its sender gets."""

    async def run() -> None:
        sender = Sender(partitions=3)
        gathered = gathering(sender)
        sent: list[tuple[str, bytes, asyncio.Future[RecordMetadata]]] = []
        for number, (step, key, size) in enumerate(steps):
            if step == "send":
                value = b"%s:%d:" % (key.encode(), number) + b"x" * size
                sent.append((key, value, gathered.send(record(value, key))))
            elif step == "turn":
                await asyncio.sleep(0)
            elif sender.under_way:
                sender.confirm(most=50)
        await sender.confirm_all(most=50)
        for _, value, future in sent:
            if len(value) > 50:
                assert isinstance(future.exception(), kafka.MessageSizeTooLargeError)
            else:
                at = future.result()
                assert sender.logs[at.partition][at.offset] == value
        for key in "abcdef":
            appended = [value for log in sender.logs.values() for value in log if value.startswith(key.encode())]
            assert appended == [value for of, value, _ in sent if of == key and len(value) <= 50]

    asyncio.run(run())


@given(st.binary(max_size=80), st.integers(min_value=1, max_value=64))
def test_a_key_goes_where_every_client_sends_it(key: bytes, partitions: int) -> None:
    """Law: the partition is that of the default partitioner, the first time and from then on."""
    every = list(range(partitions))
    expected = DefaultPartitioner()(key, every, every)
    assert [expected, expected] == [partition_of(key, every) for _ in range(2)]


def chunk_partition(job: UUID, number: int, every: Sequence[int]) -> int:
    key = chunk_key("acme", job, number)
    return partition_of_record(OutgoingRecord(Topic.BATCH_CHUNKS, key, b"", ()), key.encode(), every)


@pytest.mark.parametrize("workers", [2, 4])
@given(st.uuids(), st.integers(min_value=0, max_value=10**8 - 64))
def test_the_chunks_in_flight_lie_evenly_on_the_workers(workers: int, job: UUID, first: int) -> None:
    """Law: of 64 chunks in a row, each of 12 partitions has 5 or 6, and the group's members have equal shares."""
    every = list(range(12))
    found = [chunk_partition(job, number, every) for number in range(first, first + 64)]
    assert set(Counter(found).values()) == {5, 6}
    # aiokafka gives the partitions to the members in turn
    assert set(Counter(partition % workers for partition in found).values()) == {64 // workers}
    assert found == [chunk_partition(job, number, every) for number in range(first, first + 64)]


@given(st.sets(st.uuids(), min_size=200, max_size=200))
def test_the_first_chunks_of_jobs_lie_on_all_partitions(jobs: set[UUID]) -> None:
    assert {chunk_partition(job, 0, [3, 5, 8]) for job in jobs} == {3, 5, 8}


@pytest.mark.parametrize("key", ["acme/job", "#", "acme#x", "acme#123456789", "acme#\N{SUPERSCRIPT TWO}"])
def test_a_key_without_a_number_goes_where_every_client_sends_it(key: str) -> None:
    every = list(range(12))
    outgoing = OutgoingRecord(Topic.BATCH_CHUNKS, key, b"", ())
    assert partition_of_record(outgoing, key.encode(), every) == partition_of(key.encode(), every)


def test_in_other_topics_a_number_is_a_part_of_the_key() -> None:
    every = list(range(12))
    for number in range(12):
        key = f"card#{number}"
        outgoing = OutgoingRecord(Topic.EVENTS_MANAGED_CARDS, key, b"", ())
        assert partition_of_record(outgoing, key.encode(), every) == partition_of(key.encode(), every)


async def test_the_chunks_of_a_job_go_to_one_partition_after_another() -> None:
    sender = Sender(partitions=3)
    gathered = Gathering(sender, lambda _: REAL)
    job = UUID(int=5)
    sent = [
        gathered.send(OutgoingRecord(Topic.BATCH_CHUNKS, chunk_key("acme", job, number), b"%d" % number, ()))
        for number in (*range(6), 4)
    ]
    await sender.confirm_all()
    at = [(await one).partition for one in sent]
    assert [(one - at[0]) % 3 for one in at] == [0, 1, 2, 0, 1, 2, 1]


async def test_a_record_may_name_its_partition() -> None:
    sender = Sender(partitions=3)
    gathered = gathering(sender)
    sent = [gathered.send(OutgoingRecord(TOPIC, "key", b"%d" % number, (), number)) for number in (2, 0, 2)]
    await sender.confirm_all()
    assert [(await one).partition for one in sent] == [2, 0, 2]
    with pytest.raises(kafka.UnknownTopicOrPartitionError, match="has no partition 3"):
        await gathered.send(OutgoingRecord(TOPIC, "key", b"", (), 3))

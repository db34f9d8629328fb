"""The queue of aiokafka's sender: when it gives which batches, with which bytes and sequence numbers."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.producer import message_accumulator, producer, sender
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import RecordMetadata, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.client.send_queue import Batch, SendQueue, Take

A, B, C = (TopicPartition("topic", number) for number in range(3))
NONE, GZIP = 0, 1
SMALL = 200


class Cluster:
    def __init__(self) -> None:
        self.leaders: dict[TopicPartition, int | None] = {A: 1, B: 2, C: 1}
        self.listeners: list[Callable[[object], object]] = []

    def leader_for_partition(self, at: TopicPartition) -> int | None:
        return self.leaders[at]

    def add_listener(self, listener: Callable[[object], object]) -> None:
        self.listeners.append(listener)


class Queue(SendQueue):
    """The queue of a producer that is not started; the test is its sender."""

    def __init__(self) -> None:
        self.client: Any = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", enable_idempotence=True)
        self.client._txn_manager.set_pid_and_epoch(7, 3)
        self.client.client.cluster = self.cluster = Cluster()
        super().__init__(self.client)
        self.client._closed = True
        self.in_flight = self.client._sender._in_flight
        self.outcomes: list[RecordMetadata | Exception] = []

    def batch(self, at: TopicPartition, records: int = 1) -> Take:
        """Return what a lane offers: a function that makes a batch."""
        builder = self.new_builder()
        for number in range(records):
            assert builder.append(number, None, b"key", b"value", [])
        return lambda: Batch(builder, at, records, self.outcomes.append)

    def drained(self, **options: Any) -> dict[int, list[tuple[TopicPartition, int]]]:
        """Return what the sender gets now: partitions and first sequence numbers by node."""
        found, _ = self.drain_by_nodes(self.in_flight, **options)
        return {node: [(at, sequence_of(batch)) for at, batch in there.items()] for node, there in found.items()}


def sequence_of(batch: Batch) -> int:
    read = MemoryRecords(bytes(batch.get_data_buffer())).next_batch()
    assert (read.producer_id, read.producer_epoch) == (7, 3)
    sequence: int = read.base_sequence
    return sequence


@pytest.fixture
async def queue() -> AsyncIterator[Queue]:
    made = Queue()
    yield made
    made.fail_all(kafka.ProducerClosed())


record = st.tuples(
    st.binary(max_size=200),
    st.binary(max_size=400),
    st.lists(st.tuples(st.text(max_size=70), st.binary(max_size=70)), max_size=9),
)


@given(records=st.lists(record, min_size=1, max_size=9), codec=st.sampled_from([NONE, GZIP]), first=st.integers(0, 99))
def test_a_batch_has_the_bytes_of_aiokafkas_own(records: Any, codec: int, first: int) -> None:
    """Law: and as many records fit into it."""

    async def run() -> None:
        queue = Queue()
        queue._codec, queue._most_bytes = codec, 2_000
        builder = queue.new_builder()
        appended = [builder.append(number, None, *one) for number, one in enumerate(records)]
        taken = [one for one in appended if one is not None]
        made = Batch(builder, A, len(taken), lambda _: None)
        made.number(7, 3, first)

        plain = message_accumulator.BatchBuilder(2_000, codec)
        for (key, value, headers), ours in zip(records, appended, strict=True):
            at = ours.timestamp if ours else taken[-1].timestamp
            theirs = plain.append(timestamp=at, key=key, value=value, headers=headers)
            if ours is None:
                assert theirs is None
                break
            assert (theirs.offset, theirs.size) == (ours.offset, ours.size)
        plain._set_producer_state(7, 3, first)
        assert made.get_data_buffer() == plain._build()
        assert made.records == plain.record_count()

    asyncio.run(run())


async def test_a_batch_is_made_when_its_node_is_free(queue: Queue) -> None:
    for at in (A, B, C):
        queue.offer(at, queue.batch(at))
    queue.in_flight.add(1)
    assert queue.drained() == {2: [(B, 0)]}
    queue.in_flight.clear()
    assert queue.drained(muted_partitions={A}) == {1: [(C, 0)]}
    assert queue.drained() == {1: [(A, 0)]}
    assert queue.drained() == {}


async def test_the_sender_wakes_for_a_node_that_can_take_a_request_and_for_new_metadata(queue: Queue) -> None:
    queue.in_flight.add(1)
    queue.offer(A, queue.batch(A))
    assert not queue.waiter().done()
    queue.offer(B, queue.batch(B))
    assert queue.waiter().done()
    queue.drained()
    assert not queue.waiter().done()
    for listener in queue.cluster.listeners:  # A may have another leader now
        listener(queue.cluster)
    assert queue.waiter().done()


async def test_sequence_numbers_go_on_and_a_batch_that_is_sent_again_keeps_its_own(queue: Queue) -> None:
    queue.offer(A, queue.batch(A, records=3))
    ((_, sent),) = queue.drain_by_nodes(())[0][1].items()
    queue.reenqueue(sent)
    assert queue.drained() == {1: [(A, 0)]}
    queue.offer(A, queue.batch(A, records=2))
    assert queue.drained() == {1: [(A, 3)]}
    queue.take_back(A, 2)
    queue.offer(A, queue.batch(A))
    assert queue.drained() == {1: [(A, 3)]}


async def test_an_offer_of_nothing_uses_no_sequence_number(queue: Queue) -> None:
    queue.offer(A, lambda: None)
    assert queue.drained() == {}
    queue.offer(A, queue.batch(A))
    assert queue.drained() == {1: [(A, 0)]}


@pytest.mark.parametrize(
    ("leader", "error"), [(None, kafka.NotLeaderForPartitionError), (-1, kafka.LeaderNotAvailableError)]
)
async def test_a_batch_waits_for_a_leader_until_its_time_is_over(
    queue: Queue, leader: int | None, error: type[Exception]
) -> None:
    """It was not sent, so the next one gets its sequence numbers."""
    queue.cluster.leaders[A] = leader
    queue.offer(A, queue.batch(A))
    assert queue.drain_by_nodes(()) == ({}, True)
    assert queue.outcomes == []
    queue._seconds = -1.0
    assert queue.drain_by_nodes(()) == ({}, True)
    assert [type(one) for one in queue.outcomes] == [error]
    assert queue.drain_by_nodes(()) == ({}, False)
    queue.cluster.leaders[A] = 1
    queue.offer(A, queue.batch(A))
    assert queue.drained() == {1: [(A, 0)]}


async def test_a_batch_ends_once(queue: Queue) -> None:
    queue.offer(A, queue.batch(A))
    queue.offer(B, queue.batch(B))
    found, _ = queue.drain_by_nodes(())
    found[1][A].done(5, -1, 0)
    queue.fail_all(kafka.ProducerClosed())
    found[2][B].done(5, 9, 0)
    assert queue.outcomes[0] == RecordMetadata("topic", 0, A, 5, -1, 0, 0)
    assert [type(one) for one in queue.outcomes[1:]] == [kafka.ProducerClosed]


@pytest.mark.parametrize("again", [False, True])
async def test_all_batches_fail_with_the_sender_wherever_they_are(queue: Queue, *, again: bool) -> None:
    queue.offer(A, queue.batch(A))
    ((_, sent),) = queue.drain_by_nodes(())[0][1].items()
    queue.offer(B, queue.batch(B))
    if again:
        queue.reenqueue(sent)
    queue.fail_all(kafka.ProducerClosed())
    assert [type(one) for one in queue.outcomes] == [kafka.ProducerClosed] * 2
    queue.reenqueue(sent)
    assert queue.drained() == {}


def test_aiokafka_uses_no_other_part_of_its_queue() -> None:
    """Of those it uses, the last ones are only for transactions and for its own ``send`` and ``send_batch``."""
    text = inspect.getsource(sender) + inspect.getsource(producer)
    used = set(re.findall(r"_message_accumulator\.(\w+)", text))
    assert used == {"close", "drain_by_nodes", "fail_all", "reenqueue", "waiter"} | {
        "add_batch",
        "add_message",
        "create_builder",
        "flush",
        "flush_for_commit",
    }
    handler = inspect.getsource(sender.SendProduceReqHandler)
    assert set(re.findall(r"\bbatch\.(\w+)", handler)) == {
        "done",
        "done_noack",  # without acknowledgements
        "expired",  # not idempotent
        "failure",
        "get_data_buffer",
    }

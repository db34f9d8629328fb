from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from support.bus_bench import KAFKA, QUICK, until
from support.fake_group import FakeGroup

from pipeline.contracts import Record, Topic, TopicName
from pipeline.errors import FatalError, LeaseLost, PermanentError, TransientError
from pipeline.kafka import BatchConsumer, ConsumerSettings, DeadLetters
from pipeline.kafka.protocols import Lease
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics


class Batches:
    """A handler that remembers; errors to raise are taken from lists."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.prepared: list[int] = []
        self.batches: list[list[bytes]] = []
        self.tried: list[tuple[int, int]] = []
        self.prepare_errors: list[Exception] = []
        self.errors: list[Exception] = []
        self.release = asyncio.Event()
        self.release.set()

    async def assigned(self, topic: TopicName, partition: int) -> None:
        assert topic is self.topic
        if self.prepare_errors:
            raise self.prepare_errors.pop()
        self.prepared.append(partition)

    async def handle_batch(self, records: Sequence[Record], lease: Lease) -> None:
        self.tried.append((len(records), records[0].attempt))
        await self.release.wait()
        await lease.ensure()
        if self.errors:
            raise self.errors.pop()
        if any(record.value == b"poison" for record in records):
            raise PermanentError("cannot_decode", "no JSON")
        self.batches.append([record.value for record in records])


class Bench:
    def __init__(self, topic: Topic = Topic.AUDIT_EVENTS) -> None:
        self.topic = topic
        self.group = FakeGroup(topic)
        self.handler = Batches(topic)
        self.publisher = MemoryPublisher()

    @asynccontextmanager
    async def running(self, *partitions: int, settings: ConsumerSettings = QUICK) -> AsyncIterator[BatchConsumer]:
        async def connect() -> FakeGroup:
            return self.group

        consumer = BatchConsumer(
            self.handler,
            group="audit",
            topics=[self.topic],
            kafka=KAFKA,
            settings=settings,
            dead_letters=DeadLetters(self.publisher, group="audit", metrics=Metrics()),
            connect=connect,
        )
        task = asyncio.create_task(consumer.run())
        try:
            await self.group.assign(*partitions)
            yield consumer
            consumer.stop()
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
def bench() -> Bench:
    return Bench()


def _pairs(*values: bytes) -> list[tuple[str, bytes]]:
    return [("k", value) for value in values]


async def test_copies_for_other_groups_are_finished_untouched(bench: Bench) -> None:
    async with bench.running(0):
        one, two, three = (bench.group.record("a", value) for value in (b"1", b"2", b"3"))
        others = (("retry_group", b"process"),)
        bench.group.deliver(replace(one, headers=others), two, replace(three, headers=others))
        await until(lambda: {0: 3} in bench.group.commits)
        bench.group.deliver(replace(bench.group.record("a", b"4"), headers=others))
        await until(lambda: {0: 4} in bench.group.commits)
    assert bench.handler.batches == [[b"2"]]


async def test_consecutive_records_come_in_bounded_batches(bench: Bench) -> None:
    """Full batches at once, the rest after the linger time; each partition is prepared once, before its first batch."""
    async with bench.running(0, settings=QUICK.model_copy(update={"batch_records": 2})):
        bench.group.send(*_pairs(b"1", b"2", b"3", b"4", b"5"))
        await until(lambda: len(bench.handler.batches) == 3)
    assert bench.handler.batches == [[b"1", b"2"], [b"3", b"4"], [b"5"]]
    assert bench.handler.prepared == [0]
    assert bench.group.commits[-1] == {0: 5}


async def test_a_batch_waits_a_little_for_more(bench: Bench) -> None:
    async with bench.running(0, settings=QUICK.model_copy(update={"batch_linger_seconds": 0.04})):
        bench.group.send(*_pairs(b"1"))
        await asyncio.sleep(0.01)
        bench.group.send(*_pairs(b"2"))
        await until(lambda: bench.handler.batches == [[b"1", b"2"]])


async def test_a_transient_error_repeats_the_batch(bench: Bench) -> None:
    bench.handler.errors = [TransientError("store", "no")]
    async with bench.running(0):
        bench.group.send(*_pairs(b"1", b"2"))
        await until(lambda: bench.handler.batches == [[b"1", b"2"]])
    assert bench.handler.tried == [(2, 1), (2, 2)]


async def test_a_partition_that_cannot_be_prepared_is_tried_again(bench: Bench) -> None:
    bench.handler.prepare_errors = [TransientError("store", "no")]
    async with bench.running(0):
        bench.group.send(*_pairs(b"1"))
        await until(lambda: bench.handler.batches == [[b"1"]])
    assert bench.handler.prepared == [0]


async def test_poison_is_tracked_down(bench: Bench) -> None:
    """Only the record that fails alone is dead-lettered; the others are handled."""
    async with bench.running(0):
        bench.group.send(*_pairs(b"1", b"poison", b"3"))
        await until(lambda: bench.handler.batches == [[b"1"], [b"3"]])
        await until(lambda: {0: 3} in bench.group.commits)
    assert [(letter.topic, letter.value) for letter in bench.publisher.published] == [
        (Topic.AUDIT_DEAD_LETTER, b"poison")
    ]


async def test_a_batch_in_limbo_goes_on_when_its_partition_comes_back(bench: Bench) -> None:
    """No other member had the partition, so the prepared state is still valid."""
    bench.handler.release.clear()
    async with bench.running(0, 1):
        bench.group.send(*_pairs(b"0"), partition=0)
        bench.group.send(*_pairs(b"1"), partition=1)
        await until(lambda: len(bench.handler.tried) == 2)
        await bench.group.revoke()
        bench.handler.release.set()
        await bench.group.assign(0)
        await until(lambda: bench.handler.batches == [[b"0"]])
    assert sorted(bench.handler.prepared) == [0, 1]  # both at once: in no order
    assert bench.group.commits[-1] == {0: 1}


async def test_a_partition_that_was_away_is_prepared_again(bench: Bench) -> None:
    async with bench.running(0):
        await until(lambda: bench.handler.prepared == [0])
        await bench.group.revoke()
        await bench.group.assign()
        await bench.group.revoke()
        await bench.group.assign(0)
        await until(lambda: bench.handler.prepared == [0, 0])


async def test_a_lost_lease_of_the_handler_ends_its_work(bench: Bench) -> None:
    bench.group.age = 9.0
    async with bench.running(0):
        await asyncio.sleep(0.01)
        assert bench.handler.prepared == []


async def test_stop_lets_a_running_batch_finish(bench: Bench) -> None:
    bench.handler.release.clear()
    async with bench.running(0) as consumer:
        bench.group.send(*_pairs(b"1"))
        await until(lambda: len(bench.handler.tried) == 1)
        bench.group.send(*_pairs(b"2"))
        consumer.stop()
        await asyncio.sleep(0.01)
        bench.handler.release.set()
    assert bench.handler.batches == [[b"1"]]
    assert bench.group.commits[-1] == {0: 1}


async def test_a_decision_lost_to_another_worker_repeats_the_batch(bench: Bench) -> None:
    bench.handler.errors = [LeaseLost("segment_lost", "another's stands")]
    async with bench.running(0):
        bench.group.send(*_pairs(b"1"))
        await until(lambda: bench.handler.batches == [[b"1"]])


async def test_a_rebalance_while_the_member_ends_begins_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would end that task, and the member would wait for it for ever."""
    cleaned_up = asyncio.Event()

    async def slow_to_end(_records: Sequence[Record], _lease: Lease) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await cleaned_up.wait()

    monkeypatch.setattr(bench.handler, "handle_batch", slow_to_end)
    async with bench.running(0, settings=QUICK.model_copy(update={"stop_grace_seconds": 0.0})) as consumer:
        bench.group.send(*_pairs(b"1"))
        await until(lambda: bench.handler.prepared == [0])
        await asyncio.sleep(0.05)
        consumer.stop()
        await asyncio.sleep(0.05)
        await bench.group.assign(0, 1)
        cleaned_up.set()
    assert bench.handler.prepared == [0]
    assert bench.group.closed


async def test_a_handler_that_answers_a_cancellation_by_a_transient_error_holds_up_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def stubborn(_records: Sequence[Record], _lease: Lease) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TransientError("store_unavailable", "gone", retry_after=60.0) from None

    monkeypatch.setattr(bench.handler, "handle_batch", stubborn)
    async with asyncio.timeout(5), bench.running(0):
        bench.group.send(*_pairs(b"1"))
        await begun.wait()
        await bench.group.assign(1)


async def test_without_a_dead_letter_topic_a_permanent_error_ends_the_member() -> None:
    """Its record may be sensitive: nowhere else may it go."""
    bench = Bench(Topic.EVENTS_LOGIN)

    async def run() -> None:
        async with bench.running(0):
            bench.group.send(*_pairs(b"poison"))
            await until(lambda: bool(bench.handler.tried))

    with pytest.raises(FatalError) as caught:
        await run()
    assert caught.value.code == "dead_letters_missing"
    assert bench.publisher.published == []

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
from support.members import Notebook, keyed_consumer, outgoing, running, until

from pipeline.contracts import Record, Topic, TopicName
from pipeline.errors import FatalError, PermanentError, TransientError
from pipeline.kafka import (
    BatchConsumer,
    ConsumerSettings,
    DeadLetters,
    KafkaPublisher,
    KafkaSettings,
    KeyedConsumer,
    read_topic,
)
from pipeline.kafka.protocols import Lease
from pipeline.observability import Metrics


async def test_all_records_are_handled_and_never_again(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """From the earliest record at the first start; what was committed is not handled after a restart."""
    for number in range(12):
        await publisher.publish(outgoing(f"k{number}", b"%d" % number))
    first, second = Notebook(), Notebook()

    async with running(_consumer(first, kafka, quick, publisher)):
        await until(lambda: len(first.done) == 12)
    async with running(_consumer(second, kafka, quick, publisher)):
        await publisher.publish(outgoing("k", b"new"))
        await until(lambda: len(second.done) == 1)

    assert sorted(first.values()) == sorted(b"%d" % number for number in range(12))
    assert second.values() == [b"new"]


async def test_order_per_key_with_other_keys_between(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """Keys run at the same time, the records of one key one after another."""
    inside: set[str] = set()

    async def act(record: Record, _lease: Lease) -> None:
        assert record.key not in inside
        inside.add(record.key)
        await asyncio.sleep(0.005)
        inside.discard(record.key)

    for number in range(40):
        await publisher.publish(outgoing(f"k{number % 5}", b"%d" % (number // 5)))
    notebook = Notebook(act)
    async with running(_consumer(notebook, kafka, quick, publisher)):
        await until(lambda: len(notebook.done) == 40)

    for key in range(5):
        assert [one.value for one in notebook.done if one.key == f"k{key}"] == [b"%d" % n for n in range(8)]


async def test_poison_goes_to_the_dead_letter_topic_and_blocks_nobody(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """Value, key and headers unchanged; where from and why in headers; the next record of its key is handled."""

    async def act(record: Record, _lease: Lease) -> None:
        if record.value == b"poison":
            raise PermanentError("cannot_decode", "no JSON")

    position = await publisher.publish(outgoing("k", b"poison"))
    await publisher.publish(outgoing("k", b"fine"))
    notebook = Notebook(act)
    async with running(_consumer(notebook, kafka, quick, publisher)):
        await until(lambda: notebook.values() == [b"fine"])

    [letter] = [record async for record in read_topic(kafka, Topic.BATCH_DEAD_LETTER)]
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["ce_id"]) == ("k", b"poison", b"poison")
    assert {name: value.decode() for name, value in headers.items() if name.startswith("dlq_")} == {
        "dlq_topic": "card-batch.requested",
        "dlq_partition": str(position.partition),
        "dlq_offset": "0",
        "dlq_timestamp": headers["dlq_timestamp"].decode(),
        "dlq_group": "process",
        "dlq_attempts": "1",
        "dlq_code": "cannot_decode",
        "dlq_message": "no JSON",
        "dlq_at": headers["dlq_at"].decode(),
    }


async def test_a_waiting_record_holds_neither_slot_nor_partition(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """With one slot only, another key of the same partition passes a record that waits for its repetition."""
    tries: list[int] = []

    async def act(record: Record, _lease: Lease) -> None:
        if record.value == b"again":
            tries.append(record.attempt)
            if record.attempt < 3:
                raise TransientError("busy", "later", retry_after=0.2)

    positions = [await publisher.publish(outgoing(f"k{n}", b"again" if n == 0 else b"%d" % n)) for n in range(10)]
    assert any(position.partition == positions[0].partition for position in positions[1:])
    notebook = Notebook(act)
    settings = quick.model_copy(update={"slots": 1, "concurrency": 1})
    async with running(_consumer(notebook, kafka, settings, publisher)):
        await until(lambda: len(notebook.done) == 10)

    assert tries == [1, 2, 3]
    assert notebook.values()[-1] == b"again"


async def test_after_a_crash_work_begins_at_the_lowest_unfinished_record(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """Records behind an unfinished one are handled again, those before it are not."""
    held = asyncio.Event()

    async def act(record: Record, _lease: Lease) -> None:
        if record.value == b"2":
            await held.wait()

    # one partition: equal keys of the client's partitioner would also be one queue, so look for keys that share one
    keys = await _keys_of_one_partition(publisher, 5)
    for number, key in enumerate(keys):
        await publisher.publish(outgoing(key, b"%d" % number))
    first, second = Notebook(act), Notebook()
    async with running(_consumer(first, kafka, quick.model_copy(update={"stop_grace_seconds": 0.2}), publisher)):
        await until(lambda: {b"0", b"1", b"3", b"4"} <= set(first.values()))
    async with running(_consumer(second, kafka, quick, publisher)):
        await until(lambda: len(second.done) == 3)

    assert sorted(second.values()) == [b"2", b"3", b"4"]


async def _keys_of_one_partition(publisher: KafkaPublisher, count: int) -> list[str]:
    found: dict[int, list[str]] = {}
    for number in range(100):
        key = f"key-{number}"
        position = await publisher.publish(outgoing(key, b"probe", Topic.BATCH_COMPLETED))
        keys = found.setdefault(position.partition, [])
        keys.append(key)
        if len(keys) == count:
            return keys
    raise AssertionError("keys do not spread")


async def test_a_fatal_error_ends_the_member_with_what_was_finished_committed(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """run() raises the handler's own error; finished records are not repeated by the next start."""

    async def act(record: Record, _lease: Lease) -> None:
        if record.value == b"bomb":
            raise FatalError("no_disk", "the disk is full")

    await publisher.publish(outgoing("k", b"fine"))
    await publisher.publish(outgoing("k", b"bomb"))
    with pytest.raises(FatalError, match="no_disk"):
        async with running(_consumer(Notebook(act), kafka, quick, publisher)) as task:
            await asyncio.wait([task], timeout=20)
    after = Notebook()
    async with running(_consumer(after, kafka, quick, publisher)):
        await until(lambda: len(after.done) == 1)
    assert after.values() == [b"bomb"]


async def test_a_job_longer_than_the_session_keeps_its_partition(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """Heartbeats and polling go on while a handler works, with the partition paused by a span of one."""

    async def act(_record: Record, lease: Lease) -> None:
        await asyncio.sleep(7.0)
        await lease.ensure()

    await publisher.publish(outgoing("k", b"long"))
    await publisher.publish(outgoing("k", b"next"))
    notebook = Notebook(act)
    consumer = _consumer(notebook, kafka, quick.model_copy(update={"max_span": 1, "max_poll_records": 1}), publisher)
    async with running(consumer):
        await until(lambda: len(notebook.done) == 1)
        assert consumer.ready
        assert consumer.alive
        await until(lambda: len(notebook.handled) == 2)
    assert [record.attempt for record in notebook.handled] == [1, 1]


async def test_stop_lets_running_work_finish(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """Within the grace the record in work is finished and committed; the one behind it is left for the next start."""

    async def act(_record: Record, _lease: Lease) -> None:
        await asyncio.sleep(0.3)

    await publisher.publish(outgoing("k", b"running"))
    await publisher.publish(outgoing("k", b"waiting"))
    first, second = Notebook(act), Notebook()
    async with running(_consumer(first, kafka, quick, publisher)):
        await until(lambda: len(first.handled) == 1)
    async with running(_consumer(second, kafka, quick, publisher)):
        await until(lambda: len(second.done) == 1)
    assert first.values() == [b"running"]
    assert second.values() == [b"waiting"]


async def test_a_member_may_start_before_its_broker_and_stop_without_it(quick: ConsumerSettings) -> None:
    """Without a broker, the member is alive but not ready, and stops at once on request."""
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    consumer = _consumer(Notebook(), kafka, quick, KafkaPublisher(kafka))
    async with running(consumer):
        await asyncio.sleep(0.2)
        assert consumer.alive
        assert not consumer.ready
        started = time.monotonic()
    assert time.monotonic() - started < 0.5


class _Batches:
    def __init__(self) -> None:
        self.assigned_to: list[int] = []
        self.batches: list[list[Record]] = []

    async def assigned(self, topic: TopicName, partition: int) -> None:
        assert topic is Topic.AUDIT_EVENTS
        self.assigned_to.append(partition)

    async def handle_batch(self, records: Sequence[Record], lease: Lease) -> None:
        await lease.ensure()
        assert records[0].partition in self.assigned_to
        if any(record.value == b"poison" for record in records):
            raise PermanentError("cannot_decode", "no JSON")
        self.batches.append(list(records))

    def values(self) -> list[bytes]:
        return [record.value for batch in self.batches for record in batch]


async def test_batches_are_consecutive_bounded_and_committed(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """Each partition is prepared first; a poison record alone is dead-lettered; nothing comes twice after a restart."""
    for number in range(30):
        value = b"poison" if number == 13 else b"%d" % number
        await publisher.publish(outgoing(f"k{number}", value, Topic.AUDIT_EVENTS))
    settings = quick.model_copy(update={"batch_records": 5})
    first, second = _Batches(), _Batches()
    async with running(_batch_consumer(first, kafka, settings, publisher)):
        await until(lambda: len(first.values()) == 29)
    async with running(_batch_consumer(second, kafka, settings, publisher)):
        await publisher.publish(outgoing("k", b"new", Topic.AUDIT_EVENTS))
        await until(lambda: len(second.values()) == 1)

    assert all(len(batch) <= 5 for batch in first.batches)
    for batch in first.batches:
        offsets = [record.offset for record in batch]
        assert offsets == list(range(offsets[0], offsets[0] + len(batch)))
    assert second.values() == [b"new"]
    letters = [record.value async for record in read_topic(kafka, Topic.AUDIT_DEAD_LETTER)]
    assert letters == [b"poison"]


def _consumer(
    handler: Notebook, kafka: KafkaSettings, settings: ConsumerSettings, publisher: KafkaPublisher
) -> KeyedConsumer:
    return keyed_consumer(handler, kafka, settings, publisher)


def _batch_consumer(
    handler: _Batches, kafka: KafkaSettings, settings: ConsumerSettings, publisher: KafkaPublisher
) -> BatchConsumer:
    return BatchConsumer(
        handler,
        dead_letters=DeadLetters(publisher, group="audit", metrics=Metrics()),
        group="audit",
        topics=[Topic.AUDIT_EVENTS],
        kafka=kafka,
        settings=settings,
    )

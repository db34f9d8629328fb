from __future__ import annotations

import asyncio
import hashlib

import pytest
from structlog.testing import capture_logs
from support.bus_bench import KAFKA, NOON, QUICK, Bench, until

from pipeline.contracts import OutgoingRecord, Record, Topic
from pipeline.errors import FatalError, LeaseLost, Overloaded, PermanentError, TransientError
from pipeline.kafka import BrokerUnavailable, DeadLetter, DeadLetters, KeyedConsumer, RecordTooLarge
from pipeline.kafka.protocols import Lease
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics


async def test_each_record_arrives_and_is_handled_once(bench: Bench) -> None:
    async with bench.running(0):
        records = bench.group.send(("a", b"1"), ("b", b"2"))
        await until(lambda: len(bench.handler.done) == 2)
    assert bench.handler.arrived == bench.handler.begun == records
    assert bench.group.commits[-1] == {0: 2}
    assert bench.group.closed


async def test_records_of_a_key_never_overlap_and_stay_in_order(bench: Bench) -> None:
    inside: list[str] = []

    async def act(record: Record, _lease: Lease) -> None:
        assert record.key not in inside
        inside.append(record.key)
        await asyncio.sleep(0)
        inside.remove(record.key)

    bench.handler.on_handle = act
    async with bench.running(0, 1):
        for partition in (0, 1):
            bench.group.send(*((f"{partition}-{n % 3}", b"%d" % n) for n in range(30)), partition=partition)
        await until(lambda: len(bench.handler.done) == 60)
    for key in {record.key for record in bench.handler.begun}:
        values = [int(record.value) for record in bench.handler.begun if record.key == key]
        assert values == sorted(values)


async def test_records_arrive_while_the_key_is_busy(bench: Bench) -> None:
    """A second announcement is noted while the first is in work."""
    release = asyncio.Event()

    async def act(_record: Record, _lease: Lease) -> None:
        await release.wait()

    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"1"), ("a", b"2"))
        await until(lambda: len(bench.handler.arrived) == 2)
        assert len(bench.handler.begun) == 1
        release.set()
        await until(lambda: bench.handler.done == [b"1", b"2"])


@pytest.mark.parametrize(("limit", "partitions"), [({"slots": 3}, 3), ({"concurrency": 2}, 1)])
async def test_slots_bound_what_runs(bench: Bench, limit: dict[str, int], partitions: int) -> None:
    """Over all partitions, and in each."""
    running = most = 0

    async def act(_record: Record, _lease: Lease) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    bench.handler.on_handle = act
    bench.set(**limit)
    async with bench.running(*range(partitions)):
        for partition in range(partitions):
            bench.group.send(*((f"{n}", b"%d" % n) for n in range(10)), partition=partition)
        await until(lambda: len(bench.handler.done) == 10 * partitions)
    assert [most] == list(limit.values())


async def test_arrivals_are_bounded(bench: Bench) -> None:
    running = most = 0

    async def arrive(_record: Record) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    bench.handler.on_arrive = arrive
    bench.set(arrivals=2)
    async with bench.running(0):
        bench.group.send(*((f"{n}", b"%d" % n) for n in range(10)))
        await until(lambda: len(bench.handler.done) == 10)
    assert most == 2


async def test_a_transient_error_counts_and_frees_the_slot(bench: Bench) -> None:
    """With one slot, another key is done before the repetition; the waiting record's own key waits."""

    async def act(record: Record, _lease: Lease) -> None:
        if record.value == b"1" and record.attempt < 3:
            raise TransientError("busy", "later", retry_after=0.01)

    bench.handler.on_handle = act
    bench.set(slots=1)
    async with bench.running(0):
        bench.group.send(("a", b"1"), ("a", b"2"), ("b", b"3"))
        await until(lambda: len(bench.handler.done) == 3)
    assert bench.handler.done == [b"3", b"1", b"2"]
    assert [record.attempt for record in bench.handler.begun if record.value == b"1"] == [1, 2, 3]
    assert bench.count("retries_total", code="busy") == 2


async def test_overload_is_no_attempt(bench: Bench) -> None:
    answers = [Overloaded("full", "full"), Overloaded("full", "full")]

    async def act(_record: Record, _lease: Lease) -> None:
        if answers:
            raise answers.pop()

    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.handler.done == [b"1"])
    assert [record.attempt for record in bench.handler.begun] == [1, 1, 1]


async def test_a_decision_lost_to_another_worker_is_looked_at_again(bench: Bench) -> None:
    """A handler raises LeaseLost while this member has the partition: this is repeated, and not an attempt."""
    answers = [LeaseLost("manifest_lost", "another worker's stands")]

    async def act(_record: Record, _lease: Lease) -> None:
        if answers:
            raise answers.pop()

    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.handler.done == [b"1"])
    assert [record.attempt for record in bench.handler.begun] == [1, 1]
    assert bench.publisher.published == []


async def test_the_log_says_which_job_waits_and_why(bench: Bench) -> None:
    """The key names the job: without key and message, operators could not see which job hangs, and why."""

    async def act(record: Record, _lease: Lease) -> None:
        if record.attempt == 1:
            raise TransientError("store_unavailable", "the disk is full")
        raise PermanentError("bad", "no such field")

    bench.handler.on_handle = act
    with capture_logs() as lines:
        async with bench.running(0):
            bench.group.send(("acme/1", b"1"))
            await until(lambda: {0: 1} in bench.group.commits)
    about = {line["event"]: line for line in lines}
    position = {"topic": "card-batch.requested", "partition": 0, "offset": 0, "key": "acme/1"}
    assert about["work_retried"].items() >= {**position, "message": "the disk is full", "try_number": 2}.items()
    kept = {"message": "no such field", "kept_in": "card-batch.dead-letter"}
    assert about["record_dead_lettered"].items() >= {**position, **kept}.items()


async def test_a_permanent_error_becomes_a_dead_letter(bench: Bench) -> None:
    """Value, key, headers unchanged, the reason in headers, then the hook, then the commit."""
    noted: list[DeadLetter] = []

    async def act(record: Record, _lease: Lease) -> None:
        if record.attempt == 1:
            raise TransientError("busy", "later")
        raise PermanentError("cannot_decode", "x" * 2000)

    async def note(letter: DeadLetter) -> None:
        noted.append(letter)

    bench.handler.on_handle = act
    bench.on_dead_letter = note
    async with bench.running(0):
        [record] = bench.group.send(("a", b"\x00"))
        await until(lambda: {0: 1} in bench.group.commits)
    assert bench.publisher.published == [
        OutgoingRecord(
            Topic.BATCH_DEAD_LETTER,
            "a",
            b"\x00",
            (
                ("dlq_topic", b"card-batch.requested"),
                ("dlq_partition", b"0"),
                ("dlq_offset", b"0"),
                ("dlq_timestamp", b"1700000000000"),
                ("dlq_group", b"process"),
                ("dlq_attempts", b"2"),
                ("dlq_code", b"cannot_decode"),
                ("dlq_message", b"x" * 1000),
                ("dlq_at", b"2026-01-22T12:00:00Z"),
            ),
        )
    ]
    [letter] = noted
    assert (letter.record.offset, letter.error.code, letter.group, letter.at) == (
        record.offset,
        "cannot_decode",
        "process",
        NOON,
    )


async def test_a_record_is_not_finished_before_its_dead_letter_is_kept(bench: Bench) -> None:
    """The dead-letter topic cannot be reached: repeated until it can; nothing is committed before."""
    tries = 0

    async def before(_record: OutgoingRecord) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            assert {0: 1} not in bench.group.commits
            raise BrokerUnavailable("broker_unavailable", "gone")

    async def act(_record: Record, _lease: Lease) -> None:
        raise PermanentError("bad", "bad")

    bench.publisher.before = before
    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: {0: 1} in bench.group.commits)
    assert len(bench.publisher.published) == 1


async def test_a_hook_that_fails_is_repeated_with_its_dead_letter(bench: Bench) -> None:
    answers = [TransientError("audit", "no")]

    async def note(_letter: DeadLetter) -> None:
        if answers:
            raise answers.pop()

    async def act(_record: Record, _lease: Lease) -> None:
        raise PermanentError("bad", "bad")

    bench.on_dead_letter = note
    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: {0: 1} in bench.group.commits)
    assert len(bench.publisher.published) == 2


async def test_of_a_record_too_large_for_the_dead_letters_a_notice_is_kept(bench: Bench) -> None:
    """Thousands of tiny headers have a large size estimate. Such a record must not stop its partition for ever."""

    async def before(record: OutgoingRecord) -> None:
        if record.value:
            raise RecordTooLarge("record_too_large", "too large")

    async def act(_record: Record, _lease: Lease) -> None:
        raise PermanentError("bad", "bad")

    bench.publisher.before = before
    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: {0: 1} in bench.group.commits)
    [notice] = bench.publisher.published
    headers = dict(notice.headers)
    assert (notice.topic, notice.key, notice.value) == (Topic.BATCH_DEAD_LETTER, "", b"")
    assert (headers["dlq_offset"], headers["dlq_code"], headers["dlq_value_bytes"]) == (b"0", b"bad", b"1")
    assert headers["dlq_value_sha256"] == hashlib.sha256(b"1").hexdigest().encode()


async def test_a_dead_letter_that_fits_nowhere_is_fatal(bench: Bench) -> None:
    async def before(_record: OutgoingRecord) -> None:
        raise RecordTooLarge("record_too_large", "too large")

    async def act(_record: Record, _lease: Lease) -> None:
        raise PermanentError("bad", "bad")

    bench.publisher.before = before
    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        error = await bench.raised()
    assert isinstance(error, FatalError)
    assert error.code == "dead_letter_too_large"


async def test_poison_at_arrival_waits_for_its_turn(bench: Bench) -> None:
    """Its dead letter comes after the record before it in the key's queue; it is never handled."""
    release = asyncio.Event()

    async def arrive(record: Record) -> None:
        if record.value == b"poison":
            raise PermanentError("bad", "bad")

    async def act(record: Record, _lease: Lease) -> None:
        if record.value == b"slow":
            await release.wait()
            assert bench.publisher.published == []

    bench.handler.on_arrive = arrive
    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"slow"), ("a", b"poison"), ("a", b"next"))
        await until(lambda: len(bench.handler.arrived) == 3)
        release.set()
        await until(lambda: bench.handler.done == [b"slow", b"next"])
    assert [letter.value for letter in bench.publisher.published] == [b"poison"]


async def test_a_failed_arrival_is_repeated_before_the_record_is_handled(bench: Bench) -> None:
    async def arrive(record: Record) -> None:
        if record.attempt == 1:
            raise TransientError("store", "no")

    bench.handler.on_arrive = arrive
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.handler.done == [b"1"])
    assert [record.attempt for record in bench.handler.arrived] == [1, 2]


@pytest.mark.parametrize("error", [FatalError("no_disk", "full"), ZeroDivisionError("a bug")])
async def test_an_error_that_nobody_expects_ends_the_member(bench: Bench, error: Exception) -> None:
    """run() raises that very error, after everything was cancelled, and finished records are committed."""
    cancelled = asyncio.Event()

    async def act(record: Record, _lease: Lease) -> None:
        if record.value == b"bomb":
            raise error
        if record.value == b"other":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    bench.handler.on_handle = act
    bench.set(commit_interval_seconds=60.0)
    async with bench.running(0):
        bench.group.send(("a", b"fine"), ("b", b"other"), ("c", b"bomb"))
        assert await bench.raised() is error
    assert cancelled.is_set()
    assert bench.group.commits == [{0: 1}]
    assert bench.group.closed


async def test_a_topic_that_nobody_consumes_is_refused() -> None:
    """Its records could not be dead-lettered."""
    with pytest.raises(ValueError, match="no dead-letter topic"):
        KeyedConsumer(
            Bench().handler.handle,
            dead_letters=DeadLetters(MemoryPublisher(), group="process", metrics=Metrics()),
            group="process",
            topics=[Topic.BATCH_COMPLETED],
            kafka=KAFKA,
            settings=QUICK,
        )


async def test_no_record_behind_the_span_is_begun_before_a_commit(bench: Bench) -> None:
    """Neither its arrival nor its handling: what a crash repeats is bounded from the committed offset on."""
    bench.set(max_span=4)
    bench.group.answers.extend([False] * 30)
    async with bench.running(0):
        bench.group.send(*((f"{n}", b"%d" % n) for n in range(12)))
        await until(lambda: len(bench.group.answers) < 10)
        assert [record.offset for record in bench.handler.arrived] == [0, 1, 2, 3]
        assert len(bench.handler.done) == 4
        bench.group.answers.clear()
        await until(lambda: {0: 12} in bench.group.commits)
    assert len(bench.handler.arrived) == len(bench.handler.done) == 12


async def test_what_the_gate_refuses_does_not_arrive(bench: Bench) -> None:
    """A gate and an on-arrival callback go together: the gate is asked first."""

    class Even:
        async def open(self, first: Record) -> None:
            assert first.offset == 0
            assert bench.handler.arrived == []

        def admit(self, record: Record) -> bool:
            return record.offset % 2 == 0

    bench.gate = lambda _topic, _partition: Even()
    async with bench.running(0):
        bench.group.send(*((f"{n}", b"%d" % n) for n in range(6)))
        await until(lambda: {0: 6} in bench.group.commits)
    assert [record.offset for record in bench.handler.arrived] == [0, 2, 4]
    assert sorted(bench.handler.done) == [b"0", b"2", b"4"]


async def test_a_dead_letter_that_can_never_be_written_ends_the_member(bench: Bench) -> None:
    """For example, even its notice is too large. Then the record must not be finished."""
    error = PermanentError("record_too_large", "too large")

    async def note(_letter: DeadLetter) -> None:
        raise error

    async def act(_record: Record, _lease: Lease) -> None:
        raise PermanentError("bad", "bad")

    bench.on_dead_letter = note
    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        assert await bench.raised() is error
    assert {0: 1} not in bench.group.commits

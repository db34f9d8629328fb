from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.event_bench import EventBench, until

from pipeline.contracts import OutgoingRecord, Record
from pipeline.errors import FatalError, LeaseLost, Overloaded, PermanentError, TransientError
from pipeline.kafka import BrokerUnavailable


@pytest.fixture
def events() -> EventBench:
    return EventBench()


async def test_what_the_gate_admits_is_handled_and_all_of_it_is_finished(events: EventBench) -> None:
    events.refused = {b"2", b"4"}
    async with events.running(0):
        events.group.send(("a", b"1"), ("b", b"2"), ("c", b"3"), ("d", b"4"))
        await until(lambda: {0: 4} in events.group.commits)
    assert sorted(events.done) == [b"1", b"3"]
    assert events.group.closed


async def test_the_gate_sees_every_record_once_in_offset_order(events: EventBench) -> None:
    events.set(max_span=3)
    async with events.running(0):
        for _ in range(4):
            events.group.send(*(("a", b"x"), ("b", b"x"), ("c", b"x")))
            await asyncio.sleep(0)
        await until(lambda: {0: 12} in events.group.commits)
    assert [gate.seen for gate in events.gates] == [list(range(12))]


async def test_a_copy_for_another_group_is_finished_untouched_and_the_gate_does_not_see_it(events: EventBench) -> None:
    async with events.running(0):
        first, second = events.group.record("a", b"1"), events.group.record("a", b"2")
        headers = (("replay_group", b"another"),)
        events.group.deliver(replace(first, headers=headers), replace(second, headers=(("replay_group", b"fraud"),)))
        await until(lambda: {0: 2} in events.group.commits)
    assert events.done == [b"2"]
    assert [gate.seen for gate in events.gates] == [[1]]


async def test_nothing_is_handled_before_the_gate_is_open(events: EventBench) -> None:
    """It opens with the first record that was fetched; an error that may pass is tried again."""
    answers = [BrokerUnavailable("broker_unavailable", "gone"), BrokerUnavailable("broker_unavailable", "gone")]

    async def on_open(_first: Record) -> None:
        assert events.begun == []
        if answers:
            raise answers.pop()

    events.on_open = on_open
    async with events.running(0):
        events.group.deliver(events.group.record("a", b"1", offset=7), events.group.record("a", b"2", offset=9))
        await until(lambda: events.done == [b"1", b"2"])
    assert events.gates[0].opened == [7, 7, 7]
    assert events.count("retries_total", code="broker_unavailable") == 2


async def test_a_gate_that_takes_long_holds_up_its_own_partition_alone(events: EventBench) -> None:
    release = asyncio.Event()

    async def on_open(first: Record) -> None:
        if first.partition == 0:
            await release.wait()

    events.on_open = on_open
    async with events.running(0, 1):
        events.group.send(("a", b"slow"))
        events.group.send(("b", b"quick"), partition=1)
        await until(lambda: events.done == [b"quick"])
        release.set()
        await until(lambda: events.done == [b"quick", b"slow"])


async def test_a_gate_that_can_never_open_ends_the_member(events: EventBench) -> None:
    async def on_open(_first: Record) -> None:
        raise FatalError("kafka_not_authorized", "no")

    events.on_open = on_open
    async with events.running(0):
        events.group.send(("a", b"1"))
        error = await events.raised()
    assert isinstance(error, FatalError)


async def test_events_of_a_key_never_overlap_and_stay_in_order(events: EventBench) -> None:
    inside: list[str] = []

    async def act(record: Record) -> None:
        assert record.key not in inside
        inside.append(record.key)
        await asyncio.sleep(0)
        inside.remove(record.key)

    events.on_handle = act
    async with events.running(0, 1):
        for partition in (0, 1):
            events.group.send(*((f"{partition}-{n % 3}", b"%d" % n) for n in range(30)), partition=partition)
        await until(lambda: len(events.done) == 60)
    for key in {record.key for record in events.begun}:
        values = [int(record.value) for record in events.begun if record.key == key]
        assert values == sorted(values)


async def test_events_without_a_key_wait_for_nobody(events: EventBench) -> None:
    release = asyncio.Event()

    async def act(record: Record) -> None:
        if record.value == b"slow":
            await release.wait()

    events.on_handle = act
    async with events.running(0):
        events.group.send(("", b"slow"), ("", b"quick"))
        await until(lambda: events.done == [b"quick"])
        release.set()
        await until(lambda: {0: 2} in events.group.commits)


@pytest.mark.parametrize(("limit", "partitions"), [({"slots": 3}, 3), ({"concurrency": 2}, 1)])
async def test_slots_bound_what_runs(events: EventBench, limit: dict[str, int], partitions: int) -> None:
    """Over all partitions, and in each."""
    running = most = 0

    async def act(_record: Record) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    events.on_handle = act
    events.set(**limit)
    async with events.running(*range(partitions)):
        for partition in range(partitions):
            events.group.send(*((f"{n}", b"%d" % n) for n in range(10)), partition=partition)
        await until(lambda: len(events.done) == 10 * partitions)
    assert [most] == list(limit.values())


async def test_no_event_behind_the_span_is_begun_before_a_commit(events: EventBench) -> None:
    """The limit starts at the committed offset, because finished but uncommitted records are repeated after a crash."""
    events.set(max_span=4)
    events.group.answers.extend([False] * 30)
    async with events.running(0):
        events.group.send(*((f"{n}", b"%d" % n) for n in range(20)))
        await until(lambda: len(events.group.answers) < 10)
        assert [record.offset for record in events.begun] == [0, 1, 2, 3]
        events.group.answers.clear()
        await until(lambda: {0: 20} in events.group.commits)
    assert len(events.done) == 20


async def test_where_the_span_ends_a_commit_comes_before_its_time(events: EventBench) -> None:
    events.set(max_span=4, commit_interval_seconds=60.0)
    async with events.running(0):
        events.group.send(*((f"{n}", b"%d" % n) for n in range(20)))
        await until(lambda: len(events.done) == 20)
    assert len(events.group.commits) >= 4


async def test_a_slow_event_holds_up_others_at_the_span_only(events: EventBench) -> None:
    release = asyncio.Event()

    async def act(record: Record) -> None:
        if record.offset == 2:
            await release.wait()

    events.on_handle = act
    events.set(max_span=5)
    async with events.running(0):
        events.group.send(*((f"{n}", b"%d" % n) for n in range(12)))
        await until(lambda: {0: 2} in events.group.commits and len(events.done) == 6)
        assert max(record.offset for record in events.begun) == 6
        release.set()
        await until(lambda: {0: 12} in events.group.commits)


async def test_a_gap_wider_than_the_span_stops_nothing(events: EventBench) -> None:
    """Transaction markers, or records that retention took."""
    events.set(max_span=4)
    async with events.running(0):
        events.group.deliver(*(events.group.record("a", b"x", offset=offset) for offset in (0, 1, 500, 501, 90_000)))
        await until(lambda: {0: 90_001} in events.group.commits)
    assert len(events.done) == 5


async def test_a_transient_error_counts_and_frees_the_slot(events: EventBench) -> None:
    """With one slot, another key is done before the repetition; the failing event's own key waits."""

    async def act(record: Record) -> None:
        if record.value == b"1" and record.attempt < 3:
            raise TransientError("busy", "later", retry_after=0.01)

    events.on_handle = act
    events.set(slots=1)
    async with events.running(0):
        events.group.send(("a", b"1"), ("a", b"2"), ("b", b"3"))
        await until(lambda: len(events.done) == 3)
    assert events.done == [b"3", b"1", b"2"]
    assert [record.attempt for record in events.begun if record.value == b"1"] == [1, 2, 3]
    assert events.count("retries_total", code="busy") == 2


async def test_overload_is_no_attempt(events: EventBench) -> None:
    answers = [Overloaded("full", "full"), Overloaded("full", "full")]

    async def act(_record: Record) -> None:
        if answers:
            raise answers.pop()

    events.on_handle = act
    async with events.running(0):
        events.group.send(("a", b"1"))
        await until(lambda: events.done == [b"1"])
    assert [record.attempt for record in events.begun] == [1, 1, 1]


async def test_a_permanent_error_becomes_a_dead_letter_at_the_groups_address(events: EventBench) -> None:
    """It is stored before the offset is finished, with the number of attempts; later records of its key continue."""
    tries = 0

    async def before(_letter: OutgoingRecord) -> None:
        nonlocal tries
        tries += 1
        assert events.done == []
        if tries < 3:
            raise BrokerUnavailable("broker_unavailable", "gone")

    async def act(record: Record) -> None:
        if record.value == b"bad":
            raise PermanentError("bad", "bad") if record.attempt == 2 else TransientError("busy", "later")

    events.publisher.before = before
    events.on_handle = act
    async with events.running(0):
        events.group.send(("a", b"bad"), ("a", b"next"))
        await until(lambda: {0: 2} in events.group.commits)
    [letter] = events.publisher.published
    assert letter.topic == "fraud.of.card-events.fees.dead-letter"
    assert dict(letter.headers)["dlq_attempts"] == b"2"
    assert events.done == [b"next"]


@pytest.mark.parametrize("error", [FatalError("no_disk", "full"), ZeroDivisionError("a bug")])
async def test_an_error_that_nobody_expects_ends_the_member(events: EventBench, error: Exception) -> None:
    """run() raises that very error, and what was finished is committed."""

    async def act(record: Record) -> None:
        if record.value == b"bomb":
            await until(lambda: events.done == [b"1"])
            raise error

    events.on_handle = act
    async with events.running(0):
        events.group.send(("a", b"1"), ("b", b"bomb"), ("c", b"2"))
        assert await events.raised() is error
    assert events.group.commits[-1] == {0: 1}


async def test_a_partition_that_comes_back_keeps_its_gate_and_its_work(events: EventBench) -> None:
    release = asyncio.Event()

    async def act(_record: Record) -> None:
        await release.wait()

    events.on_handle = act
    async with events.running(0):
        records = events.group.send(("a", b"1"), ("b", b"2"))
        await until(lambda: len(events.begun) == 2)
        await events.group.revoke()
        await events.group.assign(0)
        events.group.deliver(*records)  # fetched again
        release.set()
        await until(lambda: len(events.done) == 2)
    assert [gate.seen for gate in events.gates] == [[0, 1]]
    assert len(events.begun) == 2
    assert events.count("left_uncommitted_total") == 0


async def test_a_partition_that_was_away_begins_with_a_new_gate(events: EventBench) -> None:
    """Begun but uncommitted records are counted and come again, and the new gate does not know the old ones."""
    release = asyncio.Event()

    async def act(record: Record) -> None:
        if record.value == b"slow":
            await release.wait()

    events.on_handle = act
    async with events.running(0):
        records = events.group.send(("a", b"1"), ("b", b"slow"), ("c", b"3"))
        await until(lambda: {0: 1} in events.group.commits and len(events.done) == 2)
        await events.group.revoke()
        await events.group.assign(1)
        assert events.count("left_uncommitted_total") == 2
        release.set()
        await events.group.assign(0)
        events.group.deliver(*records[1:])
        await until(lambda: {0: 3} in events.group.commits)
    assert [gate.opened for gate in events.gates if gate.opened] == [[0], [1]]
    assert events.done == [b"1", b"3", b"slow", b"3"]


async def test_no_call_begins_while_the_fate_of_the_partition_is_unknown(events: EventBench) -> None:
    async with events.running(0):
        events.group.send(("a", b"1"))
        await until(lambda: events.done == [b"1"])
        await events.group.revoke()
        events.group.send(("a", b"2"))
        await until(lambda: events.gates[0].seen == [0, 1])
        assert len(events.begun) == 1
        await events.group.assign(0)
        await until(lambda: events.done == [b"1", b"2"])


async def test_a_stop_lets_running_calls_finish_and_commits_them(events: EventBench) -> None:
    release = asyncio.Event()

    async def act(_record: Record) -> None:
        await release.wait()

    events.on_handle = act
    events.set(concurrency=2, commit_interval_seconds=60.0)
    async with events.running(0) as consumer:
        events.group.send(("a", b"1"), ("b", b"2"), ("c", b"3"))
        await until(lambda: len(events.begun) == 2)
        consumer.stop()
        await asyncio.sleep(0)
        release.set()
    assert sorted(events.done) == [b"1", b"2"]
    assert events.group.commits[-1] == {0: 2}


async def test_a_stop_cancels_calls_when_the_grace_is_over(events: EventBench) -> None:
    async def act(_record: Record) -> None:
        await asyncio.Event().wait()

    events.on_handle = act
    events.set(stop_grace_seconds=0.01)
    async with events.running(0):
        events.group.send(("a", b"1"))
        await until(lambda: len(events.begun) == 1)
    assert events.done == []
    assert events.count("left_uncommitted_total") == 1
    assert all(commit[0] == 0 for commit in events.group.commits)


async def test_a_stop_waits_neither_for_a_gate_nor_for_a_repetition(events: EventBench) -> None:
    async def on_open(first: Record) -> None:
        if first.partition == 1:
            await asyncio.Event().wait()

    async def act(_record: Record) -> None:
        raise TransientError("busy", "later", retry_after=60)

    events.on_open, events.on_handle = on_open, act
    events.set(stop_grace_seconds=60.0)
    async with events.running(0, 1):
        events.group.send(("a", b"1"))
        events.group.send(("b", b"2"), partition=1)
        await until(lambda: len(events.begun) == 1)
    assert events.done == []


async def test_a_lost_lease_drops_the_event_without_a_trace(events: EventBench) -> None:
    async def act(_record: Record) -> None:
        raise LeaseLost("stopping", "left")

    events.on_handle = act
    async with events.running(0):
        events.group.send(("a", b"1"))
        await until(lambda: len(events.begun) == 1)
    assert events.publisher.published == []
    assert all(commit[0] == 0 for commit in events.group.commits)


async def test_a_partition_is_paused_while_enough_waits_and_fetched_again(events: EventBench) -> None:
    release = asyncio.Event()

    async def act(_record: Record) -> None:
        await release.wait()

    events.on_handle = act
    events.set(max_span=4)
    async with events.running(0):
        events.group.send(*((f"{n}", b"%d" % n) for n in range(14)))
        await until(lambda: events.group.paused == {0})
        release.set()
        await until(lambda: len(events.done) == 14 and events.group.paused == set())


async def test_a_handler_that_never_waits_lets_the_loop_turn(events: EventBench) -> None:
    """Heartbeats are sent by the same loop."""
    turns = 0
    seen: list[int] = []

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def act(_record: Record) -> None:
        seen.append(turns)

    ticking = asyncio.create_task(turn())
    events.on_handle = act
    events.set(concurrency=1)
    async with events.running(0):
        events.group.send(*((f"{n}", b"%d" % n) for n in range(200)))
        await until(lambda: len(events.done) == 200)
    ticking.cancel()
    assert len(set(seen)) > 5

"""Rebalances, heartbeats, commits, back-pressure, stopping."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs
from support.bus_bench import KAFKA, QUICK, Bench, until
from support.fake_group import FakeGroup
from support.members import keyed_consumer

from pipeline.contracts import Record
from pipeline.errors import FatalError, LeaseLost, TransientError
from pipeline.kafka import BatchUndecodable, BrokerUnavailable
from pipeline.kafka.protocols import Lease
from pipeline.kafka.testing import MemoryPublisher

REFUSED = BrokerUnavailable("kafka_sasl_refused", "127.0.0.1:1 refuses the credentials of kafka.sasl.")


class Held:
    """Handling that waits for the test, asks its lease, then does its effect."""

    def __init__(self, bench: Bench) -> None:
        self.release = asyncio.Event()
        self.effects: list[bytes] = []
        self.refused: list[bytes] = []
        bench.handler.on_handle = self._act

    async def _act(self, record: Record, lease: Lease) -> None:
        try:
            await self.release.wait()
            await lease.ensure()
        except (LeaseLost, asyncio.CancelledError):
            self.refused.append(record.value)
            raise
        self.effects.append(record.value)


# rebalances


async def test_work_goes_on_in_limbo_and_waits_before_its_effect(bench: Bench) -> None:
    held = Held(bench)
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
        await bench.group.revoke()
        held.release.set()
        await asyncio.sleep(0.01)
        assert held.effects == held.refused == []
        await bench.group.assign(0)
        await until(lambda: held.effects == [b"1"])


async def test_records_fetched_again_are_not_begun_again(bench: Bench) -> None:
    """After a rebalance, the client continues after the fetched records; the member ignores records that come again."""
    held = Held(bench)
    async with bench.running(0):
        records = bench.group.send(("a", b"1"), ("b", b"2"))
        await until(lambda: len(bench.handler.begun) == 2)
        await bench.group.revoke()
        await bench.group.assign(0)
        assert bench.group.seeks == [(0, 2)]
        bench.group.deliver(*records, bench.group.record("c", b"3"))
        held.release.set()
        await until(lambda: sorted(held.effects) == [b"1", b"2", b"3"])
    assert len(bench.handler.begun) == 3


async def test_a_returned_partition_without_records_is_not_moved(bench: Bench) -> None:
    async with bench.running(0):
        await bench.group.revoke()
        await bench.group.assign(0)
        bench.group.send(("a", b"1"))
        await until(lambda: bench.handler.done == [b"1"])
    assert bench.group.seeks == []


async def test_work_on_a_lost_partition_is_cancelled(bench: Bench) -> None:
    """Work on the other partition continues; the lost partition's offset is never committed again."""
    held = Held(bench)
    async with bench.running(0, 1):
        bench.group.send(("a", b"0"), partition=0)
        bench.group.send(("b", b"1"), partition=1)
        await until(lambda: len(bench.handler.begun) == 2)
        await bench.group.revoke()
        await bench.group.assign(0)
        await until(lambda: held.refused == [b"1"])
        held.release.set()
        await until(lambda: held.effects == [b"0"])
    assert bench.group.commits[-1] == {0: 1}


@pytest.mark.parametrize(
    ("member", "generation"), [("me", 3), ("someone else", 2), ("someone else", 1)], ids=["missed one", "new", "reset"]
)
async def test_work_is_not_kept_when_others_may_have_had_the_partition(
    bench: Bench, member: str, generation: int
) -> None:
    """After another member id or a generation in between, work begins again at the committed offset."""
    held = Held(bench)
    async with bench.running(0):
        records = bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
        await bench.group.revoke()
        await bench.group.assign(0, member=member, generation=generation)
        await until(lambda: held.refused == [b"1"])
        bench.group.deliver(*records)
        held.release.set()
        await until(lambda: held.effects == [b"1"])
    assert len(bench.handler.begun) == 2


@pytest.mark.parametrize("broken", ["stale", "unknown"])
async def test_a_rebalance_of_a_member_that_was_given_up_loses_all_at_once(bench: Bench, broken: str) -> None:
    held = Held(bench)
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
        if broken == "stale":
            bench.group.age = 9.0
        else:
            bench.group.member = None
        await bench.group.revoke()
        await until(lambda: held.refused == [b"1"])
        assert bench.group.commits == []


async def test_a_rebalance_that_never_ends_loses_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After this time, the group has removed the member."""
    held = Held(bench)
    async with bench.running(0) as consumer:
        bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
        await bench.group.revoke()
        assert consumer.ready
        assert consumer._limbo_since is not None
        monkeypatch.setattr(consumer, "_limbo_since", consumer._limbo_since - 1.9 * QUICK.session_timeout_seconds)
        await until(lambda: held.refused == [b"1"])


async def test_finished_records_are_committed_before_partitions_go(bench: Bench) -> None:
    bench.set(commit_interval_seconds=60.0)
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.handler.done == [b"1"])
        await bench.group.revoke()
        assert bench.group.commits == [{0: 1}]


async def test_an_error_inside_a_rebalance_ends_the_member(bench: Bench) -> None:
    """The client would only log it."""
    bench.set(commit_interval_seconds=60.0)
    error = FatalError("kafka_not_authorized", "no right")
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.handler.done == [b"1"])
        bench.group.answers.append(error)
        await bench.group.revoke()
        assert await bench.raised() is error


async def test_an_error_at_an_assignment_ends_the_member(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ZeroDivisionError("a bug")

    def broken(*_: object) -> None:
        raise error

    async with bench.running(0) as consumer:
        monkeypatch.setattr(consumer, "_open", broken)
        await bench.group.revoke()
        await bench.group.assign(0, 1)
        assert await bench.raised() is error


# heartbeats


async def test_without_a_fresh_heartbeat_all_work_is_cancelled_then_begins_again(bench: Bench) -> None:
    """0.8 of the session: cancelled. The same membership recovers: from the committed offset, once that is known."""
    held = Held(bench)
    async with bench.running(0) as consumer:
        records = bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
        with capture_logs() as lines:
            bench.group.age = 8.1
            await until(lambda: held.refused == [b"1"])
        loss = {"group": "process", "partitions": 1, "why": "heartbeat_stale", "heartbeat_age": 8.1}
        assert lines == [{"event": "partitions_lost", "log_level": "warning", **loss}]
        assert not consumer.ready
        bench.group.age = 0.0
        await asyncio.sleep(0.02)
        assert bench.group.seeks == []  # the committed offset cannot be learnt yet
        bench.group.start_offsets[0] = 0
        with capture_logs() as lines:
            await until(lambda: consumer.ready)
        assert [(line["event"], line["partitions"]) for line in lines] == [("partitions_resumed", 1)]
        assert bench.group.seeks == [(0, 0)]
        bench.group.deliver(*records)
        held.release.set()
        await until(lambda: held.effects == [b"1"])
    assert bench.group.commits[-1] == {0: 1}


async def test_a_partition_that_was_paused_when_the_heartbeat_failed_is_fetched_again(bench: Bench) -> None:
    """The client keeps the pause, and the new work does not know of it."""
    held = Held(bench)
    bench.set(max_span=1)
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.group.paused == {0})
        bench.group.age = 9.0
        await until(lambda: held.refused == [b"1"])
        bench.group.start_offsets[0] = 0
        bench.group.age = 0.0
        await until(lambda: bench.group.seeks == [(0, 0)])
        assert bench.group.paused == set()


async def test_a_thawed_process_notices_before_its_effect(bench: Bench) -> None:
    """The handler runs before the watch does: its lease checks the clock itself, and is lost for good."""
    held = Held(bench)
    bench.set(poll_interval_seconds=0.03)
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
        bench.group.start_offsets[0] = 0
        bench.group.age = 8.1
        held.release.set()
        await until(lambda: held.refused == [b"1"])
        bench.group.age = 0.0
        await until(lambda: bench.group.seeks == [(0, 0)])
    assert held.effects == []


async def test_records_of_a_partition_without_work_are_fetched_again(bench: Bench) -> None:
    """They came between the loss and the restart: dropping them would commit past them."""
    async with bench.running(0):
        bench.group.partitions |= {next(iter(bench.group.partitions))._replace(number=1)}
        bench.group.start_offsets[1] = 0
        lost = bench.group.send(("a", b"1"), partition=1)
        await until(lambda: bench.group.seeks == [(1, 0)])
        bench.group.deliver(*lost)
        await until(lambda: bench.handler.done == [b"1"])


# commits


async def test_a_failed_commit_is_repeated(bench: Bench) -> None:
    bench.group.answers.extend([False, False])
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.group.commits == [{0: 1}])
    assert bench.count("commits_total", result="failed") == 2


async def test_a_commit_that_hangs_costs_its_timeout(bench: Bench) -> None:
    bench.set(commit_timeout_seconds=0.01)
    bench.group.commit_hangs = True
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.count("commits_total", result="failed") >= 2)
        bench.group.commit_hangs = False
        await until(lambda: bench.group.commits == [{0: 1}])


async def test_nothing_is_committed_in_limbo_or_twice(bench: Bench) -> None:
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.group.commits == [{0: 1}])
        await bench.group.revoke()
        await asyncio.sleep(0.02)
        await bench.group.assign(0)
        await asyncio.sleep(0.02)
        assert bench.group.commits == [{0: 1}]


# back-pressure


@pytest.mark.parametrize("bound", [{"max_span": 3}, {"max_span_bytes": 30}])
async def test_a_full_span_pauses_its_partition_only(bench: Bench, bound: dict[str, int]) -> None:
    """It stays paused through a rebalance, which makes the client forget; finished records let it go on."""
    held = Held(bench)
    bench.set(**bound)
    async with bench.running(0, 1):
        bench.group.send(*((f"{n}", b"0123456789") for n in range(3)), partition=0)
        bench.group.send(("x", b"1"), partition=1)
        await until(lambda: bench.group.paused == {0})
        await until(lambda: bench.count("paused") == 1)
        await bench.group.revoke()
        await bench.group.assign(0, 1)
        assert bench.group.paused == {0}
        held.release.set()
        await until(lambda: bench.group.paused == set())


async def test_lag_grows_while_a_partition_is_paused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No fetch returns the end of a paused partition, so the member queries it. A lost partition has no lag gauge."""
    monkeypatch.setattr("pipeline.kafka.gauges._ENDS_EVERY", 0.01)
    bench.set(max_span=2, max_poll_records=2)
    held = Held(bench)
    labels = {"topic": "card-batch.requested", "partition": "0"}
    async with bench.running(0):
        bench.group.send(("a", b"1"), ("b", b"2"), ("c", b"3"))
        await until(lambda: bench.group.paused == {0} and bench.count("lag", **labels) == 3)
        for number in range(4):
            bench.group.record("d", b"%d" % number)  # written, and not fetched
        await until(lambda: bench.count("lag", **labels) == 7)
        await bench.group.revoke()
        await bench.group.assign(1)
        sample = bench.metrics.registry.get_sample_value
        shown = {"stage": bench.stage, **labels}
        await until(lambda: sample("pipeline_consumer_lag", shown) is None)
        assert sample("pipeline_consumer_span", shown) is None
        held.release.set()


async def test_lag_and_span_are_measured(bench: Bench) -> None:
    held = Held(bench)
    async with bench.running(0):
        bench.group.send(("a", b"1"), ("b", b"2"))
        labels = {"topic": "card-batch.requested", "partition": "0"}
        await until(lambda: bench.count("lag", **labels) == 2 == bench.count("span", **labels))
        await until(lambda: bench.count("in_flight") == 2)
        held.release.set()
        await until(lambda: bench.count("lag", **labels) == 0 == bench.count("span", **labels))
    assert bench.count("in_flight") == 0
    assert bench.count("rebalances_total") == 1


# beginning and end


async def test_a_broker_that_is_not_there_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alive, not ready, with the cause; tries again until it is there."""
    monkeypatch.setattr("pipeline.kafka.member._RECONNECT", 0.001)
    group, errors = FakeGroup(), [REFUSED, REFUSED]
    conditions: list[str] = []

    async def connect() -> FakeGroup:
        conditions.append(consumer.condition)
        if errors:
            raise errors.pop()
        return group

    consumer = keyed_consumer(Bench().handler, KAFKA, QUICK, MemoryPublisher(), connect)
    ready = [consumer.ready]
    task = asyncio.create_task(consumer.run())
    await group.assign(0)
    ready.append(consumer.ready)
    assert conditions[-1] == f"not in its group: {REFUSED}"
    assert consumer.condition == "joined, heartbeat fresh"
    assert consumer.alive
    consumer.stop()
    ready.append(consumer.ready)
    await task
    assert ready == [False, True, False]


async def test_a_loop_that_does_not_turn_is_not_alive(bench: Bench) -> None:
    bench.set(liveness_timeout_seconds=0.01)
    async with bench.running(0) as consumer:
        assert consumer.alive
    await asyncio.sleep(0.02)
    assert not consumer.alive


async def test_work_outside_of_a_run_is_refused() -> None:
    consumer = keyed_consumer(Bench().handler, KAFKA, QUICK, MemoryPublisher())

    async def nothing() -> None:
        """Never awaited."""

    with pytest.raises(RuntimeError, match="does not run"):
        consumer._start(nothing())
    with pytest.raises(RuntimeError, match="does not run"):
        getattr(consumer, "_the_client")  # noqa: B009 - the property refuses


async def test_stop_lets_running_calls_finish_and_begins_nothing(bench: Bench) -> None:
    held = Held(bench)
    async with bench.running(0) as consumer:
        bench.group.send(("a", b"1"), ("a", b"2"))
        await until(lambda: len(bench.handler.arrived) == 2)
        consumer.stop()
        await asyncio.sleep(0.01)
        held.release.set()
    assert held.effects == [b"1"]
    assert bench.group.commits[-1] == {0: 1}


async def test_stop_during_arrival_does_not_go_on_to_the_work(bench: Bench) -> None:
    release = asyncio.Event()

    async def arrive(_record: Record) -> None:
        await release.wait()

    bench.handler.on_arrive = arrive
    async with bench.running(0) as consumer:
        bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.arrived) == 1)
        consumer.stop()
        await asyncio.sleep(0.01)
        release.set()
    assert bench.handler.begun == []


async def test_stop_does_not_wait_for_repetitions(bench: Bench) -> None:
    async def act(_record: Record, _lease: Lease) -> None:
        raise TransientError("busy", "later", retry_after=60.0)

    bench.handler.on_handle = act
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: bench.count("retries_total", code="busy") == 1)
    assert bench.group.closed


async def test_the_grace_ends(bench: Bench) -> None:
    """Then running work is cancelled, and its record is not committed."""
    held = Held(bench)
    bench.set(stop_grace_seconds=0.01)
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
    assert held.refused == [b"1"]
    assert {0: 1} not in bench.group.commits


async def test_a_cancelled_run_ends_everything(bench: Bench) -> None:
    held = Held(bench)
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
        assert bench.task
        bench.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bench.raised()
    assert held.refused == [b"1"]
    assert bench.group.closed


async def test_an_error_of_the_client_ends_the_member(bench: Bench) -> None:
    error = FatalError("kafka_records_lost", "gone")
    bench.group.fetch_errors.append(error)
    async with bench.running(0):
        assert await bench.raised() is error


async def test_the_last_commit_of_a_member_that_fails_begins_nothing(bench: Bench) -> None:
    """The commit would allow more records to begin. The error that ended the member is still raised."""
    error = ZeroDivisionError("a bug")

    async def act(record: Record, _lease: Lease) -> None:
        if record.value == b"bomb":
            await until(lambda: bench.handler.done == [b"fine"])
            raise error
        if record.value == b"held":
            await asyncio.Event().wait()

    bench.handler.on_handle = act
    bench.set(max_span=3, commit_interval_seconds=60.0)
    async with bench.running(0):
        bench.group.send(("a", b"fine"), ("b", b"bomb"), ("c", b"held"), ("d", b"behind the span"))
        assert await bench.raised() is error
    assert bench.group.commits == [{0: 1}]
    assert [record.value for record in bench.handler.arrived] == [b"fine", b"bomb", b"held"]
    assert bench.group.closed


async def test_a_last_commit_that_is_refused_leaves_no_client_open(bench: Bench) -> None:
    bench.group.answers.extend([FatalError("kafka_not_authorized", "no")] * 2)
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        assert isinstance(await bench.raised(), FatalError)
    assert bench.group.closed


@pytest.mark.parametrize("end", ["bug", "stop", "lost"])
async def test_a_handler_that_answers_a_cancellation_by_a_transient_error_holds_up_nothing(
    bench: Bench, end: str
) -> None:
    """Its record is not retried: the member, or its time with the partition, is over."""

    async def act(record: Record, _lease: Lease) -> None:
        if record.value == b"bomb":
            raise ZeroDivisionError
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TransientError("store_unavailable", "gone", retry_after=60.0) from None

    bench.handler.on_handle = act
    bench.set(stop_grace_seconds=0.0)
    async with bench.running(0, 1) as consumer:
        bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
        if end == "bug":
            bench.group.send(("b", b"bomb"), partition=1)
        else:
            if end == "lost":
                await bench.group.assign(1)
            consumer.stop()
        assert isinstance(await bench.raised(), ZeroDivisionError if end == "bug" else type(None))


# a batch that cannot be decoded


async def test_what_precedes_an_undecodable_batch_is_finished_then_the_member_ends(bench: Bench) -> None:
    """Its offset is committed, so that a skip leaves out nothing else; nothing behind it is fetched."""
    held = Held(bench)
    error = BatchUndecodable("card-batch.requested", 0, 5, 9, "Unknown compression codec 0x05")
    bench.set(commit_interval_seconds=60.0)
    async with bench.running(0):
        bench.group.send(("a", b"1"), ("a", b"2"))
        await until(lambda: len(bench.handler.arrived) == 2)
        with capture_logs() as lines:
            bench.group.fetch_errors.append(error)
            await until(lambda: [line["event"] for line in lines] == ["batch_undecodable"])
        assert bench.group.commits == []
        held.release.set()
        assert await bench.raised() is error
    assert held.effects == [b"1", b"2"]
    assert bench.group.commits == [{0: 5}]
    expected = {"topic": "card-batch.requested", "partition": 0, "offset": 5, "next_offset": 9, "group": "process"}
    assert lines[0].items() >= {**expected, "why": "Unknown compression codec 0x05"}.items()


async def test_an_undecodable_first_batch_is_committed_up_to_itself(bench: Bench) -> None:
    """Then the group is known, and the batch can be skipped."""
    error = BatchUndecodable("card-batch.requested", 0, 5, 9, "Unknown compression codec 0x05")
    async with bench.running(0):
        bench.group.fetch_errors.append(error)
        assert await bench.raised() is error
    assert bench.group.commits == [{0: 5}]


async def test_records_before_an_undecodable_batch_get_the_grace_and_no_more(bench: Bench) -> None:
    held = Held(bench)
    error = BatchUndecodable("card-batch.requested", 0, 5, 9, "Unknown compression codec 0x05")
    bench.set(stop_grace_seconds=0.01)
    async with bench.running(0):
        bench.group.send(("a", b"1"))
        await until(lambda: len(bench.handler.begun) == 1)
        bench.group.fetch_errors.append(error)
        assert await bench.raised() is error
    assert held.refused == [b"1"]
    assert all(commit == {0: 0} for commit in bench.group.commits)

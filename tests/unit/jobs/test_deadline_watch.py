"""The deadline watch: no job ends in silence."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs
from support.effects import Died, Effects, NoticingStore
from support.job_world import CARDS, PART_CIPHER, World

from pipeline.contracts import Topic
from pipeline.errors import TransientError
from pipeline.jobs.job_store import JobStore
from pipeline.storage import StoreFull


async def test_a_job_that_nobody_started_fails_at_its_deadline_and_the_partner_is_notified_in_time() -> None:
    world = World()
    record = world.announce()
    await world.deliver(world.watch, record)
    world.clock.forward(minutes=59, seconds=20)
    await world.watch.poll()
    assert world.bus.published == []
    world.clock.forward(seconds=15)
    await world.watch.poll()
    (failed,) = world.bus.on(Topic.BATCH_FAILED)
    assert json.loads(failed.value)["reason"] == "deadline_passed"
    await world.deliver(world.confirm, world.records(Topic.BATCH_FAILED)[0])
    assert len(world.ecs.calls) == 1
    await world.watch.poll()
    assert len(world.bus.on(Topic.BATCH_FAILED)) == 1
    assert not [key for key in world.memory.objects if key.startswith("open/")]


async def test_cards_that_were_decided_before_the_worker_died_are_counted() -> None:
    """The counts are the same, whether the watch or the job's stage is first at the deadline."""
    world = World(csv_limits={"chunk_records": 10, "chunk_bytes": 1024})
    rows = CARDS + 100 * CARDS.splitlines(keepends=True)[1]
    record = world.announce(rows, record_count=103)
    await world.deliver(world.watch, record)
    world.objects.fail_after = [(len(rows) - 10, TransientError("source_cut", "the connection broke"))]
    with pytest.raises(TransientError):
        await world.deliver(world.process, record)
    chunks = sum(key.endswith(".json") and "/parts/" in key and "source" not in key for key in world.memory.objects)
    world.clock.forward(hours=1)
    await world.watch.poll()
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert chunks > 0
    assert (outcome.decided_by, outcome.ok, outcome.failed) == ("watch", 10 * chunks - 1, 1)
    assert json.loads(outcome.body)["records_processed"] == 10 * chunks


async def test_cards_of_a_job_that_was_not_uploaded_in_time_are_counted() -> None:
    world = World()
    record = world.announce()
    await world.deliver(world.watch, record)
    await world.deliver(world.process, record)
    world.clock.forward(hours=1)
    await world.watch.poll()
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert (outcome.ok, outcome.failed) == (2, 1)


async def test_a_later_announcement_moves_the_job_to_its_new_minute() -> None:
    world = World()
    await world.deliver(world.watch, world.announce())
    await world.process.arrive(world.announce(expires_at="2026-01-21T18:00:00Z"))
    world.clock.forward(hours=1)
    await world.watch.poll()
    assert world.bus.published == []
    assert [key for key in world.memory.objects if key.startswith("open/")] == [
        "open/202601211759/acme/cffde776-1d2a-4614-8023-a5148e411462.1"
    ]
    world.clock.forward(hours=5)
    await world.watch.poll()
    assert len(world.bus.on(Topic.BATCH_FAILED)) == 1


async def test_a_decided_job_whose_message_was_lost_is_published_once_more() -> None:
    world = World()
    record = world.announce(b"<html>")
    await world.deliver(world.watch, record)
    await world.deliver(world.process, record)
    world.bus.published.clear()
    world.clock.forward(hours=1)
    for _ in range(3):
        await world.watch.poll()
    assert len(world.bus.on(Topic.BATCH_FAILED)) == 1


async def test_a_notified_job_is_not_filed_again() -> None:
    world = World()
    record = world.announce()
    await world.run(record)
    await world.deliver(world.watch, record)
    assert not [key for key in world.memory.objects if key.startswith("open/")]


async def test_parts_of_a_failed_job_go_after_their_time() -> None:
    world = World(policies={"max_failed_share": 0.1})
    await world.run(world.announce())
    assert any("/parts/" in key for key in world.memory.objects)
    world.clock.forward(days=7, minutes=2)
    await world.watch.poll()
    assert not any("/parts/" in key or key.startswith("purge/") for key in world.memory.objects)


async def test_the_watch_may_die_between_any_two_effects_when_it_deletes_parts() -> None:
    """The next watch deletes what is left."""
    at, ended = 0, False
    while not ended:
        at += 1
        world, effects = World(policies={"max_failed_share": 0.1}), Effects(at)
        await world.run(world.announce())
        world.clock.forward(days=7, minutes=2)
        world.jobs = JobStore(NoticingStore(world.memory, effects.around), PART_CIPHER)
        world.restart()
        try:
            await world.watch.poll()
            ended = True
        except Died:
            assert any(key.startswith("purge/") for key in world.memory.objects) != (
                effects.names[-1] == "after:delete.purge"
            )
        world.jobs = JobStore(world.memory, PART_CIPHER)
        world.restart()
        await world.watch.poll()
        assert not any("/parts/" in key or key.startswith("purge/") for key in world.memory.objects), effects.names
    assert {"after:delete.parts", "before:delete.purge", "after:delete.purge"} <= set(effects.names)


async def test_jobs_of_an_integration_that_is_not_configured_here_are_left_alone() -> None:
    world = World()
    await world.jobs.file("open", type(world.ref)("other", world.ref.job_guid), world.clock())
    world.clock.forward(hours=9)
    await world.watch.poll()
    assert world.bus.published == []


async def test_jobs_of_a_removed_integration_do_not_hide_the_nearest_deadline() -> None:
    world = World()
    removed = type(world.ref)("removed", world.ref.job_guid)
    await world.jobs.file("open", removed, world.clock() - timedelta(days=3))
    await world.deliver(world.watch, world.announce())
    with capture_logs() as logs:
        for _ in range(2):
            await world.watch.poll()
            await world.watch.count()
    metrics = world.metrics
    assert 3500 < metrics.deadline_seconds_left_min._value.get() <= 3600
    assert metrics.open_jobs_unconfigured.labels("removed")._value.get() == 1
    assert [one for one in logs if one["event"] == "jobs_unconfigured"] == [
        {"event": "jobs_unconfigured", "log_level": "warning", "integrations": ["removed"], "jobs": 1}
    ]
    await world.jobs.unfile(removed.marker("open", world.clock() - timedelta(days=3)))
    await world.watch.count()
    assert b"pipeline_open_jobs_unconfigured{" not in generate_latest(metrics.registry)


async def test_a_watch_whose_clock_is_ahead_fails_no_job() -> None:
    """Ten minutes ahead: the job has five left. When the clock is set, or when it really is over, the watch decides."""
    world = World()
    await world.deliver(world.watch, world.announce())
    world.clock.forward(minutes=64)
    world.contradict_clock(minutes=10)
    with capture_logs() as logs:
        await world.watch.poll()
    assert await world.jobs.outcome(world.ref) is None
    (line,) = [one for one in logs if one["event"] == "watch_job_postponed"]
    assert line["code"] == "clock_wrong"
    assert "600 s ahead of kafka" in line["message"]
    world.contradict_clock(minutes=0)
    await world.watch.poll()
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.reason == "deadline_passed"


async def test_the_watch_compares_its_clock_before_it_decides() -> None:
    """Right after a start the clock is unchecked, so the watch publishes an audit event to compare it."""
    world = World()
    await world.deliver(world.watch, world.announce())
    world.clock.forward(minutes=64)
    world.bus.fail = lambda record: world.contradict_clock(minutes=10) if record.topic is Topic.AUDIT_EVENTS else None
    await world.watch.poll()
    assert world.bus.audit() == ["clock.compared"]
    assert await world.jobs.outcome(world.ref) is None


async def test_the_nearest_deadline_is_one_that_somebody_could_still_meet() -> None:
    """A decided job whose callback is still to come, or is refused, would hide all others behind it."""
    world = World()
    nearest = world.metrics.deadline_seconds_left_min
    await world.deliver(world.watch, world.announce())
    await world.watch.poll()
    assert 3500 < nearest._value.get() <= 3600
    world.clock.forward(hours=1)
    await world.watch.poll()
    await world.watch.count()
    assert math.isnan(nearest._value.get())
    assert world.metrics.open_jobs._value.get() == 1
    await world.watch.poll()
    assert math.isnan(nearest._value.get())


async def test_a_full_store_is_not_reported_as_nothing_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """A due job whose failure cannot be stored is shown as overdue from the first look on."""
    world = World()
    await world.deliver(world.watch, world.announce())
    gauge = world.metrics.deadline_seconds_left_min
    failing = world.metrics.deadline_watch_failing

    async def full(_key: str, _data: bytes) -> bool:
        raise StoreFull("the disk is full")

    monkeypatch.setattr(world.memory, "create", full)
    world.clock.forward(hours=2)
    assert math.isnan(gauge._value.get())
    watch = asyncio.create_task(world.watch.run())
    async with asyncio.timeout(5):
        while math.isnan(gauge._value.get()):  # noqa: ASYNC110 - a gauge wakes nobody
            await asyncio.sleep(0.005)
    first = gauge._value.get()
    assert -3700 < first < -3500
    assert failing._value.get() == 1
    world.clock.forward(minutes=5)
    async with asyncio.timeout(5):
        while gauge._value.get() > first - 300:  # noqa: ASYNC110 - a gauge wakes nobody
            await asyncio.sleep(0.005)
        monkeypatch.undo()
        while not math.isnan(gauge._value.get()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert failing._value.get() == 0
    watch.cancel()
    await asyncio.wait([watch])


async def test_a_store_that_is_away_does_not_end_the_watch() -> None:
    world = World()
    await world.deliver(world.watch, world.announce())
    world.clock.forward(hours=1)
    looks: list[int] = []
    real = world.watch.poll

    async def poll() -> None:
        looks.append(1)
        world.memory.unavailable = len(looks) == 1
        await real()

    world.watch.poll = poll  # type: ignore[method-assign]
    task = asyncio.create_task(world.watch.run())
    while not world.bus.on(Topic.BATCH_FAILED):  # noqa: ASYNC110 - the bus is a plain list
        await asyncio.sleep(0.005)
    task.cancel()
    assert len(looks) >= 2
    await asyncio.gather(task, return_exceptions=True)


async def test_a_job_whose_announcements_are_gone_is_forgotten_and_holds_up_nobody() -> None:
    """A lifecycle rule deletes by age, and announcements are older than the marker; CONFIRM must not stop over it."""
    world = World()
    await world.deliver(world.watch, world.announce())
    for key in [key for key in world.memory.objects if key.startswith("jobs/")]:
        del world.memory.objects[key]
    other = world.announce(job_guid="11111111-1111-4111-8111-111111111111")
    await world.deliver(world.watch, other)
    world.clock.forward(hours=1)
    await world.watch.poll()
    assert len(world.bus.on(Topic.BATCH_FAILED)) == 1
    assert [key for key in world.memory.objects if key.startswith(("open/", "decided/"))] == [
        "decided/202601211259/acme/11111111-1111-4111-8111-111111111111.1"
    ]


async def test_a_refused_job_that_the_lifecycle_rule_deleted_is_forgotten() -> None:
    """Looks do not read decided jobs. Without this, such jobs would be listed and shown as open for ever."""
    world = World()
    await world.deliver(world.watch, world.announce())
    later = world.announce(job_guid="11111111-1111-4111-8111-111111111111", expires_at="2026-02-15T13:00:00Z")
    await world.deliver(world.watch, later)
    world.clock.forward(days=26)
    await world.watch.poll()
    await world.watch.forget()
    assert len([key for key in world.memory.objects if key.startswith("decided/")]) == 2
    for key in [key for key in world.memory.objects if key.startswith("jobs/")]:
        del world.memory.objects[key]
    world.clock.forward(days=6)
    await world.watch.forget()
    await world.watch.count()
    assert world.metrics.open_jobs._value.get() == 1
    assert [key for key in world.memory.objects if key.startswith(("open/", "decided/"))] == [
        "decided/202602151259/acme/11111111-1111-4111-8111-111111111111.1"
    ]


async def test_a_job_whose_urls_expire_in_a_year_is_failed_before_its_record_leaves_the_topic() -> None:
    """Waiting longer than the topic keeps the record would lose the job with the next restart."""
    world = World(limits={"max_job_hours": 48})
    announced = world.announce(expires_at="2027-01-21T13:00:00Z")
    record = replace(announced, timestamp_ms=int(world.clock().timestamp() * 1000))
    await world.deliver(world.watch, record)
    world.clock.forward(hours=47, minutes=58)
    await world.watch.poll()
    assert world.bus.published == []
    world.clock.forward(minutes=3)
    await world.watch.poll()
    assert len(world.bus.on(Topic.BATCH_FAILED)) == 1


async def test_a_decided_job_costs_no_request_in_each_look() -> None:
    """Refused jobs stay filed until an operator acts; a thousand of them must not delay the deadlines of others."""
    world = World()
    await world.watch.handle(world.announce(), world.lease)
    world.clock.forward(hours=2)
    await world.watch.poll()
    asked = []
    get = world.memory.get

    async def noted(key: str, *, start: int = 0, end: int | None = None) -> bytes:
        asked.append(key)
        return await get(key, start=start, end=end)

    world.memory.get = noted  # type: ignore[method-assign]
    await world.watch.poll()
    assert asked == []


async def test_a_foreign_object_among_the_waits_keeps_no_job_from_its_outcome() -> None:
    world = World()
    await world.watch.handle(world.announce(), world.lease)
    world.memory.objects[f"{world.ref.waiting}my notes.txt"] = b"?"
    world.clock.forward(hours=2)
    await world.watch.poll()
    assert await world.jobs.outcome(world.ref)


async def test_a_foreign_object_among_the_parts_keeps_no_card_data() -> None:
    world = World()
    await world.run(world.announce())
    part = f"{world.ref.parts('0' * 16)}00000000-{'0' * 32}.csv"
    world.memory.objects |= {f"{world.ref.parts()}a copy/1.csv": b"?", part: b"9999990000000006"}
    await world.jobs.drop_parts(world.ref)
    assert part not in world.memory.objects

"""Jobs that cannot be done now wait in the store, and go on by themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from support.job_world import BEGIN, CARDS, JOB, Stage, World

from pipeline.contracts import OutgoingRecord, Record, RecordPosition, Topic, first_values, is_for
from pipeline.errors import LeaseLost, Overloaded, TransientError, Untried
from pipeline.jobs.handling import JobHandler
from pipeline.jobs.job_tree import JobRef, WaitingMarker, parse_waiting_marker
from pipeline.jobs.parking import Parking
from pipeline.jobs.stage import StageContext
from pipeline.kafka.protocols import Lease
from pipeline.storage import StoreUnavailable

GROUPS: tuple[Stage, ...] = ("process", "watch")
"""The groups that read announcements."""
SLOW_DOWN = TransientError("slow_down", "The input storage answers 503.")


def markers(world: World) -> list[str]:
    return sorted(key for key in world.memory.objects if key.startswith("due/"))


def reported(world: World) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(world.ecs.calls[-1][2])
    return loaded


async def parked_in_process(world: World, **changes: str) -> Record:
    """Announce a job whose input fails until it is parked."""
    record = world.announce(CARDS, **changes)
    world.objects.fail_open += [SLOW_DOWN] * 3
    await world.handle_until_over("process", record)
    assert world.objects.fail_open == []
    return record


async def finish(world: World) -> None:
    """Let UPLOAD and CONFIRM do what is left."""
    left: list[tuple[Stage, Topic]] = [
        ("upload", Topic.BATCH_PROCESSED),
        ("confirm", Topic.BATCH_UPLOADED),
        ("confirm", Topic.BATCH_FAILED),
    ]
    for name, topic in left:
        for record in world.records(topic):
            await world.handle_until_over(name, record)


async def test_after_three_tries_a_job_waits_in_the_store_and_its_record_is_finished() -> None:
    world = World()
    record = world.announce()
    world.objects.fail_open += [SLOW_DOWN] * 3
    second = await world.handle("process", record)
    assert second
    third = await world.handle("process", second)
    assert third
    assert markers(world) == []
    assert await world.handle("process", third) is None

    (key,) = markers(world)
    marker = parse_waiting_marker(key)
    assert marker
    assert (marker.ref, marker.stage, marker.count, marker.code) == (world.ref, "process", 1, "slow_down")
    assert marker.due == BEGIN + timedelta(seconds=30)
    waiting = await world.parking.waiting(world.ref)
    assert waiting
    assert (waiting.code, waiting.message, waiting.tries) == ("slow_down", "The input storage answers 503.", 3)
    assert (waiting.first_at, waiting.at, waiting.due) == (BEGIN, BEGIN, marker.due)
    assert waiting.worker == "here"
    assert "planted" not in repr(waiting)
    assert world.metrics.jobs_parked.labels("acme", "process", "slow_down")._value.get() == 1


async def test_a_job_that_waits_because_of_an_error_without_a_code_is_listed() -> None:
    """A processor may raise such an error, and a job that is not listed would never be published again."""
    world = World()
    await world.parking.park(world.announce(), "process", TransientError("", "later"))
    assert [one.ref async for one in world.parking.parked()] == [world.ref]
    assert await world.parking.resume(world.ref) == 1


async def test_a_due_job_is_published_as_it_was_for_its_own_group_and_goes_on() -> None:
    world = World()
    record = await parked_in_process(world)
    world.clock.forward(seconds=29)
    await world.due.poll()
    assert world.returned(Topic.BATCH_REQUESTED) == []
    world.clock.forward(seconds=1)
    await world.due.poll()
    (copy,) = world.returned(Topic.BATCH_REQUESTED)
    assert markers(world) == []
    assert (copy.key, copy.value) == (record.key, record.value)
    headers = first_values(copy.headers)
    assert headers.items() >= first_values(record.headers).items()
    assert {name: value for name, value in headers.items() if name.startswith("retry_")} == {
        "retry_group": "process",
        "retry_count": "1",
        "retry_first_at": "2026-01-21T12:00:00Z",
        "retry_code": "slow_down",
        "retry_attempt": "1",
        "retry_deadline": (await world.jobs.newest(world.ref)).deadline.isoformat().replace("+00:00", "Z"),
    }
    assert is_for(copy, "process")
    assert not is_for(copy, "watch")
    assert await world.parking.waiting(world.ref) is None

    await world.handle_until_over("process", copy)
    await finish(world)
    assert reported(world)["success"] is True


async def test_each_wait_is_longer_and_the_headers_are_replaced() -> None:
    world = World()
    copy = await parked_in_process(world, expires_at="2026-01-22T12:00:00Z")
    for count, minutes in ((2, 1), (3, 2), (4, 4), (5, 8), (6, 15), (7, 15)):
        world.clock.forward(minutes=15)
        world.bus.published.clear()
        await world.due.poll()
        (copy,) = world.returned(Topic.BATCH_REQUESTED)
        assert [name for name, _ in copy.headers].count("retry_count") == 1
        world.objects.fail_open += [SLOW_DOWN] * 3
        await world.handle_until_over("process", copy)
        waiting = await world.parking.waiting(world.ref)
        assert waiting
        assert (waiting.count, waiting.first_at) == (count, BEGIN)
        assert waiting.due - waiting.at == timedelta(minutes=minutes)


async def test_a_job_never_waits_longer_than_half_of_the_time_it_has_left() -> None:
    world = World()
    await parked_in_process(world)
    for _ in range(5):  # without the bound, the last wait would end at 12:31
        world.clock.forward(minutes=8)
        await world.due.poll()
        world.objects.fail_open += [SLOW_DOWN] * 3
        await world.handle_until_over("process", world.returned(Topic.BATCH_REQUESTED)[-1])
    waiting = await world.parking.waiting(world.ref)
    assert waiting
    left = (await world.jobs.newest(world.ref)).deadline - waiting.at
    assert waiting.due - waiting.at <= left / 2 + timedelta(seconds=1)


async def test_the_waits_of_a_job_whose_deadline_has_passed_grow_too() -> None:
    """For example while PROCESS lacks an integration that CONFIRM has: a copy every half minute would not end."""
    world = World()
    record = world.announce()
    await world.handle_until_over("watch", record)
    world.clock.forward(hours=2)
    unknown = Untried("integration_unknown", "No integration 'acme' is configured in this worker.")
    waits = []
    for count in range(1, 8):
        headers = (*record.headers, ("retry_count", str(count - 1).encode()))
        waiting = await world.parking.park(replace(record, headers=headers), "process", unknown)
        assert waiting
        waits.append((waiting.due - waiting.at).total_seconds())
        world.clock.forward(seconds=waits[-1])
        await world.due.poll()
    assert waits == [30, 60, 120, 240, 480, 900, 900]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (TransientError("slow_down", "503", retry_after=10), None),
        (TransientError("slow_down", "503", retry_after=11), 30),
        (TransientError("slow_down", "503", retry_after=600), 600),
        (Untried("integration_paused", "The integration is paused."), 30),
        (Untried("integration_paused", "The integration is paused.", retry_after=3), 3),
    ],
)
async def test_a_long_pause_or_a_known_condition_parks_at_once(error: TransientError, seconds: int | None) -> None:
    world = World()
    record = world.announce()
    world.objects.fail_open.append(error)
    left = await world.handle("process", record)
    assert (left is None) is (seconds is not None)
    waiting = await world.parking.waiting(world.ref)
    assert (waiting and waiting.due) == (seconds and BEGIN + timedelta(seconds=seconds))


async def test_a_process_whose_clock_is_wrong_parks_nothing() -> None:
    """It would say a wrong time when to try again; the consumer waits by a clock that is never set."""
    world = World()
    world.contradict_clock(minutes=10)

    async def handle(_record: Record, _lease: Lease) -> None:
        raise SLOW_DOWN

    context = StageContext("process", world.jobs, world.bus, world.clock, world.metrics, world.checked)
    with pytest.raises(TransientError):
        await JobHandler(context, handle, world.parking).handle(replace(world.announce(), attempt=9), world.lease)
    assert world.memory.objects == {}


async def test_a_known_condition_is_asked_again_soon_while_the_clock_is_wrong() -> None:
    """The record stays in the consumer, where nothing ends a wait: not the right clock, not a command."""
    world = World()
    world.contradict_clock(minutes=10)

    async def handle(_record: Record, _lease: Lease) -> None:
        raise Untried("integration_paused", "The integration is paused.", retry_after=86_400)

    context = StageContext("process", world.jobs, world.bus, world.clock, world.metrics, world.checked)
    with pytest.raises(Untried) as caught:
        await JobHandler(context, handle, world.parking).handle(world.announce(), world.lease)
    assert (caught.value.code, caught.value.retry_after) == ("integration_paused", None)


async def test_nobody_parks_without_the_lease() -> None:
    world = World()

    async def handle(_record: Record, _lease: Lease) -> None:
        world.lease.left = -1
        raise Untried("integration_paused", "The integration is paused.")

    context = StageContext("process", world.jobs, world.bus, world.clock, world.metrics)
    with pytest.raises(LeaseLost):
        await JobHandler(context, handle, world.parking).handle(world.announce(), world.lease)
    assert world.memory.objects == {}


async def test_what_has_no_job_in_its_key_is_tried_again_in_the_process() -> None:
    world = World()
    record = replace(world.announce(), key="")

    async def handle(_record: Record, _lease: Lease) -> None:
        raise SLOW_DOWN

    context = StageContext("process", world.jobs, world.bus, world.clock, world.metrics)
    with pytest.raises(TransientError):
        await JobHandler(context, handle, world.parking).handle(replace(record, attempt=9), world.lease)


async def test_a_store_that_is_unavailable_leaves_the_record_with_the_consumer() -> None:
    world = World()
    record = replace(world.announce(), attempt=3)
    world.memory.unavailable = True
    with pytest.raises(StoreUnavailable):
        await world.handler("process").handle(record, world.lease)


# --- crashes and races ---------------------------------------------------------------------------------------------


async def test_a_death_between_receipt_and_marker_is_repaired_by_the_redelivery() -> None:
    """The offset was not committed, so the record is delivered and tried again, and waits with the next count."""
    world = World()
    record = await parked_in_process(world)
    (marker,) = markers(world)
    del world.memory.objects[marker]
    world.clock.forward(seconds=10)
    world.restart()
    world.objects.fail_open += [SLOW_DOWN] * 3
    await world.handle_until_over("process", record)
    waiting = await world.parking.waiting(world.ref)
    assert waiting
    assert (waiting.count, waiting.at) == (2, BEGIN + timedelta(seconds=10))
    assert markers(world) == [waiting.marker.key]


async def test_a_death_between_publication_and_removal_publishes_a_copy_that_finds_the_receipts() -> None:
    world = World()
    await parked_in_process(world)
    world.clock.forward(seconds=30)
    (marker,) = markers(world)
    await world.due.poll()
    world.memory.objects[marker] = b""
    await world.due.poll()
    first, second = world.returned(Topic.BATCH_REQUESTED)
    assert (first.value, first.headers) == (second.value, second.headers)
    for copy in (first, second):
        await world.handle_until_over("process", copy)
    await finish(world)
    assert len(world.objects.opened) == 4
    assert len(world.objects.put) == len(world.ecs.calls) == 1


async def test_two_copies_that_fail_wait_as_one() -> None:
    """Otherwise each duplicate would start a chain of its own."""
    world = World()
    await parked_in_process(world)
    world.clock.forward(seconds=30)
    (marker,) = markers(world)
    await world.due.poll()
    world.memory.objects[marker] = b""
    await world.due.poll()
    for copy in world.returned(Topic.BATCH_REQUESTED):
        world.objects.fail_open += [SLOW_DOWN] * 3
        await world.handle_until_over("process", copy)
    assert len(markers(world)) == 1


async def test_a_copy_that_fails_before_its_marker_is_gone_waits_again() -> None:
    """A stage may have the copy, and park it, before the store has deleted the marker of the wait that is over."""
    world = World()
    await parked_in_process(world)
    world.clock.forward(seconds=30)
    publish = world.bus.publish

    async def publish_to_a_quick_stage(record: OutgoingRecord) -> RecordPosition:
        position = await publish(record)
        if record.topic == Topic.BATCH_REQUESTED:
            world.objects.fail_open.append(Untried("circuit_open", "The input storage answers 503.", retry_after=60))
            await world.handle_until_over("process", world.returned(Topic.BATCH_REQUESTED)[-1])
        return position

    world.bus.publish = publish_to_a_quick_stage  # type: ignore[method-assign]
    await world.due.poll()
    (key,) = markers(world)
    marker = parse_waiting_marker(key)
    assert marker
    assert (marker.count, marker.due) == (2, BEGIN + timedelta(seconds=90))


async def test_a_late_copy_does_not_bring_back_a_wait_that_is_over() -> None:
    world = World()
    record = await parked_in_process(world)
    world.clock.forward(seconds=30)
    await world.due.poll()
    world.objects.fail_open += [SLOW_DOWN] * 3
    await world.handle_until_over("process", world.returned(Topic.BATCH_REQUESTED)[0])
    (second,) = markers(world)
    world.objects.fail_open += [SLOW_DOWN] * 3
    await world.handle_until_over("process", record)  # its first delivery was never committed
    assert markers(world) == [second]


async def test_another_copy_of_a_waiting_record_is_not_tried_before_its_time() -> None:
    """The deadline watch, for example, publishes an outcome again; `Retry-After` applies to that copy too."""
    world = World()
    await world.handle_until_over("process", world.announce())
    await world.handle_until_over("upload", world.records(Topic.BATCH_PROCESSED)[0])
    (record,) = world.records(Topic.BATCH_UPLOADED)
    for waits in (1, 2):
        world.ecs.answers += [TransientError("callback_busy", "503", retry_after=20)]
        await world.handle_until_over("confirm", (world.returned(Topic.BATCH_UPLOADED) or [record])[-1])
        world.clock.forward(seconds=19)
        await world.handle_until_over("confirm", replace(record, offset=99))
        assert len(world.ecs.calls) == waits
        world.clock.forward(seconds=1)
        await world.due.poll()
    await world.handle_until_over("confirm", replace(record, offset=99))  # it waits no longer
    assert len(world.ecs.calls) == 3
    assert await world.jobs.notification_result(world.ref)


async def test_a_copy_is_tried_if_the_receipt_of_its_wait_is_damaged() -> None:
    world = World()
    record = await parked_in_process(world)
    for key in [key for key in world.memory.objects if "/waiting/" in key]:
        world.memory.objects[key] = b"{"
    await world.handle_until_over("process", record)
    assert await world.jobs.processed(world.ref)


async def test_of_two_watches_the_owner_publishes_and_the_other_one_only_when_that_is_late() -> None:
    world = World()
    await parked_in_process(world)
    world.owned = False
    world.clock.forward(seconds=59)
    await world.due.poll()
    assert world.returned(Topic.BATCH_REQUESTED) == []
    world.clock.forward(seconds=1)
    await world.due.poll()
    assert len(world.returned(Topic.BATCH_REQUESTED)) == 1


async def test_two_watches_at_the_same_time_do_no_harm() -> None:
    world = World()
    await parked_in_process(world)
    world.clock.forward(seconds=30)
    await asyncio.gather(world.due.poll(), world.due.poll())
    assert len(world.returned(Topic.BATCH_REQUESTED)) in {1, 2}
    assert markers(world) == []


async def test_two_announcements_of_a_job_wait_side_by_side() -> None:
    """A wait that replaced another one could lose the URLs of the second announcement."""
    world = World()
    world.restart(integrations=())
    await world.handle_until_over("process", world.announce())
    await world.handle_until_over("process", world.announce(expires_at="2026-01-21T18:00:00Z"))
    assert len(markers(world)) == 2
    world.clock.forward(minutes=1)
    world.restart()
    await world.due.poll()
    for copy in world.returned(Topic.BATCH_REQUESTED):
        await world.handle_until_over("process", copy)
    assert len(await world.jobs.announcements(world.ref)) == 2


async def test_a_renewal_overtakes_a_parked_job_and_the_parked_copy_finds_the_receipt() -> None:
    world = World()
    await parked_in_process(world)
    await world.handle_until_over("process", world.announce(expires_at="2026-01-21T18:00:00Z"))
    await finish(world)
    assert reported(world)["success"] is True
    assert await world.parking.waiting(world.ref)
    opened = len(world.objects.opened)
    world.clock.forward(seconds=30)
    await world.due.poll()
    await world.handle_until_over("process", world.returned(Topic.BATCH_REQUESTED)[0])
    await finish(world)
    assert len(world.objects.opened) == opened
    assert len(world.objects.put) == len(world.ecs.calls) == 1
    assert markers(world) == []


async def test_the_deadline_ends_a_parked_job_in_time() -> None:
    world = World()
    record = world.announce()
    await world.handle_until_over("watch", record)
    for _ in range(8):
        world.objects.fail_open = [SLOW_DOWN] * 3
        await world.handle_until_over("process", record)
        world.clock.forward(minutes=8)
        await world.watch.poll()
        world.bus.published = [one for one in world.bus.published if "retry_group" not in first_values(one.headers)]
        await world.due.poll()
        record = (world.returned(Topic.BATCH_REQUESTED) or [record])[-1]
    await finish(world)
    assert len(world.ecs.calls) == 1
    assert reported(world)["success"] is False
    outcome = await world.jobs.outcome(world.ref)
    assert outcome
    assert (outcome.decided_by, outcome.reason) == ("watch", "deadline_passed")
    assert markers(world) == []


async def test_a_second_attempt_waits_by_itself() -> None:
    world = World(policies={"reannouncement_after_failure": "new_attempt"})
    await world.run(world.announce(b"<html>"))
    await parked_in_process(world, expires_at="2026-01-21T14:00:00Z")
    assert await world.parking.waiting(world.ref) is None
    waiting = await world.parking.waiting(JobRef("acme", JOB, 2))
    assert waiting
    assert waiting.attempt == 2


# --- other stages --------------------------------------------------------------------------------------------------


async def test_an_upload_waits_and_goes_on() -> None:
    world = World()
    await world.handle_until_over("process", world.announce())
    world.objects.fail_put += [TransientError("upload_unanswered", "no answer")] * 3
    await world.handle_until_over("upload", world.records(Topic.BATCH_PROCESSED)[0])
    world.clock.forward(seconds=30)
    await world.due.poll()
    (copy,) = world.returned(Topic.BATCH_PROCESSED)
    assert is_for(copy, "upload")
    await world.handle_until_over("upload", copy)
    await finish(world)
    assert reported(world)["success"] is True


async def test_a_callback_waits_as_long_as_its_own_retry_says_and_every_try_has_a_number() -> None:
    world = World()
    await world.handle_until_over("process", world.announce())
    await world.handle_until_over("upload", world.records(Topic.BATCH_PROCESSED)[0])
    world.ecs.answers += [TransientError("callback_busy", "503", retry_after=20)]
    await world.handle_until_over("confirm", world.records(Topic.BATCH_UPLOADED)[0])
    waiting = await world.parking.waiting(world.ref)
    assert waiting
    assert (waiting.stage, waiting.due) == ("confirm", BEGIN + timedelta(seconds=20))
    world.clock.forward(seconds=20)
    await world.due.poll()
    await world.handle_until_over("confirm", world.returned(Topic.BATCH_UPLOADED)[0])
    result = await world.jobs.notification_result(world.ref)
    assert result
    assert (result.told, result.tries) == ("confirmed", 2)


# --- unknown integrations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [0.5, 100])
async def test_jobs_of_an_integration_that_is_not_configured_yet_go_on_by_themselves(hours: float) -> None:
    """Also after the deadline: then ECS is notified of the failure. No command, no dead letter."""
    world = World()
    world.restart(integrations=())
    record = replace(world.announce(), timestamp_ms=int(BEGIN.timestamp() * 1000))
    for name in GROUPS:
        await world.handle_until_over(name, record)
    assert [key.rpartition(".")[2] for key in markers(world)] == ["integration_unknown"] * 2
    await world.due.count()
    assert world.metrics.jobs_waiting.labels("unknown", "integration_unknown")._value.get() == 2
    assert world.metrics.parked_overdue_seconds._value.get() == 0
    world.clock.forward(hours=hours)
    await world.due.poll()
    assert world.bus.published == []
    world.restart()
    await world.due.count()
    assert world.metrics.parked_overdue_seconds._value.get() == hours * 3600 - 30
    await world.due.poll()
    for copy in world.returned(Topic.BATCH_REQUESTED):
        copied = replace(copy, timestamp_ms=int(world.clock().timestamp() * 1000))
        for name in GROUPS:
            if is_for(copied, name):
                await world.handle_until_over(name, copied)
    await finish(world)
    assert len(world.ecs.calls) == 1
    assert reported(world)["success"] is (hours < 1)
    assert markers(world) == []
    # the deadline is that of the first record, although its copy is younger
    assert (await world.jobs.newest(world.ref)).deadline <= BEGIN + timedelta(hours=1)


@pytest.mark.parametrize("name", ["upload", "confirm"])
async def test_later_stages_of_an_unknown_integration_wait_too(name: Stage) -> None:
    world = World()
    await world.handle_until_over("process", world.announce())
    await world.handle_until_over("upload", world.records(Topic.BATCH_PROCESSED)[0])
    topic = Topic.BATCH_PROCESSED if name == "upload" else Topic.BATCH_UPLOADED
    world.restart(integrations=())
    await world.handle_until_over(name, world.records(topic)[0])
    world.restart()
    world.clock.forward(seconds=30)
    await world.due.poll()
    assert [is_for(copy, name) for copy in world.returned(topic)] == [True]


async def test_a_copy_for_an_unknown_integration_keeps_the_first_time_for_its_longest_duration() -> None:
    """`max_job_hours` counts from the first record, however late its copy is appended."""
    world = World(limits={"max_job_hours": 1})
    world.restart(integrations=())
    first = replace(world.announce(expires_at="2026-01-30T12:00:00Z"), timestamp_ms=int(BEGIN.timestamp() * 1000))
    await world.handle_until_over("process", first)
    world.restart()
    world.clock.forward(minutes=30)
    await world.due.poll()
    copy = replace(world.returned(Topic.BATCH_REQUESTED)[0], timestamp_ms=int(world.clock().timestamp() * 1000))
    await world.handle_until_over("process", copy)
    assert (await world.jobs.newest(world.ref)).deadline == BEGIN + timedelta(hours=1)


# --- commands, and what is wrong in the store ----------------------------------------------------------------------


async def test_a_thousand_parked_jobs_are_resumed_by_one_call() -> None:
    world = World()
    jobs = [UUID(int=number, version=4) for number in range(1, 1001)]
    for job in jobs:
        await world.parking.park(world.announce(job_guid=str(job)), "process", SLOW_DOWN)
    assert await world.parking.resume("other") == 0
    assert await world.parking.resume("acme", stage="upload") == 0
    assert await world.parking.resume("acme", code="integration_paused") == 0
    await world.due.poll()
    assert world.returned(Topic.BATCH_REQUESTED) == []
    assert await world.parking.resume("acme", stage="process", code="slow_down") == 1000
    assert await world.parking.resume("acme") == 0
    await world.due.poll()
    assert len({copy.key for copy in world.returned(Topic.BATCH_REQUESTED)}) == 1000
    assert markers(world) == []


async def test_jobs_that_cannot_be_published_hold_up_no_others() -> None:
    """For example those of a partition without a leader, or of a topic that is missing."""
    world = World()
    jobs = [str(UUID(int=number, version=4)) for number in range(1, 101)]
    for number, job in enumerate(jobs):
        await world.parking.park(world.announce(job_guid=job), "process", SLOW_DOWN)
        world.clock.forward(seconds=number == 39)  # the first 40 are due first
    world.clock.forward(minutes=1)
    stuck = {f"acme/{job}" for job in jobs[:40]}
    world.bus.fail = lambda record: TransientError("broker_unavailable", "") if record.key in stuck else None
    for _ in range(5):
        with suppress(TransientError):
            await world.due.poll()
    assert {copy.key for copy in world.returned(Topic.BATCH_REQUESTED)} == {f"acme/{job}" for job in jobs[40:]}
    world.bus.fail = lambda _: None
    await world.due.poll()
    assert len(world.returned(Topic.BATCH_REQUESTED)) == 100
    assert markers(world) == []


async def test_the_last_of_more_than_ten_thousand_waits_is_found() -> None:
    world = World()
    for count in (b"9998", b"9999", b"10000"):
        record = world.announce(CARDS)
        copy = replace(record, headers=(*record.headers, ("retry_count", count)))
        for key in markers(world):
            del world.memory.objects[key]
        assert await world.parking.park(copy, "process", SLOW_DOWN)
        world.clock.forward(seconds=1)
    waiting = await world.parking.waiting(world.ref)
    assert waiting
    assert waiting.count == 10001
    assert [marker.count async for marker in world.parking.parked()] == [10001]


async def test_one_job_is_resumed_or_dropped_alone() -> None:
    world = World()
    other = JobRef("acme", UUID(int=7, version=4))
    for job in (JOB, other.job_guid):
        await world.parking.park(world.announce(job_guid=str(job)), "process", SLOW_DOWN)
    assert await world.parking.resume(world.ref) == 1
    await world.due.poll()
    assert [copy.key for copy in world.returned(Topic.BATCH_REQUESTED)] == [f"acme/{JOB}"]
    assert await world.parking.drop(world.ref) == 0
    assert await world.parking.drop(other) == 1
    assert await world.parking.waiting(other) is None
    assert markers(world) == []


async def test_foreign_objects_and_a_damaged_receipt_hold_up_no_other_job() -> None:
    world = World()
    good = UUID(int=7, version=4)
    for job in (JOB, good):
        await world.parking.park(world.announce(job_guid=str(job)), "process", SLOW_DOWN)
    damaged = next(key for key in world.memory.objects if f"{JOB}/waiting/" in key)
    world.memory.objects[damaged] = b"{"
    for foreign in (
        "due/README",
        "due/20261399999999/acme/x",
        f"due/20261399999999/acme/{JOB}.1.process-0123456789abcdef-0001.a",
    ):
        world.memory.objects[foreign] = b""
    world.clock.forward(seconds=30)
    await world.due.poll()
    assert [copy.key for copy in world.returned(Topic.BATCH_REQUESTED)] == [f"acme/{good}"]
    await world.due.count()
    assert world.metrics.jobs_waiting.labels("acme", "slow_down")._value.get() == 1


@pytest.mark.parametrize("name", ["announcements/", "waiting/"])
async def test_a_job_whose_data_is_damaged_can_wait(name: str) -> None:
    """Damage is a reason to wait, so it must not prevent the wait."""
    world = World()
    await world.handle_until_over("process", world.announce())
    for key in [key for key in world.memory.objects if key.startswith(f"jobs/acme/{JOB}/announcements/")]:
        world.memory.objects[key] = b"{"
    world.memory.objects[f"jobs/acme/{JOB}/{name}foreign"] = b"{"
    assert await world.parking.park(world.announce(), "process", SLOW_DOWN)
    assert len(markers(world)) == 1
    assert await world.parking.waiting(world.ref)


async def test_a_marker_whose_receipt_was_deleted_is_removed() -> None:
    world = World()
    await parked_in_process(world)
    for key in [key for key in world.memory.objects if "/waiting/" in key]:
        del world.memory.objects[key]
    world.clock.forward(seconds=30)
    await world.due.poll()
    assert markers(world) == []
    assert world.returned(Topic.BATCH_REQUESTED) == []


async def look_until_published(world: World) -> None:
    """Look for due jobs, as CONFIRM does, until one is published."""
    task = asyncio.create_task(world.due.run())
    async with asyncio.timeout(5):
        while not world.returned(Topic.BATCH_REQUESTED):  # noqa: ASYNC110 - the bus is a plain list
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "error", [Overloaded("overloaded", "too many sends"), TransientError("broker_unavailable", "")]
)
async def test_a_broker_that_is_unavailable_delays_the_watch(error: Overloaded | TransientError) -> None:
    world = World()
    await parked_in_process(world)
    world.clock.forward(seconds=30)
    failures = [error, error]
    world.bus.fail = lambda _: failures.pop() if failures else None
    await look_until_published(world)
    assert failures == []


async def test_an_unexpected_error_delays_the_watch_and_is_logged_without_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the process of CONFIRM would end, and with it the callbacks of all other jobs."""
    world = World()
    await parked_in_process(world)
    world.clock.forward(seconds=30)
    parked, failures = world.parking.parked, [ValueError("9999990000000006")]

    def broken() -> AsyncIterator[WaitingMarker]:
        if failures:
            raise failures.pop()
        return parked()

    monkeypatch.setattr(world.parking, "parked", broken)
    with capture_logs() as logs:
        await look_until_published(world)
    (line,) = [one for one in logs if one["event"] == "watch_failed"]
    assert line["error"] == "ValueError"
    assert "9999990000000006" not in str(logs)


@pytest.mark.parametrize("count", [b"", b"x", b"\xff", b"-1", b"9" * 5000])
async def test_a_header_that_another_writer_made_is_no_count(count: bytes) -> None:
    world = World()
    record = world.announce()
    headers = (*record.headers, ("retry_count", count), ("retry_first_at", b"yesterday"))
    waiting = await world.parking.park(replace(record, headers=headers), "process", SLOW_DOWN)
    assert waiting
    assert (waiting.count, waiting.first_at) == (1, BEGIN)


async def test_the_host_is_the_worker_unless_named() -> None:
    world = World()
    waiting = await Parking(world.jobs, world.clock).park(world.announce(), "process", SLOW_DOWN)
    assert waiting
    assert waiting.worker

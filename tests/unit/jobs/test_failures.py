"""What ends in a failure callback, and what is tried again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.job_world import CARDS, World

from pipeline.contracts import Topic
from pipeline.errors import LeaseLost, PermanentError, TransientError
from pipeline.jobs.transfer import SourceRefused


def reported(world: World) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(world.ecs.calls[-1][2])
    return loaded


@pytest.mark.parametrize(
    ("data", "changes", "words"),
    [
        (b"<!DOCTYPE html><html></html>", {}, "HTML"),
        (CARDS, {"record_count": 2}, "more records than announced"),
        (CARDS, {"record_count": 4}, "holds 3 records, but record_count announces 4"),
        (b"card_number\n", {}, "no data record"),
        (b"", {}, "no data record"),
        (b'card_number,note\n1,"open\n', {"record_count": 1}, "line 2"),
        (CARDS, {"expires_at": "2026-01-21T11:00:00Z"}, "before its URLs expired"),
    ],
)
async def test_what_cannot_be_done_ends_in_a_failure_callback(
    data: bytes, changes: dict[str, object], words: str
) -> None:
    """The reason is in error_message, in words that ECS's support understands; nothing is uploaded."""
    world = World()
    await world.run(world.announce(data, **changes))
    assert reported(world)["success"] is False
    assert words in reported(world)["error_message"]
    assert world.objects.put == []
    assert json.loads(world.bus.on(Topic.BATCH_COMPLETED)[-1].value)["outcome"] == "failed"


@pytest.mark.parametrize(
    ("policies", "data", "changes"),
    [
        ({"record_count_mismatch": "warn"}, CARDS, {"record_count": 9}),
        ({"empty_file": "complete"}, b"card_number\n", {}),
        ({}, b"card_number\n", {"record_count": 0}),
        ({"max_failed_share": 0.34}, CARDS, {}),
    ],
)
async def test_policies_can_let_a_job_complete(
    policies: dict[str, object], data: bytes, changes: dict[str, object]
) -> None:
    world = World(policies=policies)
    await world.run(world.announce(data, **changes))
    assert reported(world)["success"] is True
    assert len(world.objects.put) == 1


async def test_too_large_a_share_of_failed_cards_fails_the_job_with_its_counts() -> None:
    world = World(policies={"max_failed_share": 0.33})
    await world.run(world.announce())
    assert reported(world) == {
        "success": False,
        "records_processed": 3,
        "records_failed": 1,
        "error_message": "1 of 3 cards failed, more than the agreed share of 33.0%; no result was uploaded.",
    }


async def test_records_processed_may_count_only_cards_that_are_ok() -> None:
    world = World(policies={"records_processed": "ok"})
    await world.run(world.announce())
    assert reported(world)["records_processed"] == 2


async def test_a_transient_error_leaves_the_job_undecided_and_the_next_delivery_does_it() -> None:
    world = World()
    record = world.announce()
    world.objects.fail_open.append(TransientError("slow_down", "SlowDown", retry_after=5))
    with pytest.raises(TransientError, match="slow_down"):
        await world.deliver(world.process, record)
    assert await world.jobs.outcome(world.ref) is None
    await world.run(world.again(record))
    assert reported(world)["success"] is True


async def test_a_file_that_is_refused_for_good_fails_the_job() -> None:
    world = World()
    record = world.announce()
    world.objects.fail_open.append(SourceRefused("source_expired", "The input URL has expired."))
    await world.run(record)
    assert reported(world)["error_message"] == (
        "The input URL has expired. Announce the cards as a new job: announced again, this job keeps its outcome."
    )


async def test_a_refused_upload_fails_the_job_with_all_cards_counted() -> None:
    world = World()
    record = world.announce()
    world.objects.fail_put.append(PermanentError("upload_refused", "The store refused the result."))
    await world.run(record)
    assert reported(world) == {
        "success": False,
        "records_processed": 3,
        "records_failed": 1,
        "error_message": "The store refused the result.",
    }


async def test_an_upload_whose_answer_was_lost_is_repeated_with_the_same_bytes() -> None:
    world = World()
    world.objects.fail_put.append(TransientError("upload_unanswered", "no answer"))
    record = world.announce()
    with pytest.raises(TransientError):
        await world.run(record)
    await world.run(record)
    first, second = world.objects.put
    assert first == second
    assert reported(world)["success"] is True


async def test_a_lost_lease_stops_before_the_next_effect_and_leaves_no_outcome() -> None:
    """However many effects were allowed before, losing the lease never decides or uploads anything."""
    for allowed in range(8):
        world = World(csv_limits={"chunk_records": 1})
        record = world.announce()
        world.lease.left = allowed
        with pytest.raises(LeaseLost):
            await world.run(record)
        assert await world.jobs.outcome(world.ref) is None
        world.lease.left = None
        await world.run(record)
        assert reported(world)["success"] is True


async def test_another_merchant_under_a_known_job_is_a_conflict_and_changes_nothing() -> None:
    world = World()
    await world.deliver(world.process, world.announce())
    other = world.announce(merchant_guid="99999999-9999-4999-8999-999999999999")
    await world.deliver(world.process, other)
    assert "job.conflict" in world.bus.audit()
    assert len(world.bus.on(Topic.BATCH_PROCESSED)) == 1
    assert len(world.objects.opened) == 1


async def test_a_stage_whose_clock_is_ahead_fails_no_job_for_its_deadline() -> None:
    """It is tried again in the process: a wrong clock cannot say when a parked job is due."""
    world = World()
    record = world.announce()
    world.clock.forward(minutes=64)
    world.contradict_clock(minutes=10)
    with pytest.raises(TransientError, match="clock_wrong"):
        await world.deliver(world.process, record)
    assert await world.jobs.outcome(world.ref) is None
    world.contradict_clock(minutes=0)
    await world.deliver(world.process, record)
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.reason == "deadline_passed"


async def test_a_corrected_announcement_before_the_outcome_is_answered_by_the_first_notification() -> None:
    world = World()
    first = world.announce()
    with capture_logs() as logs:
        await world.deliver(world.process, first)
        await world.deliver(world.process, world.announce(record_count=4))
    assert world.metrics.announcement_conflicts.labels("acme")._value.get() == 1
    (line,) = [one for one in logs if one["event"] == "announcement_conflict"]
    assert (line["log_level"], line["differences"]) == ("error", ["record_count: 3, now 4"])
    await world.run(first)
    assert len(world.ecs.calls) == 1


@pytest.mark.parametrize("data", [CARDS, b"<html>"])
async def test_a_corrected_announcement_after_the_outcome_repeats_the_notification(data: bytes) -> None:
    """The partner must not wait for the job that it announced again in vain; it hears the same outcome once more."""
    world = World()
    await world.run(world.announce(data))
    world.clock.forward(minutes=5)
    for _ in range(2):  # a redelivery changes nothing
        await world.run(world.announce(data, record_count=4))
        world.restart()
    assert len(world.ecs.calls) == 2
    assert world.ecs.calls[0] == world.ecs.calls[1]
    assert world.bus.audit().count("job.conflict") == 1
    assert len(await world.jobs.conflicts(world.ref)) == 1

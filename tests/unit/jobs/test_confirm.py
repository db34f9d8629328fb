"""Notifying the partner: one body, one id, until it confirms or refuses."""

from __future__ import annotations

import json

import pytest
from support.job_world import World

from pipeline.contracts import Topic
from pipeline.errors import LeaseLost, PermanentError, TransientError
from pipeline.jobs.partners import Answer

LOST = TransientError("callback_unanswered", "the answer was lost")
BUSY = TransientError("callback_busy", "503", retry_after=1)
UNCLEAR = TransientError("callback_unclear", "a maintenance page")
EXPIRED = TransientError("token_expired", "the callback token expired")
CONFLICT = Answer("refused", 409, "callback_conflict", "already received")


async def notified_after(world: World, *answers: Answer | TransientError | PermanentError) -> str | None:
    """Deliver until the notification ended; return how."""
    world.ecs.answers = list(answers)
    record = world.announce()
    for _ in range(len(answers) + 1):
        try:
            await world.run(record)
        except TransientError:
            world.restart()
    told = await world.jobs.notification_result(world.ref)
    return told.told if told else None


async def test_all_tries_are_equal_in_body_and_request_id() -> None:
    world = World()
    assert await notified_after(world, BUSY, LOST, BUSY) == "confirmed"
    assert len(world.ecs.calls) == 4
    assert len(set(world.ecs.calls)) == 1


@pytest.mark.parametrize(
    ("before", "result"), [((LOST,), "confirmed"), ((UNCLEAR,), "confirmed"), ((BUSY,), "refused"), ((), "refused")]
)
async def test_a_conflict_counts_as_a_confirmation_only_after_a_try_whose_answer_is_unknown(
    before: tuple[TransientError, ...], result: str
) -> None:
    assert await notified_after(World(), *before, CONFLICT) == result


async def test_a_try_that_died_before_its_answer_makes_a_conflict_count_as_a_confirmation() -> None:
    """The try was recorded before it was sent, so a restarted worker knows that it may have been heard."""
    world = World()
    record = world.announce()
    world.ecs.answers = [CONFLICT]
    await world.deliver(world.process, record)
    await world.deliver(world.upload, world.records(Topic.BATCH_PROCESSED)[0])
    uploaded = world.records(Topic.BATCH_UPLOADED)[0]
    world.lease.left = 1
    with pytest.raises(LeaseLost):
        await world.confirm.handle(uploaded, world.lease)
    world.lease.left = None
    await world.confirm.handle(uploaded, world.lease)
    told = await world.jobs.notification_result(world.ref)
    assert told is not None
    assert (told.told, told.tries) == ("confirmed", 2)


async def test_a_refused_callback_is_parked_with_its_reason_and_keeps_the_parts() -> None:
    world = World()
    assert await notified_after(world, Answer("refused", 404, "callback_refused", "unknown job")) == "refused"
    assert "callback.refused" in world.bus.audit()
    assert json.loads(world.bus.on(Topic.BATCH_COMPLETED)[-1].value)["told"] == "refused"
    keys = list(world.memory.objects)
    assert any("/parts/" in key for key in keys)
    assert any(key.startswith("purge/202601281200/acme/") for key in keys)


async def test_a_callback_address_that_is_not_allowed_is_parked_without_a_request() -> None:
    world = World()
    assert await notified_after(world, PermanentError("address_refused", "callback_url: not allowed")) == "refused"


async def test_retries_go_on_after_the_urls_expired_and_end_with_the_configured_time() -> None:
    """The last try is the first one at or after the end; its answer is the reason."""
    world = World(policies={"callback_retry_seconds": 7200})
    record = world.announce()
    world.ecs.answers = [BUSY, BUSY, BUSY]
    with pytest.raises(TransientError):
        await world.run(record)
    world.clock.forward(hours=2)
    with pytest.raises(TransientError):
        await world.run(record)
    world.clock.forward(hours=1)
    await world.run(record)
    told = await world.jobs.notification_result(world.ref)
    assert told is not None
    assert (told.told, told.code, told.tries) == ("refused", "callback_deadline", 3)
    assert told.detail == "no callback was accepted before the retries ended; the last try: callback_busy: 503"


async def test_a_process_whose_clock_is_ahead_does_not_end_the_retries() -> None:
    world = World(policies={"callback_retry_seconds": 7200})
    record = world.announce()
    world.ecs.answers = [BUSY, BUSY]
    with pytest.raises(TransientError):
        await world.run(record)
    world.clock.forward(hours=3)
    world.contradict_clock(minutes=10)
    for _ in range(3):
        with pytest.raises(TransientError, match="clock_wrong"):
            await world.run(record)
    assert len(world.ecs.calls) == 2
    world.contradict_clock(minutes=0)
    await world.run(record)
    told = await world.jobs.notification_result(world.ref)
    assert told is not None
    assert (told.told, told.code) == ("refused", "callback_deadline")


async def test_a_process_that_dies_in_the_last_try_sends_no_further_one() -> None:
    world = World(policies={"callback_retry_seconds": 7200})
    record = world.announce()
    await world.deliver(world.process, record)
    await world.deliver(world.upload, world.records(Topic.BATCH_PROCESSED)[0])
    world.clock.forward(hours=3)
    uploaded = world.records(Topic.BATCH_UPLOADED)[0]
    world.lease.left = 1
    with pytest.raises(LeaseLost):
        await world.confirm.handle(uploaded, world.lease)
    world.lease.left = None
    await world.confirm.handle(uploaded, world.lease)
    told = await world.jobs.notification_result(world.ref)
    assert told is not None
    assert (told.told, told.code, told.tries) == ("refused", "callback_deadline", 1)
    assert world.ecs.calls == []


async def test_an_expiry_in_the_far_future_does_not_keep_a_callback_for_ever() -> None:
    """The ingress refuses such an announcement, but the record may be older than the limit, or not the ingress' own."""
    world = World(policies={"callback_retry_seconds": 7200}, limits={"max_expiry_days": 2})
    record = world.announce(expires_at="2199-12-31T23:59:59Z")
    world.ecs.answers = [BUSY, BUSY]
    with pytest.raises(TransientError):
        await world.run(record)
    world.clock.forward(days=2, hours=2)
    await world.run(record)
    told = await world.jobs.notification_result(world.ref)
    assert told is not None
    assert (told.told, told.code) == ("refused", "callback_deadline")


async def test_a_callback_that_cannot_be_sent_now_is_held_and_does_not_count_as_a_try() -> None:
    """An expired token: ECS would answer 401. The callback waits past the end of its retries, then it is sent."""
    world = World(policies={"callback_retry_seconds": 7200})
    record = world.announce()
    world.ecs.hindrance = EXPIRED
    for hours in (0, 5, 24):
        world.clock.forward(hours=hours)
        with pytest.raises(TransientError, match="token_expired"):
            await world.run(record)
    assert world.ecs.calls == []
    assert await world.jobs.notification_attempts(world.ref) == (0, False)
    world.ecs.hindrance = None
    await world.run(record)
    told = await world.jobs.notification_result(world.ref)
    assert told is not None
    assert (told.told, told.tries) == ("confirmed", 1)


async def test_a_callback_that_was_tried_before_it_was_held_is_sent_once_more() -> None:
    world = World(policies={"callback_retry_seconds": 7200})
    record = world.announce()
    world.ecs.answers = [BUSY]
    with pytest.raises(TransientError, match="callback_busy"):
        await world.run(record)
    world.ecs.hindrance = EXPIRED
    world.clock.forward(hours=24)
    with pytest.raises(TransientError, match="token_expired"):
        await world.run(record)
    world.ecs.hindrance = None
    await world.run(record)
    told = await world.jobs.notification_result(world.ref)
    assert told is not None
    assert (told.told, told.tries) == ("confirmed", 2)


async def test_a_held_callback_ends_before_the_store_may_delete_its_receipts() -> None:
    world = World()
    record = world.announce()
    world.ecs.hindrance = EXPIRED
    with pytest.raises(TransientError):
        await world.run(record)
    world.clock.forward(days=15)
    await world.run(record)
    told = await world.jobs.notification_result(world.ref)
    assert told is not None
    assert (told.told, told.code, told.tries) == ("refused", "token_expired", 0)
    assert world.ecs.calls == []


async def test_a_job_announced_again_after_its_outcome_causes_one_more_equal_callback() -> None:
    """Repeat policy: one more notification, equal to the first; the outcome stays."""
    world = World()
    await world.run(world.announce(b"<html>"))
    world.clock.forward(minutes=5)
    await world.run(world.announce(expires_at="2026-01-21T15:00:00Z"))
    assert len(world.ecs.calls) == 2
    assert world.ecs.calls[0] == world.ecs.calls[1]


async def test_a_refused_job_that_is_notified_again_with_success_ends_as_confirmed_and_leaves_no_card_data() -> None:
    world = World()
    assert await notified_after(world, Answer("refused", 404, "callback_refused", "unknown job")) == "refused"
    ended = await world.jobs.final_result(world.ref)
    assert ended is not None
    assert ended.told == "refused"
    world.clock.forward(minutes=5)
    await world.run(world.announce(expires_at="2026-01-21T15:00:00Z"))
    ended = await world.jobs.final_result(world.ref)
    assert ended is not None
    assert ended.told == "confirmed"
    assert not any("/parts/" in key for key in world.memory.objects)


async def test_a_failed_job_announced_again_is_tried_again_where_configured() -> None:
    world = World(policies={"reannouncement_after_failure": "new_attempt"})
    await world.run(world.announce(b"<html>"))
    world.clock.forward(minutes=5)
    second = world.announce(expires_at="2026-01-21T15:00:00Z")
    await world.run(second)
    world.restart()
    await world.run(second)
    assert [json.loads(call[2])["success"] for call in world.ecs.calls] == [False, True]
    assert len(world.objects.put) == 1

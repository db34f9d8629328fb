"""What operators' commands do to a job, while stages work on it or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import pytest
from support.job_world import BEGIN, CARDS, JOB, PART_CIPHER, World

from pipeline.contracts import Record, Topic
from pipeline.errors import TransientError, Untried
from pipeline.jobs.announcements import IntegrationUnknown, JobRules
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.operations import Operations, Refused, check_notify, check_retry
from pipeline.jobs.parking import Parking
from pipeline.jobs.part_store import PartStore
from pipeline.jobs.partners import Answer
from pipeline.jobs.receipts import Manifest
from pipeline.jobs.stage import StageContext
from pipeline.jobs.switches import IntegrationPaused, Switch
from pipeline.jobs.transfer import SourceRefused

REFUSAL = Answer("refused", 404, "callback_unknown_job", "No batch job found")
TEXT = "The job was cancelled by the receiver of the announcement before it was finished."


def operations(world: World, *, configured: bool = True) -> Operations:
    rules = JobRules(partner=world.partner, limits=world.limits, policies=world.policies)
    context = StageContext("cli:alice", world.jobs, world.bus, world.clock, world.metrics)
    return Operations(
        context, {"acme": rules} if configured else {}, timedelta(days=7), Parking(world.jobs, world.clock)
    )


async def test_a_job_that_nobody_began_fails_as_cancelled_and_its_partner_is_notified() -> None:
    world = World()
    record = world.announce()
    await world.deliver(world.watch, record)
    await operations(world).cancel(world.ref)
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert (outcome.outcome, outcome.reason, outcome.decided_by) == ("failed", "cancelled", "cli:alice")
    await world.run(record)
    assert world.objects.opened == []
    (call,) = world.ecs.calls
    assert json.loads(call[2]) == {
        "success": False,
        "records_processed": 0,
        "records_failed": 0,
        "error_message": TEXT,
    }
    assert not [key for key in world.memory.objects if key.startswith("open/")]


async def test_running_work_stops_before_its_next_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current chunk finishes and is included in the callback's counts; no further card is processed."""
    world = World(csv_limits={"chunk_records": 1})
    record = world.announce()
    done: list[str] = []

    real = PartStore.record_manifest

    async def cancelling(jobs: PartStore, ref: JobRef, generation: str, manifest: Manifest) -> bool:
        created = await real(jobs, ref, generation, manifest)
        done.append("chunk")
        if len(done) == 1:
            await operations(world).cancel(world.ref)
        return created

    monkeypatch.setattr(PartStore, "record_manifest", cancelling)
    await world.run(record)
    assert done == ["chunk"]
    assert world.objects.put == []
    (call,) = world.ecs.calls
    body = json.loads(call[2])
    assert (body["success"], body["records_processed"], body["error_message"]) == (False, 1, TEXT)


async def test_a_download_that_is_tried_again_stops() -> None:
    world = World()
    record = world.announce()
    world.objects.fail_open = [TransientError("source_unavailable", "500")]
    with pytest.raises(TransientError):
        await world.deliver(world.process, record)
    await operations(world).cancel(world.ref)
    await world.run(record)
    assert len(world.objects.opened) == 1
    assert len(world.ecs.calls) == 1


async def test_an_upload_that_is_tried_again_stops() -> None:
    """The uploader asks for the URL before each try: there it learns it."""
    world = World()
    await world.deliver(world.process, world.announce())
    (processed,) = world.records(Topic.BATCH_PROCESSED)
    put = world.objects.put_body

    async def cancelled_first(*arguments: object, **named: object) -> str:
        await operations(world).cancel(world.ref)
        return await put(*arguments, **named)  # type: ignore[arg-type]

    world.objects.put_body = cancelled_first  # type: ignore[method-assign]
    world.restart()
    await world.deliver(world.upload, processed)
    assert world.objects.put == []
    assert [json.loads(one.value)["reason"] for one in world.bus.on(Topic.BATCH_FAILED)] == ["cancelled", "cancelled"]


async def test_a_decided_job_is_not_cancelled() -> None:
    world = World()
    await world.run(world.announce())
    with pytest.raises(Refused, match="is decided: completed; nothing is left to cancel"):
        await operations(world).cancel(world.ref)
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.outcome == "completed"


async def test_of_a_race_with_a_stage_the_creation_decides() -> None:
    world = World()
    record = world.announce()
    await world.deliver(world.process, record)

    class Late(type(world.jobs)):  # type: ignore[misc]  # the world's own class
        async def decided_cards(self, *arguments: object) -> tuple[int, int]:
            if not world.bus.on(Topic.BATCH_UPLOADED):
                await world.deliver(world.upload, world.records(Topic.BATCH_PROCESSED)[0])
            found: tuple[int, int] = await super().decided_cards(*arguments)
            return found

    world.jobs = Late(world.memory, PART_CIPHER)
    world.restart()
    with pytest.raises(Refused, match="was decided meanwhile: completed"):
        await operations(world).cancel(world.ref)
    assert not world.bus.on(Topic.BATCH_FAILED)


async def test_a_job_of_a_removed_integration_is_closed_without_a_callback() -> None:
    """No promise is broken in silence: other services and the audit log learn it, and the command says so."""
    world = World()
    record = world.announce()
    await world.deliver(world.watch, record)
    await operations(world, configured=False).cancel(world.ref)
    outcome, result = await world.jobs.outcome(world.ref), await world.jobs.final_result(world.ref)
    assert outcome is not None
    assert result is not None
    assert (outcome.reason, outcome.body, result.told, result.code) == (
        "cancelled",
        "",
        "refused",
        "integration_removed",
    )
    assert not [key for key in world.memory.objects if key.startswith("open/")]
    assert [key for key in world.memory.objects if key.startswith(("ended/", "purge/"))]
    assert not world.bus.on(Topic.BATCH_FAILED)
    (completed,) = world.bus.on(Topic.BATCH_COMPLETED)
    assert json.loads(completed.value)["told"] == "refused"
    assert world.bus.audit() == ["outcome.decided"]


async def test_a_job_that_no_worker_could_read_stops_waiting() -> None:
    """Its integration was never in the settings of a worker; with the integration it must be read first."""
    world = World()
    world.restart(integrations=())
    for group in ("process", "watch"):
        await world.handle_until_over(group, world.announce())
    with pytest.raises(Refused, match="no worker has read its announcement yet"):
        await operations(world).cancel(world.ref)
    assert [key for key in world.memory.objects if key.startswith("due/")]
    assert await operations(world, configured=False).cancel(world.ref) is None
    assert not [key for key in world.memory.objects if key.startswith("due/")]


async def test_a_decided_job_of_a_removed_integration_is_closed_with_its_outcome() -> None:
    world = World()
    record = world.announce()
    await world.deliver(world.watch, record)
    await world.deliver(world.process, record)
    await world.deliver(world.upload, world.records(Topic.BATCH_PROCESSED)[0])
    outcome = await operations(world, configured=False).cancel(world.ref)
    assert outcome is not None
    assert outcome.outcome == "completed"
    assert not [key for key in world.memory.objects if key.startswith("open/")]


async def test_a_closed_job_can_be_notified_once_its_integration_is_back() -> None:
    """Its outcome has no callback; CONFIRM makes it from the outcome, the same for every try."""
    world = World()
    await world.deliver(world.watch, world.announce())
    await operations(world, configured=False).cancel(world.ref)
    await operations(world).notify(world.ref, "cli-1")
    world.ecs.answers = [TransientError("callback_server_error", "500")]
    with pytest.raises(TransientError):
        await world.deliver(world.confirm, world.records(Topic.BATCH_FAILED)[0])
    await world.deliver(world.confirm, world.records(Topic.BATCH_FAILED)[0])
    first, second = world.ecs.calls
    assert first == second
    assert json.loads(first[2])["success"] is False
    assert first[3]
    result = await world.jobs.final_result(world.ref)
    assert result is not None
    assert result.told == "confirmed"


async def test_only_a_refused_callback_is_sent_again() -> None:
    world = World()
    record = world.announce()
    await world.deliver(world.process, record)
    with pytest.raises(Refused, match="has not been notified"):
        await check_notify(world.jobs, world.ref)
    with pytest.raises(Refused, match="has not been notified"):
        await operations(world).notify(world.ref, "cli-1")
    world.ecs.answers = [REFUSAL]
    await world.run(record)
    assert (await check_notify(world.jobs, world.ref)).outcome == "completed"
    await operations(world).notify(world.ref, "cli-1")
    await operations(world).notify(world.ref, "cli-1")
    again = [one for one in world.records(Topic.BATCH_UPLOADED) if json.loads(one.value)["again"]]
    for one in again:
        await world.deliver(world.confirm, one)
    assert len(world.ecs.calls) == 2
    with pytest.raises(Refused, match="has confirmed"):
        await check_notify(world.jobs, world.ref)


async def test_a_parked_job_continues_at_once() -> None:
    world = World()
    record: Record | None = world.announce()
    world.objects.fail_open = [TransientError("source_unavailable", "503")] * 3
    while record is not None:
        record = await world.handle("process", record)
    rules = operations(world).rules
    assert await check_retry(world.jobs, world.parking, world.ref, rules, world.clock()) == "resumes"
    assert await operations(world).retry(world.ref, "1") == {"resumed": 1, "attempt": 1}
    await world.due.poll()
    (again,) = world.records(Topic.BATCH_REQUESTED)
    await world.run(again)
    assert await world.jobs.outcome(world.ref) is not None


async def test_a_failed_job_begins_again_with_a_new_attempt_and_the_same_announcement() -> None:
    """Repeated under the same name, it is the same attempt."""
    world = World(policies={"reannouncement_after_failure": "new_attempt"})
    record = world.announce(b"<!DOCTYPE html><html></html>")
    await world.deliver(world.watch, record)
    await world.run(record)
    world.objects.inputs[str(world.request()["input_file_url"])] = CARDS
    world.clock.forward(minutes=5)
    rules = operations(world).rules
    assert await check_retry(world.jobs, world.parking, world.ref, rules, world.clock()) == "begins again"
    for _ in range(2):
        assert await operations(world).retry(world.ref, "1") == {"resumed": 0, "attempt": 2}
    for one in world.records(Topic.BATCH_REQUESTED):
        assert one.value == record.value
        await world.deliver(world.watch, one)
        world.bus.published.clear()
        await world.run(one)
    second = JobRef("acme", JOB, 2)
    outcome = await world.jobs.outcome(second)
    assert outcome is not None
    assert outcome.outcome == "completed"
    assert {one.attempt for one in await world.jobs.all_announcements(second)} == {1, 2}
    assert [json.loads(call[2])["success"] for call in world.ecs.calls] == [False, True]


@pytest.mark.parametrize(
    ("policy", "minutes", "code"), [("repeat_outcome", 5, "retry_not_agreed"), ("new_attempt", 90, "urls_expired")]
)
async def test_a_failed_job_that_cannot_begin_again_says_what_to_do(policy: str, minutes: int, code: str) -> None:
    world = World(policies={"reannouncement_after_failure": policy})
    await world.run(world.announce(b"<!DOCTYPE html><html></html>"))
    world.clock.forward(minutes=minutes)
    with pytest.raises(Refused) as refused:
        await check_retry(world.jobs, world.parking, world.ref, operations(world).rules, world.clock())
    assert refused.value.code == code
    assert "ECS" in refused.value.message


async def test_other_jobs_are_not_retried() -> None:
    world = World()

    async def refusal(rules: Mapping[str, JobRules]) -> str:
        with pytest.raises(Refused) as refused:
            await check_retry(world.jobs, world.parking, world.ref, rules, world.clock())
        return refused.value.code

    rules = operations(world).rules
    record = world.announce()
    await world.deliver(world.watch, record)
    assert await refusal(rules) == "job_in_work"
    assert await refusal({}) == "integration_removed"
    await world.run(record)
    assert await refusal(rules) == "job_completed"


@pytest.mark.parametrize(
    ("policy", "remedy"),
    [("new_attempt", "Announce the job again with fresh URLs."), ("repeat_outcome", "Announce the cards as a new job")],
)
async def test_a_missed_deadline_names_the_last_cause_and_a_remedy_that_works(policy: str, remedy: str) -> None:
    world = World(policies={"reannouncement_after_failure": policy})
    record: Record | None = world.announce()
    assert record
    await world.deliver(world.watch, record)
    world.objects.fail_open = [TransientError("source_unavailable", "The input storage answered 500.")] * 3
    while record is not None:
        record = await world.handle("process", record)
    world.clock.forward(minutes=60)
    await world.watch.poll()
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.message is not None
    assert outcome.reason == "deadline_passed"
    assert "Last cause, for 60 min: The input storage answered 500." in outcome.message
    assert remedy in outcome.message


_PAUSE: Final = Switch(
    integration="acme",
    seq=1,
    paused=True,
    until=BEGIN + timedelta(minutes=30),
    reason="planted",
    actor="cli:planted",
    command="1",
    at=BEGIN,
)


@pytest.mark.parametrize(
    "error",
    [
        IntegrationPaused(_PAUSE, 1800.0),
        Untried("job_damaged", "jobs/planted.json is damaged (no JSON). Restore it from a backup."),
        TransientError("internal_error", "A fault of the pipeline or of a library: KeyError at planted.py:1."),
        TransientError("partner_failed", "Partner planted: its decode raised KeyError at planted.py:1."),
        IntegrationUnknown("planted"),
    ],
    ids=lambda error: error.code,
)
async def test_a_partner_learns_no_more_of_a_cause_on_our_side_than_its_code(error: TransientError) -> None:
    """Words for operators name people, reasons, files and settings."""
    world = World()
    record = world.announce()
    await world.deliver(world.watch, record)
    await world.parking.park(record, "process", error)
    world.clock.forward(minutes=60)
    await world.watch.poll()
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert f"Last cause, for 60 min: the receiver of the announcement ({error.code})." in (outcome.message or "")
    assert "planted" not in f"{outcome.message}{outcome.body}"


@pytest.mark.parametrize("code", ["source_expired", "source_deadline_passed"])
@pytest.mark.parametrize(
    ("policy", "remedy"),
    [("new_attempt", "Announce the job again with fresh URLs."), ("repeat_outcome", "Announce the cards as a new job")],
)
async def test_an_expired_url_names_a_remedy_that_works(code: str, policy: str, remedy: str) -> None:
    world = World(policies={"reannouncement_after_failure": policy})
    world.objects.fail_open = [SourceRefused(code, "input_file_url was refused.")]
    await world.run(world.announce())
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.message is not None
    assert outcome.reason == code
    assert remedy in outcome.message


async def test_urls_that_are_valid_for_less_than_the_margin_are_named() -> None:
    world = World()
    record = world.announce(expires_at="2026-01-21T12:00:20Z")
    await world.deliver(world.watch, record)
    await world.run(record)
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.message is not None
    assert "valid for less than the 30 s that are kept for the callback" in outcome.message

"""Decides once how a job ends: the outcome, the callback's body, and the record that makes CONFIRM send it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import structlog

from pipeline.contracts import AuditAction
from pipeline.errors import PermanentError, PipelineError
from pipeline.jobs.announcements import JobRules
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import WAITING_RECEIPT, JobRef
from pipeline.jobs.messages import StageMessage, outcome_record
from pipeline.jobs.partners import Callback, JobAnnouncement, JobResult, Partner
from pipeline.jobs.receipts import Announcement, Outcome, Processed, Waiting
from pipeline.jobs.stage import DeadlinePassed, StageContext
from pipeline.jobs.wording import shorten

log = structlog.get_logger(__name__)

T = TypeVar("T")

_TIME_IS_OVER: Final = "deadline_passed"
"""Ending of the codes of missed deadlines: ``deadline_passed``, ``source_deadline_passed``, ..."""

_NEW_URLS_HELP: Final = ("_deadline_passed", "_expired")
"""Endings of the codes of failures that new URLs fix: ``source_expired``, ``upload_deadline_passed``, ..."""

_OUR_SIDE: Final = frozenset(
    {
        "integration_paused",
        "integration_unknown",
        "internal_error",
        "job_damaged",
        "part_key_differs",
        "part_key_missing",
        "partner_failed",
    }
)
"""Codes of waits whose messages are for operators only: they name people, files or settings."""

_WITH_DEADLINE: Final = frozenset({"process", "chunks", "upload"})
_WAITS_READ: Final = 20
"""Number of latest waits of a job that are searched for the last cause."""

_FIELD: Final = re.compile(rf"\b(?:{'|'.join(JobAnnouncement.model_fields)})\b")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many decided cards are ok, and how many failed."""

    ok: int = 0
    failed: int = 0


async def counts_so_far(jobs: JobStore, ref: JobRef) -> Counts:
    """Return the cards decided so far; zero if a receipt is damaged, so that the job still gets its outcome in time."""
    try:
        return Counts(*await jobs.decided_cards(ref))
    except JobDamaged:
        return Counts()


class OutcomeExists(PipelineError):
    """Another stage or worker decided the job's outcome while this one worked on it. The stage handles it itself."""

    def __init__(self) -> None:
        super().__init__("outcome_exists", "the job's outcome was decided meanwhile")


class Decider:
    """Decides outcomes on behalf of one stage.

    The store creates an outcome only once. The loser of a race publishes the existing outcome.
    """

    def __init__(self, context: StageContext) -> None:
        self._context = context

    async def run(
        self,
        message: StageMessage,
        rules: JobRules,
        work: Callable[[], Awaitable[T]],
        counts: Callable[[], Counts],
    ) -> T | None:
        """Return the result of ``work``; if the job failed or was decided, publish the outcome and return None.

        A permanent error fails the job.

        Args:
            message: The message that the stage handles.
            rules: The rules of the job's integration.
            work: The stage's work on the job.
            counts: Returns the decided cards, for the callback of a failed job.

        Raises:
            TransientError: Retry the message later.
            LeaseLost: Another worker may be doing this job.
        """
        failure: PermanentError
        try:
            found = await work()
        except OutcomeExists:
            await self.publish_existing(message.ref, message.traceparent)
            return None
        except PermanentError as error:
            failure = error
        else:
            return found
        await message.lease.ensure()
        await self.fail(message.ref, failure, rules, counts=counts(), traceparent=message.traceparent)
        return None

    @asynccontextmanager
    async def failing_damaged(self, message: StageMessage, rules: JobRules) -> AsyncIterator[None]:
        """Fail the job if an object that the block reads is damaged.

        Raises:
            JobDamaged: The job cannot be decided, because its outcome or its announcements are damaged.
        """
        try:
            yield
        except JobDamaged as damage:
            await message.lease.ensure()
            await self.fail(message.ref, damage, rules, traceparent=message.traceparent)

    async def fail(
        self,
        ref: JobRef,
        error: PermanentError,
        rules: JobRules,
        *,
        counts: Counts = Counts(),
        traceparent: str | None = None,
    ) -> Outcome:
        """Decide ``failed`` unless the job has an outcome; publish the outcome and return it.

        Raises:
            ClockWrong: The job failed because of the time, but this machine's clock is wrong.
        """
        if error.code.endswith(_TIME_IS_OVER):
            await self._context.ensure_clock()
        announcement = await self._context.jobs.newest(ref)
        text = error.message
        if isinstance(error, DeadlinePassed):
            text = f"{text} {await self._why_too_late(announcement, ref, rules)}"
        elif isinstance(error, JobDamaged) or error.code.endswith(_NEW_URLS_HELP):
            text = f"{text} {_announce_again(rules)}"
        message = _message(text, rules.partner)
        wanted = _failed(
            announcement,
            error.code,
            message,
            counts,
            callback=_callback(announcement.request, counts, rules, message),
            decided_by=self._context.stage,
            at=self._context.clock(),
        )
        return await self._decide(ref, wanted, traceparent, announcement)

    async def _why_too_late(self, announcement: Announcement, ref: JobRef, rules: JobRules) -> str:
        """Return the last cause of a missed deadline, and a remedy that works under the integration's policy."""
        remedy = _announce_again(rules)
        if announcement.deadline <= announcement.stored_at:
            return (
                f"Its URLs were valid for less than the {rules.limits.deadline_margin_seconds:g} s that are kept for "
                f"the callback. {remedy} Let its URLs be valid for longer."
            )
        last = await self._last_wait(ref)
        if last is None:
            return remedy
        minutes = int((self._context.clock() - last.first_at).total_seconds() / 60)
        cause = f"the receiver of the announcement ({last.code})." if last.code in _OUR_SIDE else last.message
        return f"Last cause, for {minutes} min: {cause} {remedy}"

    async def _last_wait(self, ref: JobRef) -> Waiting | None:
        """Return the receipt of the job's latest wait, whether it is over or not; None if it never waited."""
        jobs = self._context.jobs
        found: list[Waiting] = []
        names = [info.key.removeprefix(ref.waiting) async for info in jobs.objects.list(ref.waiting)]
        waits = [wait for name in names if (wait := WAITING_RECEIPT.fullmatch(name))]
        for name in sorted(wait[0] for wait in waits if wait["stage"] in _WITH_DEADLINE)[-_WAITS_READ:]:
            with suppress(JobDamaged):
                waiting = await jobs.receipt(f"{ref.waiting}{name}", Waiting)
                found += [waiting] if waiting else []
        return max(found, key=lambda one: one.at, default=None)

    async def complete(self, message: StageMessage, processed: Processed, etag: str, rules: JobRules) -> Outcome:
        """Decide ``completed`` unless the job has an outcome; publish the outcome and return it.

        Args:
            message: The message that the stage handles.
            processed: The receipt of PROCESS.
            etag: ETag of the uploaded result.
            rules: The rules of the job's integration.
        """
        ref = message.ref
        announcement = await self._context.jobs.newest(ref)
        counts = Counts(processed.ok, processed.failed)
        callback = _callback(announcement.request, counts, rules, None)
        wanted = Outcome(
            outcome="completed",
            reason=None,
            message=None,
            body=callback.body,
            request_id=callback.request_id,
            announcement=announcement.id,
            generation=processed.generation,
            records=processed.records,
            ok=processed.ok,
            failed=processed.failed,
            result_bytes=processed.result_bytes,
            result_etag=etag,
            decided_by=self._context.stage,
            at=self._context.clock(),
        )
        return await self._decide(ref, wanted, message.traceparent, announcement)

    async def publish_existing(
        self, ref: JobRef, traceparent: str | None, *, again: Callable[[Outcome], str | None] = lambda _: None
    ) -> bool:
        """Publish the existing outcome again, because its message may be lost. Return False if there is none.

        Args:
            ref: The job's attempt.
            traceparent: Trace context of the work.
            again: Returns the name of a repeated notification, if the partner announced the job again after this
                outcome; otherwise None.
        """
        outcome = await self._context.jobs.outcome(ref)
        if outcome is None:
            return False
        await self._publish(ref, outcome, traceparent, again(outcome), await self._context.jobs.newest(ref))
        return True

    async def _decide(
        self, ref: JobRef, wanted: Outcome, traceparent: str | None, announcement: Announcement
    ) -> Outcome:
        context = self._context
        outcome = await context.jobs.decide(ref, wanted)
        if outcome.nonce == wanted.nonce:
            context.metrics.jobs.labels(ref.integration, context.stage, wanted.reason or "done").inc()
            left = (announcement.deadline - wanted.at).total_seconds()
            context.metrics.deadline_seconds_left.labels(ref.integration).observe(left)
            log.info("outcome_decided", outcome=wanted.outcome, reason=wanted.reason, message=wanted.message)
        if wanted.outcome == "completed" != outcome.outcome:
            await self._audit_upload(ref, wanted, traceparent)  # the partner has the result although the job failed
        await self._publish(ref, outcome, traceparent, None, announcement)
        return outcome

    async def _publish(
        self, ref: JobRef, outcome: Outcome, traceparent: str | None, again: str | None, announcement: Announcement
    ) -> None:
        traceparent = traceparent or announcement.traceparent
        if outcome.outcome == "completed":
            await self._audit_upload(ref, outcome, traceparent)
        await audit_outcome(self._context, ref, outcome, traceparent)
        await self._context.publisher.publish(outcome_record(ref, announcement, outcome, traceparent, again))

    async def _audit_upload(self, ref: JobRef, completed: Outcome, traceparent: str | None) -> None:
        await self._context.audit(
            AuditAction.RESULT_UPLOADED,
            ref,
            completed.generation or "",
            traceparent=traceparent,
            at=completed.at,
            detail={"bytes": completed.result_bytes, "etag": completed.result_etag},
        )


def failed_without_partner(
    announcement: Announcement, reason: str, message: str, counts: Counts, *, decided_by: str, at: datetime
) -> Outcome:
    """Return the outcome of a failed job without a callback, because its partner is not known here."""
    return _failed(announcement, reason, message, counts, callback=Callback("", ""), decided_by=decided_by, at=at)


def callback_of(outcome: Outcome, announcement: Announcement, rules: JobRules) -> Callback:
    """Return the callback of an outcome: the stored one, or a new one if the partner was not known at the time."""
    if outcome.request_id:
        return Callback(outcome.body, outcome.request_id)
    message = _message(outcome.message or "", rules.partner)
    return _callback(announcement.request, Counts(outcome.ok, outcome.failed), rules, message)


def _failed(
    announcement: Announcement,
    reason: str,
    message: str,
    counts: Counts,
    *,
    callback: Callback,
    decided_by: str,
    at: datetime,
) -> Outcome:
    return Outcome(
        outcome="failed",
        reason=reason,
        message=message,
        body=callback.body,
        request_id=callback.request_id,
        announcement=announcement.id,
        generation=None,
        records=counts.ok + counts.failed,
        ok=counts.ok,
        failed=counts.failed,
        result_bytes=0,
        result_etag="",
        decided_by=decided_by,
        at=at,
    )


async def audit_outcome(context: StageContext, ref: JobRef, outcome: Outcome, traceparent: str | None) -> None:
    """Add a job's outcome to the audit trail; a repeat does not change the log."""
    await context.audit(
        AuditAction.OUTCOME_DECIDED,
        ref,
        traceparent=traceparent,
        at=outcome.at,
        detail={
            "outcome": outcome.outcome,
            "reason": outcome.reason,
            "decided_by": outcome.decided_by,
            "ok": outcome.ok,
            "failed": outcome.failed,
        },
    )


def _announce_again(rules: JobRules) -> str:
    """Return a remedy for the partner. To announce the job again helps only if its integration allows a new attempt."""
    if rules.policies.reannouncement_after_failure == "new_attempt":
        return "Announce the job again with fresh URLs."
    return "Announce the cards as a new job: announced again, this job keeps its outcome."


def _callback(announcement: JobAnnouncement, counts: Counts, rules: JobRules, message: str | None) -> Callback:
    processed = counts.ok + counts.failed if rules.policies.records_processed == "all" else counts.ok
    return rules.partner.callback(announcement, JobResult(processed, counts.failed, message))


def _message(text: str, partner: Partner) -> str:
    """Return an error message for the partner: with the partner's field names, masked, and cut."""
    named = _FIELD.sub(lambda found: partner.field_names.get(found[0], found[0]), text)
    return shorten(named, partner.error_message_limit)

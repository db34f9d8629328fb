"""CONFIRM: notifies the partner how a job ended. All tries have the same body and request id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import structlog
from pydantic import SecretStr

from pipeline.contracts import AuditAction, OutcomeMessage, Record
from pipeline.errors import LeaseLost, PermanentError, TransientError
from pipeline.jobs.announcements import JobRules, rules_for
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.messages import StageMessage, completed_record, decode, receipt_missing, ref_of
from pipeline.jobs.outcomes import callback_of
from pipeline.jobs.parking import Parking
from pipeline.jobs.partners import CONFLICT, UNANSWERED, UNCLEAR, Answer, Notifier
from pipeline.jobs.receipts import (
    Announcement,
    NotificationAnswer,
    NotificationAttempt,
    NotificationResult,
    Outcome,
)
from pipeline.jobs.recent_jobs import RecentJobs
from pipeline.jobs.stage import StageContext, job_in_logs
from pipeline.jobs.wording import quote
from pipeline.kafka.protocols import Lease
from pipeline.outbound import Call, Circuit, host_of
from pipeline.retry import RetryPolicy

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmRules(JobRules):
    """The rules of CONFIRM for one integration.

    Attributes:
        retry: Pauses between two callbacks of one outcome.
        circuit: Refuses callbacks while their host keeps failing.
        ready: Raises a TransientError while no callback can be sent, e.g. because the token is expired.
        hold: How long after the outcome a callback may wait for ``ready``. The store keeps the job's receipts for
            longer.
        keep_failed_parts: How long to keep the parts of a failed or refused job, for ``pipeline job result``.
    """

    notifier: Notifier
    retry: RetryPolicy
    circuit: Circuit
    ready: Callable[[], Awaitable[None]]
    hold: timedelta
    keep_failed_parts: timedelta

    def last_try(self, announcement: Announcement) -> datetime:
        """Return the time from which on a failed callback is not repeated.

        ``limits.max_expiry_days`` bounds it too: a job may expire in 2199, but its receipts do not last as long.
        """
        latest = announcement.stored_at + timedelta(days=self.limits.max_expiry_days)
        expiry = min(announcement.request.expires_at, latest)
        return expiry + timedelta(seconds=self.policies.callback_retry_seconds)


@dataclass(frozen=True, slots=True)
class _Notification:
    """One notification of one outcome.

    Attributes:
        jobs: Remembers the job for a moment.
        again: Name of a repeated notification that a later announcement or a command caused; None for the first one.
    """

    message: StageMessage
    jobs: RecentJobs
    outcome: Outcome
    announcement: Announcement
    again: str | None

    @property
    def ref(self) -> JobRef:
        return self.message.ref


class ConfirmStage:
    """Handler of ``card-batch.uploaded`` and ``card-batch.failed``.

    It records each try before it sends it. The partner may get a callback twice, with the same body and request id.
    """

    def __init__(self, context: StageContext, integrations: Mapping[str, ConfirmRules], parking: Parking) -> None:
        self._context = context
        self._parking = parking
        self._jobs = context.jobs
        self._integrations = integrations

    async def handle(self, record: Record, lease: Lease) -> None:
        """Bring a decided job to ``confirmed`` or ``refused``, unless it is there already."""
        body = decode(record, OutcomeMessage)
        ref, rules = ref_of(body), rules_for(self._integrations, body.integration)
        _, jobs = self._context.recent(ref)
        with job_in_logs(ref):
            await jobs.load()
            if jobs.has_waited() and await self._parking.waits(record, "confirm"):
                # this is another copy of the record: it must not end a pause that the partner may have asked for
                log.info("job_waits_already", stage="confirm")
                return
            outcome = await jobs.outcome(ref) or await self._jobs.outcome(ref)
            if outcome is None:
                raise receipt_missing(ref, "outcome.json")
            message = StageMessage.of(record, ref, lease)
            notification = _Notification(message, jobs, outcome, await jobs.newest(ref), body.again)
            existing = await jobs.notification_result(ref, body.again)
            result = existing or await self._notify(notification, rules)
            await self._end(notification, result, rules)
            log.info(
                "partner_notified",
                result=result.told,
                outcome=outcome.outcome,
                tries=result.tries,
                repeated=existing is not None,
            )

    async def _notify(self, notification: _Notification, rules: ConfirmRules) -> NotificationResult:
        """Send the callback once and record the result; raise TransientError if the stage must send it again.

        The first try at or after the end of the retries is the last one. So a callback that waited until then, e.g. for
        a new token, is still sent.
        """
        ref, again = notification.ref, notification.again
        begun, unanswered = await notification.jobs.notification_attempts(ref, again)
        until = rules.last_try(notification.announcement)
        if begun and self._context.clock() >= until and await self._jobs.attempt_at(ref, begun, again) >= until:
            await self._context.ensure_clock()
            return await self._conclude(
                notification, "refused", begun, _too_late("the process ended during the last try")
            )
        url = notification.announcement.request.callback_url
        if "callback_url" in (notification.announcement.erased or ()):
            return await self._conclude(notification, "refused", begun, _no_answer(URL_ERASED, CALLBACK_URL_ERASED))
        try:
            await rules.ready()
            call = rules.circuit.call(host_of(url))
        except TransientError as error:
            if self._context.clock() < max(until, notification.outcome.at + rules.hold):
                log.warning("callback_held", code=error.code, message=error.message)
                raise
            await self._context.ensure_clock()
            return await self._conclude(notification, "refused", begun, _no_answer(error.code, error.message))
        with closing(call):
            return await self._send(notification, rules, call, number=begun + 1, unanswered=unanswered)

    async def _send(
        self, notification: _Notification, rules: ConfirmRules, call: Call, *, number: int, unanswered: bool
    ) -> NotificationResult:
        ref, again, lease = notification.ref, notification.again, notification.message.lease
        until = rules.last_try(notification.announcement)
        await lease.ensure()
        attempt = NotificationAttempt(number=number, at=self._context.clock())
        if not await self._jobs.record_attempt(ref, attempt, again):
            raise LeaseLost("callback_taken", "another worker sends this callback")
        await lease.ensure()
        callback = callback_of(notification.outcome, notification.announcement, rules)
        try:
            answer = await rules.notifier.notify(
                SecretStr(notification.announcement.request.callback_url),
                job_guid=str(ref.job_guid),
                body=callback.body.encode(),
                request_id=callback.request_id,
            )
        except TransientError as error:
            call.note(error)
            log.warning("callback_not_accepted", attempt_number=number, code=error.code, message=error.message)
            if error.code not in (UNANSWERED, UNCLEAR):
                await self._record_answer(notification, number, _no_answer(error.code, error.message))
            if attempt.at >= until:
                await self._context.ensure_clock()
                return await self._conclude(
                    notification, "refused", number, _too_late(f"{error.code}: {error.message}")
                )
            pause = rules.retry.pause(number, error.retry_after)
            raise TransientError(error.code, error.message, retry_after=pause) from error
        except PermanentError as error:
            answer = _no_answer(error.code, error.message)
        else:
            call.succeeded()
        if answer.result == "accepted" or (answer.code == CONFLICT and unanswered):
            # after a try without a clear answer, a conflict means that the partner received that try
            return await self._conclude(notification, "confirmed", number, answer)
        await self._record_answer(notification, number, answer)
        return await self._conclude(notification, "refused", number, answer)

    async def _record_answer(self, notification: _Notification, number: int, answer: Answer) -> None:
        receipt = NotificationAnswer(
            number=number, status=answer.status, code=answer.code, detail=answer.detail, at=self._context.clock()
        )
        await self._jobs.record_answer(notification.ref, receipt, notification.again)

    async def _conclude(
        self, notification: _Notification, result: Literal["confirmed", "refused"], tries: int, answer: Answer
    ) -> NotificationResult:
        if result == "refused":
            log.error("callback_refused", status=answer.status, code=answer.code, detail=answer.detail)
        receipt = NotificationResult(
            told=result,
            tries=tries,
            status=answer.status,
            code=answer.code,
            detail=answer.detail,
            at=self._context.clock(),
        )
        return await self._jobs.record_result(notification.ref, receipt, notification.again)

    async def _end(self, notification: _Notification, result: NotificationResult, rules: ConfirmRules) -> None:
        """Publish the result to the audit log and to other services; then close the job and delete its card data."""
        ref, outcome, message = notification.ref, notification.outcome, notification.message
        confirmed = result.told == "confirmed"
        await self._context.audit(
            AuditAction.CALLBACK_CONFIRMED if confirmed else AuditAction.CALLBACK_REFUSED,
            ref,
            notification.again or "",
            traceparent=message.traceparent,
            at=result.at,
            detail={"tries": result.tries, "status": result.status, "code": result.code},
        )
        await self._context.publisher.publish(
            completed_record(
                ref,
                notification.announcement,
                outcome,
                result,
                again=notification.again,
                traceparent=message.traceparent,
            )
        )
        await message.lease.ensure()
        drop_parts = confirmed and outcome.outcome == "completed"
        if not drop_parts:
            await self._jobs.file("purge", ref, result.at + rules.keep_failed_parts)
        if confirmed:
            # a failed job may begin a second attempt with its URLs: then they are deleted with its parts
            keep_urls = outcome.outcome == "failed" and rules.policies.reannouncement_after_failure == "new_attempt"
            await self._jobs.close(
                ref,
                outcome,
                result.at,
                keep_urls=keep_urls,
                drop_parts=drop_parts,
                newest=notification.announcement,
            )


URL_ERASED: Final = "callback_url_erased"
CALLBACK_URL_ERASED: Final = "the callback URL was erased from the store after the job ended"


def _too_late(cause: str) -> Answer:
    return _no_answer(
        "callback_deadline", f"no callback was accepted before the retries ended; the last try: {quote(cause)}"
    )


def _no_answer(code: str, detail: str) -> Answer:
    return Answer("refused", 0, code, detail)

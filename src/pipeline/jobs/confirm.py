"""CONFIRM: tells ECS how a job ended: one body, one request id, however often it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import structlog
from pydantic import SecretStr

from pipeline.contracts import AuditAction, OutcomeMessage, Record
from pipeline.errors import LeaseLost, PermanentError, TransientError
from pipeline.jobs.announcements import rules_for
from pipeline.jobs.audit_trail import Trail
from pipeline.jobs.ecs import UNANSWERED, Answer, Caller
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.messages import Delivery, completed_record, decode, receipt_missing, ref_of
from pipeline.jobs.receipts import Announcement, Outcome, Told, Try, TryAnswer
from pipeline.jobs.settings import JobPolicies
from pipeline.kafka.protocols import Lease, Publisher
from pipeline.observability import Metrics
from pipeline.retry import RetryPolicy

log = structlog.get_logger(__name__)

STAGE: Final = "confirm"


@dataclass(frozen=True, slots=True)
class ConfirmRules:
    """What CONFIRM knows of one integration.

    Attributes:
        retry: Pauses between two callbacks of one outcome.
        keep_failed_parts: How long the parts of a failed or parked job stay, for ``pipeline job result``.
    """

    policies: JobPolicies
    caller: Caller
    retry: RetryPolicy
    keep_failed_parts: timedelta


@dataclass(frozen=True, slots=True)
class _Telling:
    """One telling of one outcome."""

    delivery: Delivery
    outcome: Outcome
    announcement: Announcement
    again: str | None

    @property
    def ref(self) -> JobRef:
        return self.delivery.ref


class ConfirmStage:
    """Handler of ``card-batch.uploaded`` and ``card-batch.failed``.

    Each try is recorded before it is sent. What may happen twice: the callback, equal in body and ``X-Request-Id``.
    """

    def __init__(
        self,
        jobs: JobStore,
        publisher: Publisher,
        integrations: Mapping[str, ConfirmRules],
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._jobs = jobs
        self._publisher = publisher
        self._integrations = integrations
        self._clock = clock
        self._metrics = metrics
        self._trail = Trail(publisher, STAGE, clock)

    async def arrive(self, record: Record) -> None:
        """Nothing is known yet that others must see."""

    async def handle(self, record: Record, lease: Lease) -> None:
        """Bring a decided job to ``confirmed`` or ``refused``, or find that it is there."""
        message = decode(record, OutcomeMessage)
        ref, rules = ref_of(message), rules_for(self._integrations, message.integration)
        with structlog.contextvars.bound_contextvars(
            integration=ref.integration, job_guid=str(ref.job_guid), attempt=ref.attempt
        ):
            outcome = await self._jobs.outcome(ref)
            if outcome is None:
                raise receipt_missing(ref, "outcome.json")
            delivery = Delivery.of(record, ref, lease)
            telling = _Telling(delivery, outcome, await self._jobs.newest(ref), message.again)
            told = await self._jobs.told(ref, message.again)
            repeated = told is not None
            if told is None:
                told = await self._tell(telling, rules)
            await self._end(telling, told, rules)
            log.info("callback_told", verdict=told.told, outcome=outcome.outcome, tries=told.tries, repeated=repeated)

    async def _tell(self, telling: _Telling, rules: ConfirmRules) -> Told:
        """Send the callback once and record how that ended; raises TransientError if it must be sent again."""
        ref, again, lease = telling.ref, telling.again, telling.delivery.lease
        begun, unanswered = await self._jobs.tries(ref, again)
        until = telling.announcement.request.expires_at + timedelta(seconds=rules.policies.callback_retry_seconds)
        if begun and self._clock() >= until:
            return await self._conclude(telling, "refused", begun, _no_answer("callback_deadline", "too late to go on"))
        number = begun + 1
        await lease.ensure()
        if not await self._jobs.record_try(ref, Try(number=number, at=self._clock()), again):
            raise LeaseLost("callback_taken", "another worker sends this callback")
        await lease.ensure()
        try:
            answer = await rules.caller.tell(
                SecretStr(telling.announcement.request.callback_url),
                job_guid=str(ref.job_guid),
                body=telling.outcome.body.encode(),
                request_id=telling.outcome.request_id,
            )
        except TransientError as error:
            log.warning("callback_not_accepted", attempt_number=number, code=error.code, message=error.message)
            if error.code != UNANSWERED:
                await self._note_answer(telling, number, _no_answer(error.code, error.message))
            pause = rules.retry.pause(number, error.retry_after)
            raise TransientError(error.code, error.message, retry_after=pause) from error
        except PermanentError as error:
            answer = _no_answer(error.code, error.message)
        if answer.verdict == "accepted" or (answer.code == "callback_conflict" and unanswered):
            # a conflict after a try whose answer was lost: that try was heard
            return await self._conclude(telling, "confirmed", number, answer)
        await self._note_answer(telling, number, answer)
        return await self._conclude(telling, "refused", number, answer)

    async def _note_answer(self, telling: _Telling, number: int, answer: Answer) -> None:
        receipt = TryAnswer(
            number=number, status=answer.status, code=answer.code, detail=answer.detail, at=self._clock()
        )
        await self._jobs.record_answer(telling.ref, receipt, telling.again)

    async def _conclude(
        self, telling: _Telling, told: Literal["confirmed", "refused"], tries: int, answer: Answer
    ) -> Told:
        if told == "refused":
            log.error("callback_refused", status=answer.status, code=answer.code, detail=answer.detail)
        receipt = Told(
            told=told, tries=tries, status=answer.status, code=answer.code, detail=answer.detail, at=self._clock()
        )
        return await self._jobs.record_told(telling.ref, receipt, telling.again)

    async def _end(self, telling: _Telling, told: Told, rules: ConfirmRules) -> None:
        """Tell audit log and other services; then the job is no longer open and its card data goes."""
        ref, outcome = telling.ref, telling.outcome
        confirmed = told.told == "confirmed"
        action = AuditAction.CALLBACK_CONFIRMED if confirmed else AuditAction.CALLBACK_REFUSED
        await self._trail.note(
            action,
            ref,
            telling.again or "",
            traceparent=telling.delivery.traceparent,
            at=told.at,
            detail={"tries": told.tries, "status": told.status, "code": told.code},
        )
        await self._publisher.publish(
            completed_record(telling.delivery, telling.announcement, outcome, told, telling.again)
        )
        await telling.delivery.lease.ensure()
        if not (confirmed and outcome.outcome == "completed"):
            await self._jobs.file("purge", ref, told.at + rules.keep_failed_parts)
        else:
            await self._jobs.drop_parts(ref)
        if confirmed:
            await self._jobs.close(ref)


def _no_answer(code: str, detail: str) -> Answer:
    return Answer("refused", 0, code, detail)

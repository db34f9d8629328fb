"""Deciding how a job ends, once: the outcome, the callback's body, and the record that makes CONFIRM tell it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from pipeline.contracts import AuditAction, CallbackBody
from pipeline.errors import PermanentError
from pipeline.jobs.audit_trail import Trail
from pipeline.jobs.ecs import request_id, shorten
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.messages import Delivery, outcome_record
from pipeline.jobs.receipts import Outcome, Processed, Uploaded
from pipeline.jobs.settings import JobPolicies
from pipeline.kafka.protocols import Publisher
from pipeline.observability import Metrics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many cards were decided."""

    ok: int = 0
    failed: int = 0


class Judge:
    """Decides outcomes on behalf of one stage; whoever comes second publishes what stands."""

    def __init__(
        self,
        jobs: JobStore,
        publisher: Publisher,
        trail: Trail,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        stage: str,
    ) -> None:
        self._jobs = jobs
        self._publisher = publisher
        self._trail = trail
        self._clock = clock
        self._metrics = metrics
        self._stage = stage

    async def fail(
        self,
        ref: JobRef,
        error: PermanentError,
        policies: JobPolicies,
        *,
        counts: Counts = Counts(),
        traceparent: str | None = None,
    ) -> Outcome:
        """Decide ``failed`` unless the job is decided, and publish what stands."""
        announcement = await self._jobs.newest(ref)
        message = shorten(error.message)
        body = _body(counts, policies, message).model_dump_json()
        wanted = Outcome(
            outcome="failed",
            reason=error.code,
            message=message,
            body=body,
            request_id=request_id(ref.job_guid, body.encode()),
            announcement=announcement.id,
            generation=None,
            records=counts.ok + counts.failed,
            ok=counts.ok,
            failed=counts.failed,
            result_bytes=0,
            result_etag="",
            decided_by=self._stage,
            at=self._clock(),
        )
        return await self._stand(ref, wanted, traceparent)

    async def complete(
        self, delivery: Delivery, processed: Processed, uploaded: Uploaded, policies: JobPolicies
    ) -> Outcome:
        """Decide ``completed`` unless the job is decided, and publish what stands."""
        ref = delivery.ref
        announcement = await self._jobs.newest(ref)
        counts = Counts(processed.ok, processed.failed)
        body = _body(counts, policies, None).model_dump_json()
        wanted = Outcome(
            outcome="completed",
            reason=None,
            message=None,
            body=body,
            request_id=request_id(ref.job_guid, body.encode()),
            announcement=announcement.id,
            generation=processed.generation,
            records=processed.records,
            ok=processed.ok,
            failed=processed.failed,
            result_bytes=processed.result_bytes,
            result_etag=uploaded.etag,
            decided_by=self._stage,
            at=self._clock(),
        )
        return await self._stand(ref, wanted, delivery.traceparent)

    async def repeat(self, ref: JobRef, outcome: Outcome, traceparent: str | None, *, again: str | None = None) -> None:
        """Publish a decision that stands: the message that carried it may have been lost with its sender.

        Args:
            ref: The job's attempt.
            outcome: What stands.
            traceparent: Trace context of the work.
            again: Asks for one more telling, where ECS announced the job anew after it was decided.
        """
        announcement = await self._jobs.newest(ref)
        await self._trail.note(
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
        await self._publisher.publish(outcome_record(ref, announcement, outcome, traceparent, again))

    async def _stand(self, ref: JobRef, wanted: Outcome, traceparent: str | None) -> Outcome:
        stands = await self._jobs.decide(ref, wanted)
        if stands.nonce == wanted.nonce:
            self._metrics.jobs.labels(ref.integration, self._stage, wanted.reason or "done").inc()
            left = ((await self._jobs.newest(ref)).deadline - wanted.at).total_seconds()
            self._metrics.deadline_seconds_left.labels(ref.integration).observe(left)
            log.info("outcome_decided", outcome=wanted.outcome, reason=wanted.reason, message=wanted.message)
        await self.repeat(ref, stands, traceparent)
        return stands


def _body(counts: Counts, policies: JobPolicies, message: str | None) -> CallbackBody:
    processed = counts.ok + counts.failed if policies.records_processed == "all" else counts.ok
    return CallbackBody(
        success=message is None,
        records_processed=processed,
        records_failed=counts.failed,
        error_message=message,
    )

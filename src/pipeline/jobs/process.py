"""PROCESS: from an announcement to the decided cards of its job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import structlog

from pipeline.contracts import AuditAction, Record
from pipeline.errors import PermanentError, TransientError
from pipeline.jobs.announcements import Request, announce, decode_request, rules_for
from pipeline.jobs.audit_trail import Trail
from pipeline.jobs.chunks import FileRules, FileWork
from pipeline.jobs.deadline import within_deadline
from pipeline.jobs.job_store import Announced, JobStore
from pipeline.jobs.messages import Delivery, processed_record
from pipeline.jobs.outcomes import Counts, Judge
from pipeline.jobs.receipts import Processed
from pipeline.jobs.waiting import Waiting
from pipeline.kafka.protocols import Lease, Publisher
from pipeline.observability import Metrics

log = structlog.get_logger(__name__)

STAGE: Final = "process"

_ARRIVALS_KEPT: Final = 2000
"""Some records are never handled here, since their partition goes to another worker first: theirs must not pile up."""

_ACTIONS: Final = {
    "new": AuditAction.JOB_ANNOUNCED,
    "renewed": AuditAction.JOB_RENEWED,
    "conflict": AuditAction.JOB_CONFLICT,
}


class ProcessStage:
    """Handler of ``card-batch.requested``: one call does one job's file, chunk by chunk, restartable at each."""

    def __init__(
        self,
        jobs: JobStore,
        publisher: Publisher,
        integrations: Mapping[str, FileRules],
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
        self._judge = Judge(jobs, publisher, self._trail, clock=clock, metrics=metrics, stage=STAGE)
        self._waiting = Waiting()
        self._arrived: dict[tuple[int, int], Announced] = {}

    async def arrive(self, record: Record) -> None:
        """Store the announcement at once, so that fresh URLs reach a job that is in work."""
        self._arrived[record.partition, record.offset] = await self._announce(decode_request(record))
        if len(self._arrived) > _ARRIVALS_KEPT:
            del self._arrived[next(iter(self._arrived))]

    async def handle(self, record: Record, lease: Lease) -> None:
        """Bring the announced job to ``processed`` or ``failed``, or find that it is there already."""
        request = decode_request(record)
        announced = self._arrived.pop((record.partition, record.offset), None) or await self._announce(request)
        rules = rules_for(self._integrations, request.integration)
        delivery = Delivery.of(record, announced.ref, lease)
        with structlog.contextvars.bound_contextvars(
            integration=request.integration, job_guid=str(request.body.job_guid), attempt=announced.ref.attempt
        ):
            await self._note_arrival(request, announced, delivery)
            if announced.news == "conflict":
                log.warning("announcement_ignored", announcement=request.announcement)
            elif not await self._find_done(announced, delivery):
                await self._do(delivery, rules)

    async def _announce(self, request: Request) -> Announced:
        return await announce(self._jobs, request, rules_for(self._integrations, request.integration), self._clock())

    async def _note_arrival(self, request: Request, announced: Announced, delivery: Delivery) -> None:
        await self._trail.note(
            _ACTIONS[announced.news],
            announced.ref,
            request.announcement,
            traceparent=delivery.traceparent,
            at=announced.announcement.stored_at,
            detail={
                "announcement": request.announcement,
                "merchant_guid": str(request.body.merchant_guid),
                "record_count": request.body.record_count,
                "expires_at": request.body.expires_at.isoformat(),
            },
        )

    async def _find_done(self, announced: Announced, delivery: Delivery) -> bool:
        """Publish again what an earlier delivery of this job left, and say whether there was anything."""
        ref = delivery.ref
        outcome = await self._jobs.outcome(ref)
        if outcome is not None:
            later = announced.announcement.stored_at > outcome.at
            await self._judge.repeat(
                ref, outcome, delivery.traceparent, again=announced.announcement.id if later else None
            )
            return True
        receipt = await self._jobs.processed(ref)
        if receipt is not None:
            await self._hand_on(delivery, receipt)
        return receipt is not None

    async def _do(self, delivery: Delivery, rules: FileRules) -> None:
        ref = delivery.ref
        work = FileWork(
            self._jobs,
            rules,
            delivery,
            trail=self._trail,
            clock=self._clock,
            metrics=self._metrics,
        )
        try:
            receipt = await within_deadline(self._jobs, ref, self._clock, work.run)
        except TransientError as error:
            too_many = self._waiting.add(ref, delivery.lease, rules.limits.waiting_jobs)
            if too_many is None:
                raise
            log.warning("job_given_up", after=error.code)
            await self._fail(delivery, too_many, rules, work.counts)
        except PermanentError as error:
            self._waiting.discard(ref)
            await self._fail(delivery, error, rules, work.counts)
        else:
            self._waiting.discard(ref)
            if receipt is None:
                # another stage decided the job meanwhile; what stands must be told
                outcome = await self._jobs.outcome(ref)
                if outcome is not None:
                    await self._judge.repeat(ref, outcome, delivery.traceparent)
                return
            await delivery.lease.ensure()
            await self._hand_on(delivery, receipt)
            log.info("job_processed", records=receipt.records, ok=receipt.ok, failed=receipt.failed)

    async def _fail(self, delivery: Delivery, error: PermanentError, rules: FileRules, counts: Counts) -> None:
        await delivery.lease.ensure()
        await self._judge.fail(delivery.ref, error, rules.policies, counts=counts, traceparent=delivery.traceparent)

    async def _hand_on(self, delivery: Delivery, receipt: Processed) -> None:
        announcement = await self._jobs.newest(delivery.ref)
        await asyncio.gather(
            self._trail.note(
                AuditAction.JOB_PROCESSED,
                delivery.ref,
                receipt.generation,
                traceparent=delivery.traceparent,
                at=receipt.at,
                detail={
                    "generation": receipt.generation,
                    "records": receipt.records,
                    "ok": receipt.ok,
                    "failed": receipt.failed,
                    "result_bytes": receipt.result_bytes,
                },
            ),
            self._publisher.publish(processed_record(delivery, announcement, receipt)),
        )

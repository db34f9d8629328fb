"""UPLOAD: from decided cards to a result file at ECS, and the outcome ``completed``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from pipeline.contracts import AuditAction, BatchProcessed, Record
from pipeline.errors import PermanentError, TransientError
from pipeline.jobs.announcements import rules_for
from pipeline.jobs.audit_trail import Trail
from pipeline.jobs.deadline import within_deadline
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.messages import Delivery, decode, receipt_missing, ref_of
from pipeline.jobs.outcomes import Counts, Judge
from pipeline.jobs.receipts import Processed, Uploaded
from pipeline.jobs.settings import JobLimits, JobPolicies
from pipeline.jobs.transfer import SignedUrl, Uploader, signed_url
from pipeline.jobs.waiting import Waiting
from pipeline.kafka.protocols import Lease, Publisher
from pipeline.observability import Metrics

log = structlog.get_logger(__name__)

STAGE: Final = "upload"


@dataclass(frozen=True, slots=True)
class UploadRules:
    """What UPLOAD knows of one integration."""

    limits: JobLimits
    policies: JobPolicies
    uploader: Uploader


class UploadStage:
    """Handler of ``card-batch.processed``: one PUT, streamed from the parts; repeatable until the deadline."""

    def __init__(
        self,
        jobs: JobStore,
        publisher: Publisher,
        integrations: Mapping[str, UploadRules],
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._jobs = jobs
        self._integrations = integrations
        self._clock = clock
        self._metrics = metrics
        self._trail = Trail(publisher, STAGE, clock)
        self._judge = Judge(jobs, publisher, self._trail, clock=clock, metrics=metrics, stage=STAGE)
        self._waiting = Waiting()

    async def arrive(self, record: Record) -> None:
        """Nothing is known yet that others must see."""

    async def handle(self, record: Record, lease: Lease) -> None:
        """Bring a processed job to its outcome, or find that it has one."""
        message = decode(record, BatchProcessed)
        ref, rules = ref_of(message), rules_for(self._integrations, message.integration)
        delivery = Delivery.of(record, ref, lease)
        with structlog.contextvars.bound_contextvars(
            integration=ref.integration, job_guid=str(ref.job_guid), attempt=ref.attempt
        ):
            outcome = await self._jobs.outcome(ref)
            if outcome is not None:
                await self._judge.repeat(ref, outcome, delivery.traceparent)
                return
            processed = await self._jobs.processed(ref)
            if processed is None:
                raise receipt_missing(ref, "processed.json")
            await self._finish(delivery, processed, rules)

    async def _finish(self, delivery: Delivery, processed: Processed, rules: UploadRules) -> None:
        ref = delivery.ref
        try:
            uploaded = await self._jobs.uploaded(ref)
            if uploaded is None:
                uploaded = await within_deadline(
                    self._jobs, ref, self._clock, lambda: self._upload(delivery, processed, rules)
                )
        except TransientError as error:
            too_many = self._waiting.add(ref, delivery.lease, rules.limits.waiting_jobs)
            if too_many is None:
                raise
            log.warning("upload_given_up", after=error.code)
            await self._fail(delivery, too_many, processed, rules)
        except PermanentError as error:
            await self._fail(delivery, error, processed, rules)
        else:
            self._waiting.discard(ref)
            await self._trail.note(
                AuditAction.RESULT_UPLOADED,
                ref,
                processed.generation,
                traceparent=delivery.traceparent,
                at=uploaded.at,
                detail={"bytes": uploaded.bytes, "etag": uploaded.etag},
            )
            await delivery.lease.ensure()
            await self._judge.complete(delivery, processed, uploaded, rules.policies)

    async def _upload(self, delivery: Delivery, processed: Processed, rules: UploadRules) -> Uploaded:
        ref, lease = delivery.ref, delivery.lease
        manifests = await self._jobs.manifests(ref, processed.generation, range(processed.parts))

        def body() -> AsyncIterator[bytes]:
            return self._jobs.stream(manifests)

        async def url() -> SignedUrl:
            await lease.ensure()  # asked for before each try
            newest = await self._jobs.newest(ref)
            return signed_url(
                newest.request.result_upload_url,
                expires_at=newest.request.expires_at,
                margin_seconds=rules.limits.deadline_margin_seconds,
            )

        etag = await rules.uploader.put(url, size=processed.result_bytes, body=body)
        log.info("result_uploaded", bytes=processed.result_bytes)
        await lease.ensure()
        receipt = Uploaded(etag=etag, bytes=processed.result_bytes, at=self._clock())
        return await self._jobs.record_uploaded(ref, receipt)

    async def _fail(self, delivery: Delivery, error: PermanentError, processed: Processed, rules: UploadRules) -> None:
        self._waiting.discard(delivery.ref)
        await delivery.lease.ensure()
        counts = Counts(processed.ok, processed.failed)
        await self._judge.fail(delivery.ref, error, rules.policies, counts=counts, traceparent=delivery.traceparent)

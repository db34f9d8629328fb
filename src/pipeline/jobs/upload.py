"""UPLOAD: from decided cards to a result file at the partner, and the outcome ``completed``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import structlog

from pipeline.contracts import AuditAction, BatchProcessed, Record
from pipeline.jobs.announcements import JobRules, rules_for
from pipeline.jobs.messages import StageMessage, decode, receipt_missing, ref_of
from pipeline.jobs.outcomes import Counts, Decider, OutcomeExists
from pipeline.jobs.receipts import Processed, Uploaded
from pipeline.jobs.stage import StageContext, job_in_logs
from pipeline.jobs.transfer import SignedUrl, Uploader, signed_url
from pipeline.kafka.protocols import Lease

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRules(JobRules):
    """What UPLOAD knows of one integration."""

    uploader: Uploader


class UploadStage:
    """Handler of ``card-batch.processed``: one PUT, streamed from the parts; repeatable until the deadline."""

    def __init__(self, context: StageContext, integrations: Mapping[str, UploadRules]) -> None:
        self._context = context
        self._jobs = context.jobs
        self._integrations = integrations
        self._decider = Decider(context)

    async def handle(self, record: Record, lease: Lease) -> None:
        """Bring a processed job to its outcome, or find that it has one."""
        body = decode(record, BatchProcessed)
        ref, rules = ref_of(body), rules_for(self._integrations, body.integration)
        message = StageMessage.of(record, ref, lease)
        with job_in_logs(ref):
            if await self._decider.publish_existing(ref, message.traceparent):
                return
            async with self._decider.failing_damaged(message, rules):
                processed = await self._jobs.processed(ref)
                if processed is None:
                    raise receipt_missing(ref, "processed.json")
                await self._complete(message, processed, rules)

    async def _complete(self, message: StageMessage, processed: Processed, rules: UploadRules) -> None:
        ref = message.ref

        async def upload_once() -> Uploaded:
            existing = await self._jobs.uploaded(ref)
            if existing is not None:
                return existing
            return await self._context.within_deadline(ref, lambda: self._upload(message, processed, rules))

        counts = Counts(processed.ok, processed.failed)
        uploaded = await self._decider.run(message, rules, upload_once, lambda: counts)
        if uploaded is None:
            return
        await self._context.audit(
            AuditAction.RESULT_UPLOADED,
            ref,
            processed.generation,
            traceparent=message.traceparent,
            at=uploaded.at,
            detail={"bytes": uploaded.bytes, "etag": uploaded.etag},
        )
        await message.lease.ensure()
        await self._decider.complete(message, processed, uploaded, rules)

    async def _upload(self, message: StageMessage, processed: Processed, rules: UploadRules) -> Uploaded:
        ref, lease = message.ref, message.lease
        manifests = await self._jobs.manifests(ref, processed.generation, range(processed.parts))
        self._jobs.cipher.require(one.sealed for one in manifests)  # before the PUT begins, which could not end

        def body() -> AsyncIterator[bytes]:
            return self._jobs.stream(manifests)

        async def url() -> SignedUrl:
            # the uploader asks for the URL before each try
            await lease.ensure()
            if await self._jobs.outcome(ref) is not None:
                raise OutcomeExists
            newest = await self._jobs.newest(ref)
            return signed_url(
                newest.request.result_upload_url,
                expires_at=newest.request.expires_at,
                margin_seconds=rules.limits.deadline_margin_seconds,
            )

        etag = await rules.uploader.put(url, size=processed.result_bytes, body=body)
        log.info("result_uploaded", bytes=processed.result_bytes)
        await lease.ensure()
        receipt = Uploaded(etag=etag, bytes=processed.result_bytes, at=self._context.clock())
        return await self._jobs.record_uploaded(ref, receipt)

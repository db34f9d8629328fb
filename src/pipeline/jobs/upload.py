"""UPLOAD: uploads the result file to the partner and decides the outcome ``completed``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import structlog

from pipeline.contracts import BatchProcessed, Record
from pipeline.jobs.announcements import JobRules, rules_for
from pipeline.jobs.current_url import current_url
from pipeline.jobs.messages import StageMessage, decode, receipt_missing, ref_of
from pipeline.jobs.outcomes import Counts, Decider
from pipeline.jobs.read_ahead import ReadAhead
from pipeline.jobs.receipts import Processed
from pipeline.jobs.stage import StageContext, job_in_logs
from pipeline.jobs.transfer import Uploader
from pipeline.kafka.protocols import Lease

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRules(JobRules):
    """The rules of UPLOAD for one integration."""

    uploader: Uploader


class UploadStage:
    """Handler of ``card-batch.processed``: one PUT, streamed from the parts; repeatable until the deadline.

    The outcome ``completed`` is the receipt of the PUT. A worker that dies between the two repeats the PUT.
    """

    def __init__(self, context: StageContext, integrations: Mapping[str, UploadRules]) -> None:
        self._context = context
        self._integrations = integrations
        self._ahead = ReadAhead()

    async def handle(self, record: Record, lease: Lease) -> None:
        """Bring a processed job to its outcome, unless it has one."""
        body = decode(record, BatchProcessed)
        ref, rules = ref_of(body), rules_for(self._integrations, body.integration)
        message = StageMessage.of(record, ref, lease)
        context, jobs = self._context.recent(ref)
        decider = Decider(context)
        with job_in_logs(ref):
            await jobs.load()
            if await decider.publish_existing(ref, message.traceparent):
                return
            async with decider.failing_damaged(message, rules):
                processed = await jobs.processed(ref) or await self._context.jobs.processed(ref)
                if processed is None:
                    raise receipt_missing(ref, "processed.json")
                counts = Counts(processed.ok, processed.failed)
                upload = _Upload(context, message, processed, rules, self._ahead)
                etag = await decider.run(message, rules, upload.run, lambda: counts)
                if etag is not None:
                    await message.lease.ensure()
                    await decider.complete(message, processed, etag, rules)


class _Upload:
    """The upload of one job's result."""

    def __init__(
        self,
        context: StageContext,
        message: StageMessage,
        processed: Processed,
        rules: UploadRules,
        ahead: ReadAhead,
    ) -> None:
        self._context = context
        self._jobs = context.jobs
        self._ref = message.ref
        self._processed = processed
        self._uploader = rules.uploader
        self._ahead = ahead
        self._url = current_url(context, message.ref, rules, "result_upload_url", message.lease)

    async def run(self) -> str:
        """Return the ETag of the uploaded result."""
        etag = await self._context.within_deadline(self._ref, self._put)
        log.info("result_uploaded", bytes=self._processed.result_bytes)
        return etag

    async def _put(self) -> str:
        processed = self._processed
        manifests = await self._jobs.manifests(self._ref, processed.generation, range(processed.parts))
        self._jobs.cipher.require(one.sealed for one in manifests)  # before the PUT begins, which could not end

        def body() -> AsyncGenerator[bytes, None]:
            return self._jobs.stream(manifests, self._ahead)

        return await self._uploader.put(self._url, size=processed.result_bytes, body=body)

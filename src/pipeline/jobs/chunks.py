"""One job's file: continues where the last run ended, and does the remaining chunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import structlog

from pipeline.contracts import AuditAction
from pipeline.errors import LeaseLost, PermanentError, TransientError, most_severe
from pipeline.jobs.announcements import JobRules
from pipeline.jobs.csv_engine import (
    Chunk,
    ChunkEngine,
    ChunkResult,
    CsvLimits,
    CsvSettings,
    Layout,
    Position,
    ProcessorFailed,
    Splitter,
    generation,
    plan_hash,
)
from pipeline.jobs.messages import StageMessage
from pipeline.jobs.outcomes import Counts, OutcomeExists
from pipeline.jobs.processors import JobContext, LoadedProcessor
from pipeline.jobs.receipts import Announcement, Checkpoint, FilePosition, Manifest, Processed, Source
from pipeline.jobs.stage import StageContext
from pipeline.jobs.starts import Start, Starts
from pipeline.jobs.transfer import MAX_PUT_BYTES, Download, Downloader, SignedUrl, SourceChanged, signed_url
from pipeline.kafka.slots import Share
from pipeline.outbound import Circuit

log = structlog.get_logger(__name__)

_LEAST_ADDED: Final = len(",ok,")
"""Fewest bytes that the result adds to a record: the status, an empty message, two delimiters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRules(JobRules):
    """How PROCESS reads and processes an integration's files.

    Attributes:
        chunk_slots: The integration's share of the chunks that the worker processes at the same time.
        circuit: The circuit breaker of its card service.
    """

    csv: CsvSettings
    csv_limits: CsvLimits
    processor: LoadedProcessor
    downloader: Downloader
    chunk_slots: Share
    circuit: Circuit

    @property
    def plan(self) -> str:
        """Hash of everything that determines the result's bytes, except the file."""
        return plan_hash(self.csv, self.csv_limits, self.processor)


class FileWork:
    """The work on one job's file for one message.

    A crash costs the chunks that were in flight: the next run finds finished chunks by their manifests and does not
    process them again. Memory is bounded by ``chunks_in_flight + 2`` chunks. A chunk is processed while it holds a slot
    of the integration's share, which it gives back after its manifest; while it waits, the download may be cut.
    """

    def __init__(self, context: StageContext, rules: FileRules, message: StageMessage, starts: Starts) -> None:
        self._context = context
        self._starts = starts
        self._start: Start | None = None
        self._jobs = context.jobs
        self._metrics = context.metrics
        self._rules = rules
        self._ref = message.ref
        self._lease = message.lease
        self._traceparent = message.traceparent
        self._done: dict[int, Manifest] = {}

    @property
    def counts(self) -> Counts:
        """Cards decided so far, those of earlier runs included."""
        return Counts(sum(one.ok for one in self._done.values()), sum(one.failed for one in self._done.values()))

    async def run(self) -> Processed:
        """Return the receipt once every card is decided.

        Raises:
            PermanentError: The job cannot be done.
            TransientError: Try again later; finished chunks stay finished.
            OutcomeExists: The job's outcome was decided meanwhile.
            LeaseLost: Another worker may be doing this job.
        """
        found = await self._jobs.checkpoint(self._ref, self._rules.plan)
        if found is not None and found.gapless and found.source.etag:
            try:
                return await self._run_from(found)
            except SourceChanged:
                log.warning("source_changed", generation=found.generation)
        return await self._run_from(None, parts_left=found is not None)

    async def _run_from(self, checkpoint: Checkpoint | None, *, parts_left: bool = False) -> Processed:
        announcement = await self._jobs.newest(self._ref)
        start = checkpoint.manifests[checkpoint.gapless - 1].end.byte if checkpoint else 0
        etag = checkpoint.source.etag if checkpoint else None
        encoding = checkpoint.source.encoding if checkpoint else None
        async with self._rules.downloader.open(self._url, start=start, etag=etag, encoding=encoding) as download:
            if checkpoint is None:
                checkpoint = await self._fitting(download, parts_left=parts_left)
                resumed = None
            else:
                resumed = checkpoint
            self._done = dict(checkpoint.manifests)
            self._metrics.chunks.labels(self._ref.integration, "found").inc(len(self._done))
            await self._audit_start(checkpoint)
            async with self._starts.run(self._ref, self._lease) as self._start:
                await self._work_off(download, checkpoint, resumed, announcement)
        last = self._done[max(self._done)]
        self._check_totals(last.end.record, announcement)
        await self._lease.ensure()
        return await self._jobs.record_processed(
            self._ref,
            Processed(
                announcement=announcement.id,
                generation=checkpoint.generation,
                parts=len(self._done),
                records=last.end.record,
                ok=self.counts.ok,
                failed=self.counts.failed,
                result_bytes=self._result_bytes,
                at=self._context.clock(),
            ),
        )

    async def _fitting(self, download: Download, *, parts_left: bool) -> Checkpoint:
        """Return the parts that an earlier run made of exactly this file, or an empty checkpoint."""
        info, plan = download.info, self._rules.plan
        # without an ETag nothing shows that the file is the same: such a generation is never found again
        name = generation(info.etag or uuid4().hex, info.size, plan)
        if parts_left and (found := await self._jobs.checkpoint(self._ref, plan, name)):
            return found
        return Checkpoint(name, Source(plan=plan, etag=info.etag, size=info.size, encoding=info.encoding), {})

    async def _work_off(
        self, download: Download, checkpoint: Checkpoint, resumed: Checkpoint | None, announcement: Announcement
    ) -> None:
        slots = asyncio.Semaphore(self._rules.limits.chunks_in_flight)
        engine: ChunkEngine | None = None
        end: PermanentError | TransientError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    async with aclosing(self._chunks(download, resumed)) as chunks:
                        async for chunk, header in chunks:
                            if engine is None:
                                engine = await self._begin(checkpoint, header, announcement)
                            if chunk.number in self._done:
                                continue
                            self._check_chunk(chunk, announcement)
                            await slots.acquire()
                            group.create_task(self._do(chunk, engine, checkpoint.generation, slots))
                except (PermanentError, TransientError) as error:
                    end = error  # let chunks in flight finish first: their cards are processed already
        except BaseExceptionGroup as errors:
            raise most_severe(BaseExceptionGroup("", [*errors.exceptions, end]) if end else errors) from None
        if end is not None:
            raise end

    async def _chunks(
        self, download: Download, resumed: Checkpoint | None
    ) -> AsyncGenerator[tuple[Chunk, bytes], None]:
        """Yield the remaining chunks and the file's header. A thread splits the file, a piece at a time."""
        rules = self._rules
        splitter = (
            Splitter(
                rules.csv,
                rules.csv_limits,
                at=_position(resumed.manifests[resumed.gapless - 1].end),
                next_chunk=resumed.gapless,
                header=resumed.source.header or b"",
            )
            if resumed
            else Splitter(rules.csv, rules.csv_limits)
        )
        async for piece in download.chunks():
            for chunk in await asyncio.to_thread(splitter.feed, piece):
                yield chunk, splitter.header or b""
        for chunk in await asyncio.to_thread(splitter.finish):
            yield chunk, splitter.header or b""

    async def _begin(self, checkpoint: Checkpoint, header: bytes, announcement: Announcement) -> ChunkEngine:
        """Read the header, record the source of this generation, and return the engine."""
        rules, request = self._rules, announcement.request
        await rules.processor.open()
        layout = Layout.of(header, rules.csv, result_columns=rules.processor.result_columns)
        if layout.dropped:
            log.info("columns_dropped", columns=[index + 1 for index in layout.dropped])
        self._check_size(checkpoint.source, layout, announcement)
        if not checkpoint.manifests:
            source = checkpoint.source.model_copy(update={"header": header or None})
            await self._lease.ensure()
            await self._jobs.record_source(self._ref, checkpoint.generation, source)
        context = JobContext(
            integration=self._ref.integration,
            job_guid=self._ref.job_guid,
            merchant_guid=request.merchant_guid,
            partner_reference_id=request.partner_reference_id,
            external_location_ids=request.external_location_ids,
            deadline=announcement.deadline,
        )
        return ChunkEngine(layout, rules.processor, context, circuit=rules.circuit)

    async def _do(self, chunk: Chunk, engine: ChunkEngine, name: str, slots: asyncio.Semaphore) -> None:
        """Decide one chunk's cards, and record its part as one of the result."""
        try:
            async with self._rules.chunk_slots:
                await self._decide(chunk, engine, name)
        finally:
            slots.release()

    async def _decide(self, chunk: Chunk, engine: ChunkEngine, name: str) -> None:
        await self._lease.ensure()
        if await self._jobs.outcome(self._ref) is not None:
            raise OutcomeExists
        begun = time.perf_counter()
        result = await self._run_engine(engine, chunk)
        self._metrics.chunk_seconds.labels(self._ref.integration).observe(time.perf_counter() - begun)
        await self._lease.ensure()
        part = await self._jobs.write_part(self._ref, name, chunk.number, result.data)
        manifest = Manifest(
            number=chunk.number,
            start=_file_position(chunk.start),
            end=_file_position(chunk.end),
            ok=result.ok,
            failed=result.failed,
            size=len(result.data),
            crc32=part.crc32,
            data=part.key,
            sealed=part.sealed,
        )
        await self._lease.ensure()
        if not await self._jobs.record_manifest(self._ref, name, manifest):
            raise LeaseLost("chunk_taken", f"another worker decided chunk {chunk.number} of this job")
        self._done[chunk.number] = manifest
        if self._start is not None:
            self._start.progressed()
        self._metrics.chunks.labels(self._ref.integration, "done").inc()
        self._metrics.cards.labels(self._ref.integration, "ok").inc(result.ok)
        self._metrics.cards.labels(self._ref.integration, "failed").inc(result.failed)
        if self._result_bytes > MAX_PUT_BYTES:
            raise _result_too_large(self._result_bytes)

    async def _run_engine(self, engine: ChunkEngine, chunk: Chunk) -> ChunkResult:
        try:
            return await engine.run(chunk)
        except ProcessorFailed as error:
            kind, frames = (error.fault.kind, error.fault.lines) if error.fault else (None, [])
            log.error(  # noqa: TRY400 - the text of what it raised may hold a card
                "processor_failed", message=error.message, chunk=chunk.number, error=kind, frames=frames
            )
            raise

    @property
    def _result_bytes(self) -> int:
        return sum(one.size for one in self._done.values())

    async def _url(self) -> SignedUrl:
        """Return the current URL; the downloader asks for it before each try."""
        if await self._jobs.outcome(self._ref) is not None:
            raise OutcomeExists
        newest = await self._jobs.newest(self._ref)
        return signed_url(
            newest.request.input_file_url,
            expires_at=newest.request.expires_at,
            margin_seconds=self._rules.limits.deadline_margin_seconds,
        )

    async def _audit_start(self, checkpoint: Checkpoint) -> None:
        await self._context.audit(
            AuditAction.JOB_STARTED,
            self._ref,
            checkpoint.generation,
            traceparent=self._traceparent,
            detail={"generation": checkpoint.generation, "bytes": checkpoint.source.size},
        )

    def _check_size(self, source: Source, layout: Layout, announcement: Announcement) -> None:
        """Fail before the first card if the result would be too large to upload."""
        if source.encoding != "identity" or source.size is None or layout.dropped:
            return
        least = source.size + announcement.request.record_count * _LEAST_ADDED
        if least > MAX_PUT_BYTES:
            raise _result_too_large(least)

    def _check_chunk(self, chunk: Chunk, announcement: Announcement) -> None:
        """Stop at the first record above the announced count, before more cards are processed."""
        announced = announcement.request.record_count
        if self._rules.policies.record_count_mismatch == "fail" and chunk.end.record > announced:
            raise PermanentError(
                "record_count_mismatch",
                f"The file holds more records than announced: record_count is {announced}, and record "
                f"{announced + 1} exists. Announce the number of data records, not counting the header.",
            )

    def _check_totals(self, records: int, announcement: Announcement) -> None:
        policies, announced = self._rules.policies, announcement.request.record_count
        if records == 0 and announced > 0:
            if policies.empty_file == "fail":
                raise PermanentError(
                    "file_empty", f"The file holds no data record, but record_count announces {announced}."
                )
            return
        if records != announced:
            if policies.record_count_mismatch == "fail":
                raise PermanentError(
                    "record_count_mismatch",
                    f"The file holds {records} records, but record_count announces {announced}. "
                    "Announce the number of data records, not counting the header.",
                )
            log.warning("record_count_mismatched", announced=announced, records=records)
        failed = self.counts.failed
        if records and failed / records > policies.max_failed_share:
            raise PermanentError(
                "too_many_failed_cards",
                f"{failed} of {records} cards failed, more than the agreed share of {policies.max_failed_share:.1%}; "
                "no result was uploaded.",
            )


def _result_too_large(size: int) -> PermanentError:
    return PermanentError(
        "result_too_large",
        f"The result would be at least {size} bytes, but one upload takes at most {MAX_PUT_BYTES} bytes (5 GB). "
        "Split the batch into several jobs.",
    )


def _position(stored: FilePosition) -> Position:
    return Position(byte=stored.byte, record=stored.record, line=stored.line)


def _file_position(position: Position) -> FilePosition:
    return FilePosition(byte=position.byte, record=position.record, line=position.line)

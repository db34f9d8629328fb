"""One job's file: continues where the last run ended, and does the remaining chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final
from uuid import uuid4

import structlog

from pipeline.contracts import AuditAction
from pipeline.errors import PermanentError, TransientError, most_severe
from pipeline.jobs.chunk_work import ChunkWork, FileRules, check_result_size, open_layout
from pipeline.jobs.csv_engine import (
    Chunk,
    Layout,
    Position,
    Splitter,
    generation,
)
from pipeline.jobs.messages import StageMessage
from pipeline.jobs.outcomes import Counts, OutcomeExists
from pipeline.jobs.receipts import Announcement, Checkpoint, FilePosition, Manifest, Processed, Source
from pipeline.jobs.stage import StageContext
from pipeline.jobs.starts import Start, Starts
from pipeline.jobs.transfer import Download, SignedUrl, SourceChanged, signed_url

log = structlog.get_logger(__name__)

_LEAST_ADDED: Final = len(",ok,")
"""Fewest bytes that the result adds to a record: the status, an empty message, two delimiters."""


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
        self._message = message
        self._done: dict[int, Manifest] = {}
        self._counts = Counts()
        self._result_bytes = 0

    @property
    def counts(self) -> Counts:
        """Cards decided so far, those of earlier runs included."""
        return self._counts

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
            self._begin_with(checkpoint)
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

    def _begin_with(self, checkpoint: Checkpoint) -> None:
        self._done, self._counts, self._result_bytes = {}, Counts(), 0
        for manifest in checkpoint.manifests.values():
            self._count(manifest)

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
        work: ChunkWork | None = None
        end: PermanentError | TransientError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    async with aclosing(self._chunks(download, resumed)) as chunks:
                        async for chunk, header in chunks:
                            if work is None:
                                work = await self._begin(checkpoint, header, announcement)
                            if chunk.number in self._done:
                                continue
                            self._check_chunk(chunk, announcement)
                            await slots.acquire()
                            group.create_task(self._do(chunk, work, slots))
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

    async def _begin(self, checkpoint: Checkpoint, header: bytes, announcement: Announcement) -> ChunkWork:
        """Read the header, record the source of this generation, and return the work on its chunks."""
        layout = await open_layout(self._rules, header)
        self._check_size(checkpoint.source, layout, announcement)
        if not checkpoint.manifests:
            source = checkpoint.source.model_copy(update={"header": header or None})
            await self._lease.ensure()
            await self._jobs.record_source(self._ref, checkpoint.generation, source)
        return ChunkWork(
            self._context, self._rules, self._message, checkpoint.generation, layout=layout, announcement=announcement
        )

    async def _do(self, chunk: Chunk, work: ChunkWork, slots: asyncio.Semaphore) -> None:
        """Decide one chunk's cards, and record its part as one of the result."""
        try:
            async with self._rules.chunk_slots:
                await self._decide(chunk, work)
        finally:
            slots.release()

    async def _decide(self, chunk: Chunk, work: ChunkWork) -> None:
        manifest = await work.decide(chunk)
        self._count(manifest)
        if self._start is not None:
            self._start.progressed()
        check_result_size(self._result_bytes)

    def _count(self, manifest: Manifest) -> None:
        self._done[manifest.number] = manifest
        self._counts = Counts(self._counts.ok + manifest.ok, self._counts.failed + manifest.failed)
        self._result_bytes += manifest.size

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
        check_result_size(source.size + announcement.request.record_count * _LEAST_ADDED)

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


def _position(stored: FilePosition) -> Position:
    return Position(byte=stored.byte, record=stored.record, line=stored.line)

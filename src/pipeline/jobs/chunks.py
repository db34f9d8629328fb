"""Processes one job's file: continues where the last run ended, and processes the remaining chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from uuid import uuid4

import structlog

from pipeline.contracts import AuditAction
from pipeline.errors import PermanentError, TransientError, most_severe
from pipeline.jobs.chunk_work import ChunkWork, FileRules, chunks_of, open_layout, position
from pipeline.jobs.csv_engine import (
    Chunk,
    Splitter,
    generation,
)
from pipeline.jobs.current_url import current_url
from pipeline.jobs.fanout import Coordinator, Planner, SharedJobs
from pipeline.jobs.file_checks import FileChecks, check_result_size
from pipeline.jobs.messages import StageMessage
from pipeline.jobs.outcomes import Counts
from pipeline.jobs.receipts import Announcement, Checkpoint, Manifest, Processed, Source
from pipeline.jobs.stage import StageContext
from pipeline.jobs.starts import Start, Starts
from pipeline.jobs.transfer import Download, SourceChanged

log = structlog.get_logger(__name__)


class _JobChanged(Exception):
    """The job is not any more as an earlier try left it: begin again with what it is now."""


class FileWork:
    """The work on one job's file for one message.

    After a crash, only the chunks in flight are processed again: the next run finds the finished ones by their
    manifests. Memory holds at most ``chunks_in_flight + 2`` chunks. A chunk holds a slot of the integration's share
    until its manifest is stored. While it waits for a slot, the server may cut the download.

    All workers process the chunks of a file above ``limits.fanout_bytes``. Then this class only divides the file, hands
    out the chunks, and waits.
    """

    def __init__(
        self, context: StageContext, rules: FileRules, message: StageMessage, starts: Starts, shared: SharedJobs
    ) -> None:
        self._context = context
        self._starts = starts
        self._shared = shared
        self._start: Start | None = None
        self._jobs = context.jobs
        self._metrics = context.metrics
        self._rules = rules
        self._ref = message.ref
        self._lease = message.lease
        self._traceparent = message.traceparent
        self._message = message
        self._url = current_url(context, message.ref, rules, "input_file_url")
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
        try:
            return await self._run()
        except _JobChanged:
            pass
        except PermanentError:
            if not await self._jobs.refresh():
                raise
        return await self._run()

    async def _run(self) -> Processed:
        found = await self._jobs.checkpoint(self._ref, self._rules.plan)
        if found is not None and found.source.etag:
            try:
                if await self._jobs.plan(self._ref, found.generation) is not None:
                    return await self._share(found)
                if found.gapless:
                    return await self._run_from(found)
            except SourceChanged:
                log.warning("source_changed", generation=found.generation)
        return await self._run_from(None, parts_left=found is not None)

    async def _run_from(
        self, checkpoint: Checkpoint | None, *, parts_left: bool = False, alone: bool = False
    ) -> Processed:
        announcement = await self._jobs.newest(self._ref)
        start = checkpoint.manifests[checkpoint.gapless - 1].end.byte if checkpoint else 0
        etag = checkpoint.source.etag if checkpoint else None
        encoding = checkpoint.source.encoding if checkpoint else None
        async with self._rules.downloader.open(self._url, start=start, etag=etag, encoding=encoding) as download:
            if await self._jobs.refresh():
                raise _JobChanged
            if checkpoint is None:
                checkpoint = await self._fitting(download, parts_left=parts_left)
                resumed = None
            else:
                resumed = checkpoint
            shared = resumed is None and not alone and self._is_large(checkpoint.source)
            if not shared:
                await self._run_alone(download, checkpoint, resumed, announcement)
        if shared:
            return await self._share(checkpoint)
        last = self._done[max(self._done)]
        return await self._finish(checkpoint, announcement, parts=len(self._done), records=last.end.record)

    async def _run_alone(
        self, download: Download, checkpoint: Checkpoint, resumed: Checkpoint | None, announcement: Announcement
    ) -> None:
        self._begin_with(checkpoint.manifests)
        self._metrics.chunks.labels(self._ref.integration, "found").inc(len(self._done))
        await self._audit_start(checkpoint)
        async with self._starts.run(self._ref, self._lease) as self._start:
            await self._work_off(download, checkpoint, resumed, announcement)

    def _is_large(self, source: Source) -> bool:
        """Return whether all workers share the file: it is large, and a worker can download single chunks of it."""
        bound = self._rules.limits.fanout_bytes
        plain = source.encoding == "identity" and source.etag and source.size is not None
        return bool(plain and bound and source.size and source.size > bound)

    async def _share(self, checkpoint: Checkpoint) -> Processed:
        """Divide the file, unless that is done already, and let all workers process its chunks."""
        announcement = await self._jobs.newest(self._ref)
        with self._shared.one_of(self._ref.integration):
            planner = Planner(self._context, self._rules, self._message, self._starts, self._url)
            plan = await planner.plan(checkpoint, announcement)
            if plan is not None:
                self._begin_with({})
                await self._audit_start(checkpoint)
                coordinator = Coordinator(self._context, self._rules, self._message, self._url, self._count_shared)
                await coordinator.run(checkpoint.generation, checkpoint.source, plan, announcement)
        if plan is None:
            return await self._run_from(None, parts_left=True, alone=True)
        return await self._finish(checkpoint, announcement, parts=plan.chunks, records=plan.records)

    async def _finish(
        self, checkpoint: Checkpoint, announcement: Announcement, *, parts: int, records: int
    ) -> Processed:
        FileChecks(self._rules, announcement).totals(records, failed=self.counts.failed)
        await self._lease.ensure()
        return await self._jobs.record_processed(
            self._ref,
            Processed(
                announcement=announcement.id,
                generation=checkpoint.generation,
                parts=parts,
                records=records,
                ok=self.counts.ok,
                failed=self.counts.failed,
                result_bytes=self._result_bytes,
                at=self._context.clock(),
            ),
        )

    def _begin_with(self, manifests: Mapping[int, Manifest]) -> None:
        self._done, self._counts, self._result_bytes = {}, Counts(), 0
        for manifest in manifests.values():
            self._count(manifest)

    async def _fitting(self, download: Download, *, parts_left: bool) -> Checkpoint:
        """Return the parts that an earlier run made of exactly this file, or an empty checkpoint."""
        info, plan = download.info, self._rules.plan
        # without an ETag nothing proves that a file is the same: no later run finds this generation
        name = generation(info.etag or uuid4().hex, info.size, plan)
        if parts_left and (found := await self._jobs.checkpoint(self._ref, plan, name)):
            return found
        return Checkpoint(name, Source(plan=plan, etag=info.etag, size=info.size, encoding=info.encoding), {})

    async def _work_off(
        self, download: Download, checkpoint: Checkpoint, resumed: Checkpoint | None, announcement: Announcement
    ) -> None:
        slots = asyncio.Semaphore(self._rules.limits.chunks_in_flight)
        checks = FileChecks(self._rules, announcement)
        splitter = self._splitter(resumed)
        work: ChunkWork | None = None
        end: PermanentError | TransientError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    async with aclosing(chunks_of(download, splitter)) as chunks:
                        async for chunk in chunks:
                            if work is None:
                                work = await self._begin(checkpoint, splitter.header or b"", announcement)
                            if chunk.number in self._done:
                                continue
                            checks.chunk(chunk)
                            await slots.acquire()
                            group.create_task(self._do(chunk, work, slots))
                except (PermanentError, TransientError) as error:
                    end = error  # let chunks in flight finish first: their cards are processed already
        except BaseExceptionGroup as errors:
            raise most_severe(BaseExceptionGroup("", [*errors.exceptions, end]) if end else errors) from None
        if end is not None:
            raise end

    def _splitter(self, resumed: Checkpoint | None) -> Splitter:
        rules = self._rules
        if resumed is None:
            return Splitter(rules.csv, rules.csv_limits)
        return Splitter(
            rules.csv,
            rules.csv_limits,
            at=position(resumed.manifests[resumed.gapless - 1].end),
            next_chunk=resumed.gapless,
            header=resumed.source.header or b"",
        )

    async def _begin(self, checkpoint: Checkpoint, header: bytes, announcement: Announcement) -> ChunkWork:
        """Read the header, record the source of this generation, and return the work on its chunks."""
        layout = await open_layout(self._rules, header)
        FileChecks(self._rules, announcement).size(checkpoint.source, layout)
        if not checkpoint.manifests:
            source = checkpoint.source.model_copy(update={"header": header or None})
            await self._lease.ensure()
            await self._jobs.record_source(self._ref, checkpoint.generation, source)
        return ChunkWork(
            self._context, self._rules, self._message, checkpoint.generation, layout=layout, announcement=announcement
        )

    async def _do(self, chunk: Chunk, work: ChunkWork, slots: asyncio.Semaphore) -> None:
        """Process one chunk when the integration's share has a free slot."""
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
        self._sum(manifest)

    def _count_shared(self, manifest: Manifest) -> None:
        self._sum(manifest)
        check_result_size(self._result_bytes)

    def _sum(self, manifest: Manifest) -> None:
        self._counts = Counts(self._counts.ok + manifest.ok, self._counts.failed + manifest.failed)
        self._result_bytes += manifest.size

    async def _audit_start(self, checkpoint: Checkpoint) -> None:
        await self._context.audit(
            AuditAction.JOB_STARTED,
            self._ref,
            checkpoint.generation,
            traceparent=self._traceparent,
            detail={"generation": checkpoint.generation, "bytes": checkpoint.source.size},
        )

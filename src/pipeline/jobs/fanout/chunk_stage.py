"""CHUNKS: processes one chunk of a shared file. It is the part of PROCESS that any worker can do."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from pipeline.contracts import BatchChunk, Record
from pipeline.errors import PermanentError, Untried
from pipeline.jobs.announcements import rules_for
from pipeline.jobs.chunk_work import ChunkWork, FileRules, open_layout
from pipeline.jobs.csv_engine import Chunk, Layout, Position, Splitter
from pipeline.jobs.current_url import current_url
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.fanout.planner import bounds_of, page_of
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.messages import StageMessage, decode, receipt_missing, ref_of
from pipeline.jobs.outcomes import Decider, OutcomeExists, counts_so_far
from pipeline.jobs.receipts import Manifest, PlanPage, Source, SourceDiffers
from pipeline.jobs.stage import StageContext, job_in_logs
from pipeline.jobs.starts import Starts
from pipeline.jobs.transfer import SourceChanged
from pipeline.kafka.protocols import Lease

log = structlog.get_logger(__name__)

_FILES_KEPT: Final = 16
"""Number of shared files whose plan a worker remembers."""
_OTHER_PLAN_SECONDS: Final = 30.0


@dataclass(slots=True)
class _SharedFile:
    """A shared file that a worker remembers: its source, the columns, and pages of its plan."""

    source: Source
    layout: Layout
    pages: dict[int, PlanPage] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Task:
    """The work for one message. Its context caches the job's objects for a short time."""

    context: StageContext
    body: BatchChunk
    message: StageMessage
    rules: FileRules


class ChunkStage:
    """Handler of ``card-batch.chunks``. One call processes one chunk, exactly as PROCESS does for a small file.

    A worker processes ``limits.chunks_in_flight`` chunks of a job at a time, and downloads one more meanwhile. A
    permanent error in a chunk fails the job.

    Args:
        context: Dependencies of the stage.
        integrations: The rules of each integration.
        starts: Shared by the whole worker, because its chunks and its jobs are suspects together if it dies.
    """

    def __init__(self, context: StageContext, integrations: Mapping[str, FileRules], starts: Starts) -> None:
        self._context = context
        self._jobs = context.jobs
        self._integrations = integrations
        self._starts = starts
        self._files: OrderedDict[tuple[JobRef, str], _SharedFile] = OrderedDict()
        self._turns: dict[JobRef, _Turns] = {}

    async def handle(self, record: Record, lease: Lease) -> None:
        """Process one chunk, unless it is done or no longer needed."""
        body = decode(record, BatchChunk)
        ref, rules = ref_of(body), rules_for(self._integrations, body.integration)
        # without load(), because listing the objects of a large job takes long
        context, _ = self._context.recent(ref)
        task = _Task(context, body, StageMessage.of(record, ref, lease), rules)
        with job_in_logs(ref):
            if await context.jobs.outcome(ref) is not None:
                return  # the coordinator publishes it
            async with Decider(context).failing_damaged(task.message, rules):
                await self._handle(task)

    async def _handle(self, task: _Task) -> None:
        context, body, ref = task.context, task.body, task.message.ref
        file = await self._file(ref, body.generation, task.rules)
        bounds = await self._bounds(ref, body, file)
        if await context.jobs.manifest(ref, body.generation, body.number) is not None:
            return
        try:
            manifest = await context.within_deadline(ref, lambda: self._do(task, file, bounds))
        except OutcomeExists:
            return
        except SourceChanged:
            log.warning("source_changed", generation=body.generation, chunk=body.number)
            await task.message.lease.ensure()
            finding = SourceDiffers(number=body.number, at=context.clock())
            await context.jobs.record_source_changed(ref, body.generation, finding)
        except JobDamaged:
            raise
        except PermanentError as error:
            if await self._is_done(task):
                log.warning("chunk_done_elsewhere", code=error.code, chunk=body.number)
                return
            await task.message.lease.ensure()
            counts = await counts_so_far(self._jobs, ref)
            await Decider(context).fail(ref, error, task.rules, counts=counts, traceparent=task.message.traceparent)
        else:
            await self._drop_if_over(task, manifest)

    async def _file(self, ref: JobRef, generation: str, rules: FileRules) -> _SharedFile:
        known = self._files.get((ref, generation))
        if known is None:
            source = await self._jobs.source(ref, generation)
            if source is None:
                raise receipt_missing(ref, f"parts/{generation}/source.json")
            if source.plan != rules.plan:
                # during a rollout, another worker can plan a file with other settings or another processor
                raise Untried(
                    "plan_differs",
                    "This worker's chunk limits, CSV settings or processor differ from those of the worker that split "
                    "the file. The chunk waits for a worker with the same, or until the file is split again.",
                    retry_after=_OTHER_PLAN_SECONDS,
                )
            known = _SharedFile(source, await open_layout(rules, source.header or b""))
            self._files[ref, generation] = known
            if len(self._files) > _FILES_KEPT:
                self._files.popitem(last=False)
        self._files.move_to_end((ref, generation))
        return known

    async def _bounds(self, ref: JobRef, body: BatchChunk, file: _SharedFile) -> tuple[Position, Position]:
        number = page_of(body.number)
        page = file.pages.get(number) or await self._jobs.plan_page(ref, body.generation, number)
        found = bounds_of(page, body.number) if page else None
        if page is None or found is None:
            raise receipt_missing(ref, f"parts/{body.generation}/plan/{number:08d}.json")
        file.pages[number] = page
        return found

    async def _drop_if_over(self, task: _Task, manifest: Manifest) -> None:
        """Delete the chunk if the job was completed without it. Nothing else would delete it.

        This happens if the file is split again, after a change or an upgrade, while a worker processes the chunk.
        """
        outcome = await task.context.jobs.outcome(task.message.ref)
        if outcome is not None and outcome.outcome == "completed":
            await self._jobs.drop_chunk(task.message.ref, task.body.generation, manifest)

    async def _do(self, task: _Task, file: _SharedFile, bounds: tuple[Position, Position]) -> Manifest:
        context, body, message = task.context, task.body, task.message
        async with self._turns_of(message.ref, task.rules) as turns, turns.fetching:
            chunk = await self._fetch(task, file, bounds)
            async with turns.working, task.rules.chunk_slots:
                announcement = await context.jobs.newest(message.ref)
                work = ChunkWork(
                    context, task.rules, message, body.generation, layout=file.layout, announcement=announcement
                )
                async with self._starts.chunk(message.ref, body.generation, body.number, message.lease):
                    return await work.decide(chunk)

    async def _fetch(self, task: _Task, file: _SharedFile, bounds: tuple[Position, Position]) -> Chunk:
        start, end = bounds
        number, rules = task.body.number, task.rules
        asked = rules.downloader.open(
            current_url(task.context, task.message.ref, rules, "input_file_url"),
            start=start.byte,
            end=end.byte,
            etag=file.source.etag,
            encoding="identity",
        )
        async with asked as download:
            data = b"".join([piece async for piece in download.chunks()])
        if number:
            return Chunk(number=number, data=data, start=start, end=end)
        # the first chunk begins with the header, and perhaps with a BOM and Excel's separator line
        splitter = Splitter(rules.csv, rules.csv_limits)
        first, *more = [*splitter.feed(data), *splitter.finish()]
        if more or first.end != end:
            raise SourceChanged("source_changed", "The file behind input_file_url has other bytes under the same ETag.")
        return first

    async def _is_done(self, task: _Task) -> bool:
        """Return whether the chunk is no longer needed: another worker processed it, or the job is processed."""
        body, ref = task.body, task.message.ref
        if await self._jobs.manifest(ref, body.generation, body.number) is not None:
            return True
        return await self._jobs.processed(ref) is not None

    @asynccontextmanager
    async def _turns_of(self, ref: JobRef, rules: FileRules) -> AsyncIterator[_Turns]:
        """Limit the chunks of one job that this worker processes at a time."""
        turns = self._turns.setdefault(ref, _Turns(rules.limits.chunks_in_flight))
        turns.users += 1
        try:
            yield turns
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[ref]


class _Turns:
    """The limits of one job's chunks in this worker."""

    def __init__(self, in_flight: int) -> None:
        self.fetching = asyncio.Semaphore(in_flight + 1)
        self.working = asyncio.Semaphore(in_flight)
        self.users = 0

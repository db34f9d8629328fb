"""Processes one chunk: decides its cards, stores its part, and records the part in a manifest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import structlog

from pipeline.errors import LeaseLost
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
    plan_hash,
)
from pipeline.jobs.messages import StageMessage
from pipeline.jobs.outcomes import OutcomeExists
from pipeline.jobs.processors import JobContext, LoadedProcessor
from pipeline.jobs.receipts import Announcement, FilePosition, Manifest
from pipeline.jobs.stage import StageContext
from pipeline.jobs.transfer import Download, Downloader
from pipeline.kafka.slots import Share
from pipeline.outbound import Circuit, Pace

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRules(JobRules):
    """How PROCESS reads and processes an integration's files.

    Attributes:
        chunk_slots: The integration's share of the chunks that the worker processes at the same time.
        circuit: The circuit breaker of its card service.
        pace: How many requests a second this worker sends to its card service.
    """

    csv: CsvSettings
    csv_limits: CsvLimits
    processor: LoadedProcessor
    downloader: Downloader
    chunk_slots: Share
    circuit: Circuit
    pace: Pace

    @property
    def plan(self) -> str:
        """Hash of everything that determines the result's bytes, except the file."""
        return plan_hash(self.csv, self.csv_limits, self.processor)


async def open_layout(rules: FileRules, header: bytes) -> Layout:
    """Open the processor, and return the columns of a file."""
    await rules.processor.open()
    layout = Layout.of(header, rules.csv, result_columns=rules.processor.result_columns)
    if layout.dropped:
        log.info("columns_dropped", columns=[index + 1 for index in layout.dropped])
    return layout


class ChunkWork:
    """Processes the chunks of one generation, for one message.

    The worker that first creates a chunk's manifest wins. A second worker deletes its own part and stops.

    Args:
        context: Dependencies of the stage.
        rules: The rules of the job's integration.
        message: The message that the stage handles.
        generation: The generation of parts.
        layout: The file's columns.
        announcement: Describes the job to the processor.
    """

    def __init__(
        self,
        context: StageContext,
        rules: FileRules,
        message: StageMessage,
        generation: str,
        *,
        layout: Layout,
        announcement: Announcement,
    ) -> None:
        self._jobs = context.jobs
        self._metrics = context.metrics
        self._ref = message.ref
        self._lease = message.lease
        self._generation = generation
        request = announcement.request
        job = JobContext(
            integration=self._ref.integration,
            job_guid=self._ref.job_guid,
            merchant_guid=request.merchant_guid,
            partner_reference_id=request.partner_reference_id,
            external_location_ids=request.external_location_ids,
            deadline=announcement.deadline,
        )
        self._engine = ChunkEngine(layout, rules.processor, job, circuit=rules.circuit, pace=rules.pace)

    async def decide(self, chunk: Chunk) -> Manifest:
        """Decide the cards of one chunk; return its manifest once that is stored.

        Raises:
            OutcomeExists: The job's outcome was decided meanwhile.
            LeaseLost: Another worker may be doing this job, or has decided this chunk.
            PermanentError, TransientError: See :meth:`ChunkEngine.run`.
        """
        await self._lease.ensure()
        if await self._jobs.outcome(self._ref) is not None:
            raise OutcomeExists
        begun = time.perf_counter()
        result = await self._run_engine(chunk)
        self._metrics.chunk_seconds.labels(self._ref.integration).observe(time.perf_counter() - begun)
        manifest = await self._record(chunk, result)
        self._metrics.chunks.labels(self._ref.integration, "done").inc()
        self._metrics.cards.labels(self._ref.integration, "ok").inc(result.ok)
        self._metrics.cards.labels(self._ref.integration, "failed").inc(result.failed)
        return manifest

    async def _record(self, chunk: Chunk, result: ChunkResult) -> Manifest:
        await self._lease.ensure()
        part = await self._jobs.write_part(self._ref, self._generation, chunk.number, result.data)
        manifest = Manifest(
            number=chunk.number,
            start=file_position(chunk.start),
            end=file_position(chunk.end),
            ok=result.ok,
            failed=result.failed,
            size=len(result.data),
            crc32=part.crc32,
            data=part.key,
            sealed=part.sealed,
            inline=part.inline,
        )
        await self._lease.ensure()
        if not await self._jobs.record_manifest(self._ref, self._generation, manifest):
            await self._jobs.drop_part(part)
            raise LeaseLost("chunk_taken", f"another worker decided chunk {chunk.number} of this job")
        return manifest

    async def _run_engine(self, chunk: Chunk) -> ChunkResult:
        try:
            return await self._engine.run(chunk)
        except ProcessorFailed as error:
            kind, frames = (error.fault.kind, error.fault.lines) if error.fault else (None, [])
            log.error(  # noqa: TRY400 - the text of the exception may hold a card
                "processor_failed", message=error.message, chunk=chunk.number, error=kind, frames=frames
            )
            raise


async def chunks_of(download: Download, splitter: Splitter) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks of a file while it downloads. A thread splits one piece at a time."""
    async for piece in download.chunks():
        for chunk in await asyncio.to_thread(splitter.feed, piece):
            yield chunk
    for chunk in await asyncio.to_thread(splitter.finish):
        yield chunk


def position(stored: FilePosition) -> Position:
    """Convert a stored position to one of the CSV engine."""
    return Position(byte=stored.byte, record=stored.record, line=stored.line)


def file_position(position: Position) -> FilePosition:
    """Convert a position of the CSV engine to its stored form."""
    return FilePosition(byte=position.byte, record=position.record, line=position.line)

"""Runs a processor over the chunks of one file: parse, process, format."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline.jobs.csv_engine.columnar import run_columnar
from pipeline.jobs.csv_engine.formatting import format_records
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.protocols import Chunk, ChunkResult
from pipeline.jobs.csv_engine.records import parse
from pipeline.jobs.csv_engine.rowwise import run_rowwise
from pipeline.jobs.csv_engine.trying import Tries
from pipeline.jobs.processors.loading import LoadedProcessor
from pipeline.jobs.processors.protocols import ColumnarProcessor, JobContext


class ChunkEngine:
    """Makes result bytes of chunks. One per file; chunks may be run in any order and side by side.

    The same chunk gives the same bytes, as far as the processor says the same. Memory is a few times the chunk's.

    Args:
        layout: The file's columns.
        processor: Opened by the caller, who closes it.
        context: The job, passed on to the processor.
        pause: Waits between two attempts.
    """

    def __init__(
        self,
        layout: Layout,
        processor: LoadedProcessor,
        context: JobContext,
        *,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._layout = layout
        self._processor = processor
        self._context = context
        self._tries = Tries(processor.settings, pause)

    async def run(self, chunk: Chunk) -> ChunkResult:
        """Return the result bytes and counts of one chunk.

        Repeating is safe as far as the processor honours the cards' idempotency keys.

        Raises:
            PermanentError: As the processor raised it, or ``processor_failed`` where it broke its contract.
            TransientError: As the processor raised it.
        """
        records = await asyncio.to_thread(parse, chunk, self._layout)
        processor = self._processor.processor
        start = chunk.start.record
        if isinstance(processor, ColumnarProcessor):
            outcomes = await run_columnar(processor, records, self._layout, self._context, self._tries, start=start)
        else:
            outcomes = await run_rowwise(processor, records, self._layout, self._context, self._tries, start=start)
        data = await asyncio.to_thread(format_records, records, outcomes, self._layout)
        header = self._layout.result_header if chunk.number == 0 else b""
        ok = outcomes.ok
        return ChunkResult(data=header + data, ok=ok, failed=records.starts.size - ok)

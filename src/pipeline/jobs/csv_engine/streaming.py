"""Runs a whole file through the engine, for local files, benchmarks and authors of processors."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from pipeline.jobs.csv_engine.engine import ChunkEngine, ChunkResult
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.settings import CsvLimits, CsvSettings
from pipeline.jobs.csv_engine.splitter import Chunk, Splitter
from pipeline.jobs.processors.loading import LoadedProcessor
from pipeline.jobs.processors.protocols import JobContext


@dataclass(frozen=True, slots=True)
class Summary:
    """How many records a file has, and how they ended."""

    records: int
    ok: int
    failed: int


Sink = Callable[[bytes], Awaitable[object]]
"""Receives the next bytes of the result."""


async def run_stream(
    source: AsyncIterator[bytes],
    sink: Sink,
    *,
    settings: CsvSettings,
    limits: CsvLimits,
    processor: LoadedProcessor,
    context: JobContext,
    in_flight: int = 2,
) -> Summary:
    """Run every chunk of ``source`` and give the result bytes to ``sink``, in order.

    Memory holds at most ``in_flight`` chunks. The caller opens and closes the processor.

    Raises:
        PermanentError, TransientError: See :class:`Splitter`, :class:`Layout` and :meth:`ChunkEngine.run`.
    """
    walk = _Walk(sink, settings, processor, context, in_flight)
    splitter = Splitter(settings, limits)
    try:
        async for piece in source:
            await walk.take(await asyncio.to_thread(splitter.feed, piece), splitter)
        await walk.take(await asyncio.to_thread(splitter.finish), splitter)
        return await walk.drain()
    finally:
        await walk.stop()


class _Walk:
    """Runs several chunks at a time and passes on their results in order."""

    def __init__(
        self, sink: Sink, settings: CsvSettings, processor: LoadedProcessor, context: JobContext, in_flight: int
    ) -> None:
        self._sink = sink
        self._settings = settings
        self._processor = processor
        self._context = context
        self._in_flight = in_flight
        self._engine: ChunkEngine | None = None
        self._running: deque[asyncio.Task[ChunkResult]] = deque()
        self._ok = self._failed = 0

    async def take(self, chunks: Sequence[Chunk], splitter: Splitter) -> None:
        """Start chunks. If too many are running, wait for the earliest."""
        if self._engine is None and splitter.header is not None:
            own = self._processor.result_columns
            layout = Layout.of(splitter.header, self._settings, result_columns=own)
            self._engine = ChunkEngine(layout, self._processor, self._context)
        for chunk in chunks:
            if len(self._running) >= self._in_flight:
                await self._deliver()
            assert self._engine is not None  # noqa: S101 - for the type checker: the header comes before any chunk
            self._running.append(asyncio.create_task(self._engine.run(chunk), name=f"chunk-{chunk.number}"))

    async def drain(self) -> Summary:
        """Wait for all chunks and return the counts."""
        while self._running:
            await self._deliver()
        return Summary(self._ok + self._failed, self._ok, self._failed)

    async def stop(self) -> None:
        """Cancel the chunks that are still running after a failure."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _deliver(self) -> None:
        result = await self._running.popleft()
        self._ok += result.ok
        self._failed += result.failed
        await self._sink(result.data)

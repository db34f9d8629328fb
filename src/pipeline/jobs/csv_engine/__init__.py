"""The CSV engine: split, parse, run a processor, format. Bytes in, bytes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.jobs.csv_engine.errors import CsvError
from pipeline.jobs.csv_engine.settings import CsvLimits, CsvSettings
from pipeline.on_demand import on_demand

if TYPE_CHECKING:
    from pipeline.jobs.csv_engine.engine import ChunkEngine, ChunkResult, use_system_allocator
    from pipeline.jobs.csv_engine.faults import ProcessorFailed
    from pipeline.jobs.csv_engine.identity import generation, idempotency_key, plan_hash
    from pipeline.jobs.csv_engine.layout import Layout
    from pipeline.jobs.csv_engine.splitter import Chunk, Position, Splitter
    from pipeline.jobs.csv_engine.streaming import Summary, run_stream
else:
    __getattr__ = on_demand(
        __name__,
        engine="ChunkEngine ChunkResult use_system_allocator",
        faults="ProcessorFailed",
        identity="generation idempotency_key plan_hash",
        layout="Layout",
        splitter="Chunk Position Splitter",
        streaming="Summary run_stream",
    )

__all__ = [
    "Chunk",
    "ChunkEngine",
    "ChunkResult",
    "CsvError",
    "CsvLimits",
    "CsvSettings",
    "Layout",
    "Position",
    "ProcessorFailed",
    "Splitter",
    "Summary",
    "generation",
    "idempotency_key",
    "plan_hash",
    "run_stream",
    "use_system_allocator",
]

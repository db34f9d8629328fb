"""The CSV engine: split, parse, run a processor, format. Bytes in, bytes out."""

from pipeline.cards.engine import ChunkEngine
from pipeline.cards.errors import CsvError
from pipeline.cards.identity import generation, idempotency_key, plan_hash
from pipeline.cards.layout import Layout
from pipeline.cards.memory import settle_memory
from pipeline.cards.protocols import Chunk, ChunkResult, Position, Split
from pipeline.cards.settings import CsvLimits, CsvSettings
from pipeline.cards.splitter import Splitter
from pipeline.cards.streaming import Summary, run_stream

__all__ = [
    "Chunk",
    "ChunkEngine",
    "ChunkResult",
    "CsvError",
    "CsvLimits",
    "CsvSettings",
    "Layout",
    "Position",
    "Split",
    "Splitter",
    "Summary",
    "generation",
    "idempotency_key",
    "plan_hash",
    "run_stream",
    "settle_memory",
]

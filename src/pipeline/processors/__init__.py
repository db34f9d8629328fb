"""What is done with a chunk of cards: built in, or your own."""

from pipeline.processors.loading import LoadedProcessor, adopt, installed, load
from pipeline.processors.protocols import (
    Card,
    CardError,
    CardResult,
    ColumnarProcessor,
    JobContext,
    Processor,
    RowProcessor,
    TransientCardError,
)
from pipeline.processors.settings import ProcessorSettings

__all__ = [
    "Card",
    "CardError",
    "CardResult",
    "ColumnarProcessor",
    "JobContext",
    "LoadedProcessor",
    "Processor",
    "ProcessorSettings",
    "RowProcessor",
    "TransientCardError",
    "adopt",
    "installed",
    "load",
]

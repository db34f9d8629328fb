"""What is done with a chunk of cards: built in, or your own."""

from pipeline.jobs.processors.loading import LoadedProcessor, OptionsRefused, adopt, installed, load, options_of
from pipeline.jobs.processors.protocols import (
    Card,
    CardError,
    CardResult,
    ColumnarProcessor,
    JobContext,
    Processor,
    RowProcessor,
    TransientCardError,
)
from pipeline.jobs.processors.settings import ProcessorRetry, ProcessorSettings

__all__ = [
    "Card",
    "CardError",
    "CardResult",
    "ColumnarProcessor",
    "JobContext",
    "LoadedProcessor",
    "OptionsRefused",
    "Processor",
    "ProcessorRetry",
    "ProcessorSettings",
    "RowProcessor",
    "TransientCardError",
    "adopt",
    "installed",
    "load",
    "options_of",
]

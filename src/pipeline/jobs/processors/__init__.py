"""Processors of cards: the built-in ones, and the interfaces for your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.jobs.processors.settings import ProcessorRetry, ProcessorSettings
from pipeline.on_demand import on_demand

if TYPE_CHECKING:
    from pipeline.jobs.processors.loading import LoadedProcessor, OptionsRefused, adopt, installed, load, options_of
    from pipeline.jobs.processors.protocols import (
        Card,
        CardError,
        CardGroup,
        CardResult,
        ColumnarProcessor,
        GroupProcessor,
        JobContext,
        Processor,
        RowProcessor,
        TransientCardError,
    )
else:
    __getattr__ = on_demand(
        __name__,
        loading="LoadedProcessor OptionsRefused adopt installed load options_of",
        protocols="Card CardError CardGroup CardResult ColumnarProcessor GroupProcessor JobContext Processor "
        "RowProcessor TransientCardError",
    )

__all__ = [
    "Card",
    "CardError",
    "CardGroup",
    "CardResult",
    "ColumnarProcessor",
    "GroupProcessor",
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

"""Errors of processors that break their contract, and checks of the errors that a processor raises itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from pipeline.errors import PermanentError, PipelineError
from pipeline.jobs.csv_engine.header import described
from pipeline.jobs.processors.settings import ProcessorSettings
from pipeline.jobs.wording import quote
from pipeline.plugins import Fault

_NOT_IN_CODES: Final = re.compile(r"[^a-z0-9_]|[0-9]{6,}")
"""Parts of a processor's error code that are replaced. Six digits or more may belong to a card number."""
_LONGEST_CODE: Final = 64
_LONGEST_MESSAGE: Final = 1000
_SHORTEST_VALUE: Final = 3
"""Shorter values, such as a country code, are not masked: they occur in too many words."""


class ProcessorFailed(PermanentError):
    """A processor broke its contract: the job fails.

    Attributes:
        fault: The exception that it raised, without its text; None if it returned a wrong value.
    """

    def __init__(self, settings: ProcessorSettings, what: str, fault: Fault | None) -> None:
        """Build the message. ``what`` completes "Processor NAME ..." and holds no card data."""
        super().__init__("processor_failed", f"Processor {settings.name} {what}.")
        self.fault = fault


def misbehaved(settings: ProcessorSettings, what: str, fault: Fault | None = None) -> ProcessorFailed:
    """Return the error for a processor that broke its contract; ``what`` holds no card data."""
    return ProcessorFailed(settings, what, fault)


def check_words(error: PipelineError, settings: ProcessorSettings, values: Iterable[str]) -> None:
    """Refuse a processor's error whose code or message is not text, and mask card values in both.

    The job's outcome, callback, log lines and metrics repeat them.

    Args:
        error: The error that the processor raised; it is changed in place.
        settings: Settings of the processor, for its name.
        values: The fields of the processor's cards.
    """
    words: list[object] = [error.code, error.message]
    if not all(isinstance(word, str) for word in words):
        raise misbehaved(settings, "raised an error whose code or message is not text")
    fields = frozenset(values)
    error.code = _NOT_IN_CODES.sub("_", without_values(error.code, fields).lower())[:_LONGEST_CODE]
    error.message = quote(without_values(error.message, fields), _LONGEST_MESSAGE)


def without_values(text: str, values: Iterable[str]) -> str:
    """Return a processor's text with each field of its cards replaced by the field's length and kind."""
    stripped = {value.strip() for value in values}
    found = [value for value in stripped if len(value) >= _SHORTEST_VALUE and value in text]
    if not found:
        return text
    longest_first = "|".join(_alone(value) for value in sorted(found, key=len, reverse=True))
    return re.sub(longest_first, lambda match: f"[{described(match[0])}]", text)


def _alone(value: str) -> str:
    """Return the pattern that finds a value. It finds a word only as a whole word, any other value anywhere."""
    return rf"(?<!\w){re.escape(value)}(?!\w)" if value.isalpha() else re.escape(value)

"""What a processor does wrong, and the words of its own errors."""

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
"""What a code of somebody's processor must not carry on: a card number has six digits or more."""
_LONGEST_CODE: Final = 64
_LONGEST_MESSAGE: Final = 1000
_SHORTEST_VALUE: Final = 3
"""Shorter values, such as a country's code, are part of too many words."""


class ProcessorFailed(PermanentError):
    """A processor broke its contract: the job fails.

    Attributes:
        fault: What it raised, without its text; None if it returned something wrong.
    """

    def __init__(self, settings: ProcessorSettings, what: str, fault: Fault | None) -> None:
        """Say what it did, free of card data."""
        super().__init__("processor_failed", f"Processor {settings.name} {what}.")
        self.fault = fault


def misbehaved(settings: ProcessorSettings, what: str, fault: Fault | None = None) -> ProcessorFailed:
    """Return the error for a processor that broke its contract; ``what`` is free of card data."""
    return ProcessorFailed(settings, what, fault)


def check_words(error: PipelineError, settings: ProcessorSettings, values: Iterable[str]) -> None:
    """Refuse a job's error without proper words, and mask them: outcome, callback, log and metrics repeat them.

    Args:
        error: As the processor raised it.
        settings: Name the processor.
        values: The fields of its cards.
    """
    words: list[object] = [error.code, error.message]
    if not all(isinstance(word, str) for word in words):
        raise misbehaved(settings, "raised an error whose code or message is no text")
    fields = frozenset(values)
    error.code = _NOT_IN_CODES.sub("_", without_values(error.code, fields).lower())[:_LONGEST_CODE]
    error.message = quote(without_values(error.message, fields), _LONGEST_MESSAGE)


def without_values(text: str, values: Iterable[str]) -> str:
    """Return a processor's text with the length and kind of each field of its cards in place of the field."""
    stripped = {value.strip() for value in values}
    found = [value for value in stripped if len(value) >= _SHORTEST_VALUE and value in text]
    if not found:
        return text
    longest_first = "|".join(_alone(value) for value in sorted(found, key=len, reverse=True))
    return re.sub(longest_first, lambda match: f"[{described(match[0])}]", text)


def _alone(value: str) -> str:
    """Return the pattern of a value: a word may be part of another one, anything else is a value wherever it is."""
    return rf"(?<!\w){re.escape(value)}(?!\w)" if value.isalpha() else re.escape(value)

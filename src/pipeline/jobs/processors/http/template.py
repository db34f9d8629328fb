"""Templates: texts with ``{column}`` placeholders, which are filled in for each card."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pydantic import JsonValue

from pipeline.errors import PermanentError
from pipeline.jobs.processors.protocols import Card, CardError, JobContext

_PARTS: Final = re.compile(r"(\{\{|\}\}|\{[^{}]+\}|[{}])")

_FACTS: Final[dict[str, Callable[[Card, JobContext], str]]] = {
    "__card_number": lambda card, _context: card.number,
    "__record": lambda card, _context: str(card.record),
    "__idempotency_key": lambda card, _context: card.idempotency_key,
    "__integration": lambda _card, context: context.integration,
    "__job_guid": lambda _card, context: str(context.job_guid),
    "__merchant_guid": lambda _card, context: str(context.merchant_guid),
    "__partner_reference_id": lambda _card, context: context.partner_reference_id,
}

FACTS: Final = frozenset(_FACTS)
"""Names that are allowed in braces besides the names of columns."""


class Template:
    """A text with ``{name}`` placeholders for values of a column or of the job; ``{{`` and ``}}`` are literal braces.

    Raises:
        ValueError: A brace has no matching one.
    """

    def __init__(self, text: str) -> None:
        self._parts: list[tuple[str, str | None]] = []
        for part in _PARTS.split(text):
            if part in {"{", "}"}:
                raise ValueError(f"a lone {part}; double it to write the brace itself")
            name = part[1:-1] if part.startswith("{") and part != "{{" else None
            self._parts.append((part[0] if part in {"{{", "}}"} else part, name))

    @property
    def names(self) -> frozenset[str]:
        """The columns and facts that are replaced."""
        return frozenset(name for _, name in self._parts if name is not None)

    def fill(self, card: Card, context: JobContext, *, write: Callable[[str, str], str] | None = None) -> str:
        """Return the text for a card. ``write`` gets each name and value, and returns the text to insert.

        Raises:
            PermanentError: ``http_column_missing``: the file has no such column.
        """
        filled: list[str] = []
        for text, name in self._parts:
            if name is None:
                filled.append(text)
                continue
            value = _value(name, card, context)
            filled.append(value if write is None else write(name, value))
        return "".join(filled)


def _value(name: str, card: Card, context: JobContext) -> str:
    # the job's values first: a file with a column __merchant_guid must not act for another merchant
    if name in _FACTS:
        return _FACTS[name](card, context)
    if name in card.columns:
        return card.columns[name]
    raise PermanentError(
        "http_column_missing", f"Processor http needs a column {name!r}, which the file does not have."
    )


class BodyTemplate:
    """A JSON document whose strings are templates. An inserted value can never leave its string."""

    def __init__(self, document: JsonValue) -> None:
        self._document = _compiled(document)

    def fill(self, card: Card, context: JobContext) -> object:
        """Return the document for a card. It raises the errors of :meth:`Template.fill`."""
        return _filled(self._document, card, context)


def _compiled(value: object) -> object:
    if isinstance(value, str):
        return Template(value)
    if isinstance(value, dict):
        return {key: _compiled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_compiled(item) for item in value]
    return value


def _filled(value: object, card: Card, context: JobContext) -> object:
    if isinstance(value, Template):
        return value.fill(card, context)
    if isinstance(value, dict):
        return {key: _filled(item, card, context) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, card, context) for item in value]
    return value


def refuse_empty(name: str, value: str) -> None:
    """Refuse an empty value, which would address another resource: ``/cards/`` means all cards.

    Raises:
        CardError: The value is empty.
    """
    if not value:
        raise CardError(f"column {name} is empty and cannot be part of the URL")


def refuse_steps(path: str) -> None:
    """Refuse a path that leads out of the configured one: ``/cards/..`` is not a card.

    Raises:
        CardError: A value is ``.`` or ``..``.
    """
    if any(step in {".", ".."} for step in path.split("/")):
        raise CardError("a column's value . or .. cannot be part of the URL")

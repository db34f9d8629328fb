"""A strict JSON reader. It refuses bodies that two readers could understand differently."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from pipeline.errors import PermanentError

MAX_DEPTH: Final = 32
"""Maximum levels of objects and arrays; the body itself is the first level."""

_MAX_INTEGER_DIGITS: Final = 20
"""Enough for any 64-bit number; Python itself refuses to read more than 4,300."""

_PLAIN_NAME: Final = re.compile(r"[A-Za-z_]{1,64}")


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that the body breaks. It contains no received value.

    Attributes:
        field: Dotted name of the field, e.g. ``external_location_ids.3``; empty for the whole body.
        rule: Stable snake_case name of the rule; part of the public contract (docs/reference/statuses.md).
        remedy: One sentence: what to send instead.
    """

    field: str
    rule: str
    remedy: str


class InvalidBody(PermanentError):
    """The body is invalid. The same body stays invalid unless the configuration changes.

    Attributes:
        findings: The broken rules, at least one, in the order of the body.
        id: Identity of the request, if it is known although the body is invalid; None: only the body identifies it.
    """

    def __init__(self, findings: Sequence[Finding], *, id: str | None = None) -> None:  # noqa: A002 - as ce_id
        """Take the broken rules."""
        rules = ", ".join(f"{finding.field or 'body'}: {finding.rule}" for finding in findings)
        super().__init__("webhook_invalid", f"The body breaks {len(findings)} rule(s): {rules}")
        self.findings = tuple(findings)
        self.id = id


def _refuse(rule: str, remedy: str, field: str = "") -> NoReturn:
    raise InvalidBody([Finding(field, rule, remedy)])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        _refuse("duplicate_key", "Send each key of an object once", speakable(_first_repeated(pairs)))
    return found


def _first_repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    return next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _constant(_: str) -> NoReturn:
    _refuse("not_a_number", "NaN and Infinity are not JSON: leave the field out, or send null")


def _integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        _refuse("number_too_large", f"Send numbers of at most {_MAX_INTEGER_DIGITS} characters, longer ones as text")
    return int(text)


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        _refuse("number_too_large", "Send numbers that fit into 64-bit floating point")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
)


def speakable(name: str) -> str:
    """Return a received key if it looks like a name, otherwise ``?``, because a key may even be a card number."""
    return name if _PLAIN_NAME.fullmatch(name) else "?"


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a body that is one JSON object (RFC 8259); all strings in the result are valid Unicode.

    Time and memory are linear in the size of the body.

    Raises:
        InvalidBody: Not UTF-8, not JSON, more than one value, not an object, a key twice, NaN or
            Infinity, a number out of range, nesting deeper than 32 levels, half a surrogate pair.
    """
    text = _text(body)
    value = _decoded(text)
    if not isinstance(value, dict):
        _refuse("not_an_object", "Send one JSON object")
    if not _surely_fine(text):
        _check(value)
    return value


def _surely_fine(text: str) -> bool:
    """Return whether a quick look proves that the full check would find nothing, as for most bodies."""
    shallow = text.count("{") + text.count("[") <= MAX_DEPTH
    return shallow and "\\ud" not in text and "\\uD" not in text


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("not_utf8", "Encode the body as UTF-8")
    # RFC 8259, section 8.1, lets a reader ignore the mark
    return text.lstrip("\ufeff")


def _decoded(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        _refuse("not_json", f"Send valid JSON; reading failed in line {error.lineno}, column {error.colno}")
    except RecursionError:
        _refuse("too_deep", f"Nest at most {MAX_DEPTH} levels of objects and arrays")


def _check(root: dict[str, Any]) -> None:
    level: list[Any] = [root]
    for _ in range(MAX_DEPTH):
        level = [child for container in level for child in _children(container)]
        if not level:
            return
    _refuse("too_deep", f"Nest at most {MAX_DEPTH} levels of objects and arrays")


def _children(container: dict[str, Any] | list[Any]) -> list[Any]:
    """Return the containers in a container, after checking its strings."""
    items: list[Any] = container if isinstance(container, list) else [*container.keys(), *container.values()]
    for item in items:
        if isinstance(item, str):
            _check_text(item)
    return [item for item in items if isinstance(item, dict | list)]


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse("broken_unicode", "Send both halves of a surrogate pair, or the character itself in UTF-8")

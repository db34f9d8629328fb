"""A bounded list of ways in which a sender may have applied its secret to a request at hand."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.contracts import Headers

_MOST_SIGNATURES: Final = 6
_MOST_TIMES: Final = 4
_MOST_NAMED: Final = 5
_MOST_PREFIX: Final = 64

_FORMS: Final = tuple(
    (hash_name, encoding, size, re.compile(alphabet))
    for hash_name, hexadecimal, base64 in (("sha256", 64, 44), ("sha512", 128, 88), ("sha1", 40, 28))
    for encoding, size, alphabet in (
        ("hex", hexadecimal, rb"[0-9A-Fa-f]+"),
        ("base64", base64, rb"[A-Za-z0-9+/]+={1,2}"),
    )
)
_UNITS: Final = (
    ("s", re.compile(rb"[0-9]{9,11}")),
    ("ms", re.compile(rb"[0-9]{12,14}")),
    ("iso8601", re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]{8,18}(Z|[+-]\d\d:?\d\d)")),
)
_FIELD: Final = re.compile(rb"[A-Za-z0-9_-]{1,32}")
_NAMING: Final = re.compile(r"(^|-)(id|ref|key|nonce|uuid|guid|topic|event|type|delivery)$")
"""Names of headers that a sender may sign beside body and time."""

_BETWEEN: Final = ("", ".", ":", "|", "\n", "-")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A header's value that looks like a signature: the settings that say where it stands and how it is written."""

    header: str
    settings: Mapping[str, Any]


def hmac_guesses(headers: Headers, without: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Yield settings of HMACs that would fit the request, the likely ones first.

    Args:
        headers: Of the request.
        without: Lower-case names of headers whose signature is explained already.
    """
    candidates = [one for one in _candidates(headers) if one.header.lower() not in without]
    for candidate in candidates[:_MOST_SIGNATURES]:
        named = _named(headers, candidate)
        for signed in _untimed(named):
            yield {**candidate.settings, "signed": signed}
        for time in _times(headers, candidate):
            for signed in _timed(named):
                body = {} if "body" in signed else {"body_unsigned": True}
                yield {**candidate.settings, "signed": signed, **body, **time}


def _candidates(headers: Headers) -> Iterator[Candidate]:
    for name, value in headers:
        fields = _fields(value)
        if fields is not None:
            separator, pairs = fields
            for field in dict.fromkeys(field for field, _ in pairs):
                for form in _forms(dict(pairs)[field]):
                    table = {"signature": field.decode(), "separator": separator}
                    yield Candidate(name, {"header": name, "fields": table, **form})
            continue
        for form in _forms_at_end(value):
            yield Candidate(name, {"header": name, **form})


def _forms(value: bytes) -> Iterator[dict[str, str]]:
    for hash_name, encoding, size, alphabet in _FORMS:
        if len(value) == size and alphabet.fullmatch(value):
            yield {"hash": hash_name, "encoding": encoding}


def _forms_at_end(value: bytes) -> Iterator[dict[str, str]]:
    for hash_name, encoding, size, alphabet in _FORMS:
        prefix, token = value[:-size], value[-size:]
        apart = not prefix or not prefix[-1:].isalnum()
        if len(token) == size and alphabet.fullmatch(token) and apart and len(prefix) <= _MOST_PREFIX:
            text = {"prefix": prefix.decode("latin-1")} if prefix else {}
            yield {**text, "hash": hash_name, "encoding": encoding}


def _fields(value: bytes) -> tuple[str, list[tuple[bytes, bytes]]] | None:
    for separator in (",", ";"):
        items = [item.partition(b"=") for item in value.split(separator.encode())]
        if len(items) > 1 and all(equals and _FIELD.fullmatch(name) for name, equals, _ in items):
            return separator, [(name, inner) for name, _, inner in items]
    return None


def _times(headers: Headers, candidate: Candidate) -> list[dict[str, Any]]:
    """Return settings for every value that looks like a time of signing."""
    found: list[dict[str, Any]] = []
    for name, value in headers:
        if name != candidate.header:
            found += [{"timestamp": f"header:{name}", "timestamp_unit": unit} for unit in _units(value)]
        elif fields := _fields(value):
            found += [
                {
                    "timestamp": "field",
                    "timestamp_unit": unit,
                    "fields": {**candidate.settings["fields"], "timestamp": field.decode()},
                }
                for field, inner in fields[1]
                for unit in _units(inner)
            ]
    return found[:_MOST_TIMES]


def _units(value: bytes) -> list[str]:
    return [unit for unit, form in _UNITS if form.fullmatch(value)]


def _named(headers: Headers, candidate: Candidate) -> list[str]:
    names = (name for name, _ in headers if name != candidate.header and _NAMING.search(name.lower()))
    return [f"header:{name}" for name in itertools.islice(names, _MOST_NAMED)]


def _joined(between: str, *parts: str) -> tuple[str, ...]:
    if not between:
        return parts
    return tuple(itertools.chain(*((f"text:{between}", part) for part in parts)))[1:]


def _untimed(named: list[str]) -> Iterator[tuple[str, ...]]:
    yield ("body",)
    for between, name in itertools.product(_BETWEEN, named):
        yield _joined(between, name, "body")
        yield _joined(between, "body", name)


def _timed(named: list[str]) -> Iterator[tuple[str, ...]]:
    for between in _BETWEEN:
        yield _joined(between, "timestamp", "body")
        yield _joined(between, "body", "timestamp")
        for version in ("v0", "v1"):
            if between:
                yield _joined(between, f"text:{version}", "timestamp", "body")
    for between, name in itertools.product(_BETWEEN, named):
        for parts in itertools.permutations((name, "timestamp", "body")):
            yield _joined(between, *parts)
    yield ("timestamp",)

"""Discovery: find out how a sender applies its secret, by trying known schemes on a real request.

It helps with senders whose documentation does not say how they sign.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from pipeline.contracts import Headers
from pipeline.contracts.json_pointer import value_at
from pipeline.errors import FatalError
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.explanation import explain
from pipeline.webhooks.verification.keys import KeyEncoding
from pipeline.webhooks.verification.presets import PRESETS, WEAVR, WEAVR_LEGACY, Preset
from pipeline.webhooks.verification.protocols import Scheme, Secret
from pipeline.webhooks.verification.request_parts import header_fields
from pipeline.webhooks.verification.schemes import scheme_of
from pipeline.webhooks.verification.specs import (
    HmacSpec,
    RequestValue,
    SchemeSpec,
    SharedSecretSpec,
    StandardWebhooksSpec,
)

_Spec = SharedSecretSpec | HmacSpec | StandardWebhooksSpec

_ADAPTER: Final[TypeAdapter[_Spec]] = TypeAdapter(SchemeSpec)
_ANY_AGE: Final = {"tolerance_seconds": float("inf")}
_MOST_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class Match:
    """One way of applying a secret that verifies the request.

    Attributes:
        name: ``preset github``, ``weavr``, ``weavr legacy``, ``standard-webhooks``, ``shared-secret`` or ``hmac``.
        preset: The word that selects a preset, or None.
        secret: Id of the secret; never its value.
        toml: The scheme's table for the settings file, without ``secrets``.
        remark: A hint for the reader, such as that the request is too old by now; may be empty.
        signed_body: ``as-sent``, or ``plain`` where the signature covers a compressed body before its compression.
    """

    name: str
    preset: str | None
    secret: str
    toml: str
    remark: str
    signed_body: str = "as-sent"

    def document(self) -> dict[str, str | None]:
        """Return the match as JSON."""
        return asdict(self)


def discover(headers: Headers, body: bytes, now: datetime, secrets: Sequence[Secret]) -> list[Match]:
    """Return every known way to apply a secret that verifies the request, well-known senders first.

    It tries the presets, Weavr's two signatures, Standard Webhooks, and the secret itself in any header. Then it tries
    a bounded number of HMACs for every header that looks like a signature and that no known sender explains. Such an
    HMAC covers the body, the time and the body, or another header with either of them, in any order and with the usual
    separators; the secret is text, hex or base64.

    Several senders sign in the same way. The presets whose id, type and key are in the request come first.

    It ignores the dates of secrets and the age of the request. ``now`` only decides what ``remark`` says.
    """
    trial = _Trial(headers, body, now, secrets)
    known = _known(headers, body)
    found = [match for name, preset, spec in known if (match := trial.match(name, spec, preset)) is not None]
    found += [
        match
        for table in _shared_secrets(headers, secrets)
        if (spec := _spec(table)) is not None and (match := trial.match("shared-secret", spec)) is not None
    ]
    explained = frozenset(trial.explained)
    for table in _possible_hmacs(headers, explained):
        for encoding in get_args(KeyEncoding):
            spec = _spec({"scheme": "hmac", **table} | ({} if encoding == "text" else {"key": encoding}))
            if spec is not None and (match := trial.match("hmac", spec)) is not None:
                found.append(match)
    return found


def _known(headers: Headers, body: bytes) -> Iterator[tuple[str, str | None, _Spec]]:
    document = _document(body)
    ranked = sorted(PRESETS.items(), key=lambda item: -_values_found(item[1], headers, document))
    for name, preset in ranked:
        yield f"preset {name}", name, preset.scheme
    yield "weavr", None, WEAVR
    yield "weavr legacy", None, WEAVR_LEGACY
    yield "standard-webhooks", None, StandardWebhooksSpec(scheme="standard-webhooks")
    for prefix in _prefixes(headers):
        if (spec := _spec({"scheme": "standard-webhooks", "header_prefix": prefix})) is not None:
            yield "standard-webhooks", None, spec


def _prefixes(headers: Headers) -> list[str]:
    """Return the unusual prefixes that the names of Standard Webhooks' three headers may have in this request."""
    names = {name.lower() for name, _ in headers}
    schemes = (one.scheme for one in PRESETS.values())
    usual = {"webhook", *(one.header_prefix for one in schemes if isinstance(one, StandardWebhooksSpec))}
    found = {name.removesuffix("-id") for name in names if name.endswith("-id")} - usual
    return sorted(one for one in found if {f"{one}-timestamp", f"{one}-signature"} <= names)


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _values_found(preset: Preset, headers: Headers, document: Any) -> int:
    """Return how many of the preset's id, type and key are in the request."""
    return sum(any(_has(one, headers, document) for one in names) for names in (preset.id, preset.type, preset.key))


def _has(name: str, headers: Headers, document: Any) -> bool:
    if name.startswith("text:"):
        return False
    value = RequestValue.parse(name)
    if value.kind == "header":
        return any(header.lower() == value.name.lower() for header, _ in headers)
    try:
        value_at(document, value.name)
    except LookupError:
        return False
    return True


def _shared_secrets(headers: Headers, secrets: Iterable[Secret]) -> Iterator[dict[str, Any]]:
    for secret in secrets:
        for name, value in headers:
            prefix = value.removesuffix(secret.key)
            if prefix != value and len(prefix) <= _MOST_PREFIX:
                text = {"prefix": prefix.decode("latin-1")} if prefix else {}
                yield {"scheme": "shared-secret", "header": name, **text}


def _spec(table: Mapping[str, Any]) -> _Spec | None:
    """Return the specification of a table, or None if the settings cannot name one of its headers."""
    try:
        return _ADAPTER.validate_python(table)
    except ValidationError:
        return None


class _Trial:
    """Tries secrets and schemes on one request.

    Attributes:
        explained: Lower-case names of the headers that a match read.
    """

    def __init__(self, headers: Headers, body: bytes, now: datetime, secrets: Iterable[Secret]) -> None:
        self._headers = headers
        self._body = body
        self._now = now
        self._secrets = [Secret(secret.id, secret.value) for secret in secrets]
        self.explained: set[str] = set()

    def match(self, name: str, spec: _Spec, preset: str | None = None) -> Match | None:
        """Return the match if one of the secrets verifies the request with this scheme, or None."""
        of_any_age = spec if isinstance(spec, SharedSecretSpec) else spec.model_copy(update=_ANY_AGE)
        prefix = "" if isinstance(spec, StandardWebhooksSpec) else spec.prefix
        for secret in self._secrets:
            scheme = _scheme(of_any_age, secret)
            revealed = secret.value.get_secret_value() in prefix  # the prefix was taken from the request
            if scheme is None or revealed or not self._verified(scheme):
                continue
            self.explained.update(scheme.stored_headers)
            return Match(name, preset, secret.id, _toml(spec), self._remark(spec, secret))
        return None

    def _verified(self, scheme: Scheme) -> bool:
        try:
            scheme.verify(self._headers, self._body, self._now)
        except SignatureRefused:
            return False
        return True

    def _remark(self, spec: _Spec, secret: Secret) -> str:
        if isinstance(spec, SharedSecretSpec):
            return "the header proves nothing about the body"
        if isinstance(spec, HmacSpec) and spec.body_unsigned:
            return "the signature proves nothing about the body"
        scheme = _scheme(spec, secret)
        explanation = None if scheme is None else explain(scheme, self._headers, self._body, self._now)
        if explanation is None or explanation.reason not in {Reason.TIMESTAMP_TOO_OLD, Reason.TIMESTAMP_IN_FUTURE}:
            return ""
        return explanation.steps[-1].detail


def _scheme(spec: _Spec, secret: Secret) -> Scheme | None:
    try:
        return scheme_of(spec, [secret])
    except FatalError:
        return None  # the secret is not hex or base64


def _toml(spec: _Spec) -> str:
    table = spec.model_dump(exclude_unset=True)
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: object) -> str:
    """Render a value. TOML writes strings, numbers and booleans as JSON does."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


_MOST_SIGNATURES: Final = 6
_MOST_TIMES: Final = 4
_MOST_NAMED: Final = 5

_FORMS: Final = tuple(
    (hash_name, encoding, size, re.compile(alphabet))
    for hash_name, hexadecimal, base64 in (("sha256", 64, 44), ("sha512", 128, 88), ("sha1", 40, 28))
    for encoding, size, alphabet in (
        ("hex", hexadecimal, rb"[0-9A-Fa-f]+"),
        ("base64", base64, rb"[A-Za-z0-9+/]+={1,2}"),
    )
)
_WORD: Final = re.compile(rb"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]++={0,2}+(?=[, \t]|\Z)")
"""A text that may be a signature: it ends at a separator of a list, or at the end of the header."""

_UNITS: Final = (
    ("s", re.compile(rb"[0-9]{9,11}")),
    ("ms", re.compile(rb"[0-9]{12,14}")),
    ("iso8601", re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]{8,18}(Z|[+-]\d\d:?\d\d)")),
)
_FIELD: Final = re.compile(rb"[A-Za-z0-9_-]{1,32}")
_NAMING: Final = re.compile(r"(^|-)(id|ref|key|nonce|uuid|guid|topic|event|type|delivery)$")
"""Names of headers that a sender may sign together with the body and the time."""

_SEPARATORS: Final[tuple[Literal[",", ";"], ...]] = (",", ";")

_BETWEEN: Final = ("", ".", ":", "|", "\n", "-")


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A header whose value looks like a signature, and the settings that describe the header."""

    header: str
    settings: Mapping[str, Any]


def _possible_hmacs(headers: Headers, without: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Yield a bounded number of HMAC specifications that would fit the request, the likely ones first.

    Args:
        headers: Headers of the request.
        without: Lower-case names of headers to skip, because a known sender explains them.
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


def _candidates(headers: Headers) -> Iterator[_Candidate]:
    for name, value in headers:
        fields = _header_fields(value)
        if fields is not None:
            separator, pairs = fields
            for field, inner in pairs.items():
                for form in _forms(inner):
                    table = {"signature": field.decode(), "separator": separator}
                    yield _Candidate(name, {"header": name, "fields": table, **form})
            continue
        for form in _forms_of_first(value):
            yield _Candidate(name, {"header": name, **form})


def _forms(value: bytes) -> Iterator[dict[str, str]]:
    for hash_name, encoding, size, alphabet in _FORMS:
        if len(value) == size and alphabet.fullmatch(value):
            yield {"hash": hash_name, "encoding": encoding}


def _forms_of_first(value: bytes) -> Iterator[dict[str, str]]:
    """Yield the forms of the first signature in a header, with the text before it as prefix."""
    for hash_name, encoding, size, alphabet in _FORMS:
        found = next((one for one in _WORD.finditer(value) if len(one[0]) == size and alphabet.fullmatch(one[0])), None)
        if found is not None and found.start() <= _MOST_PREFIX:
            prefix = value[: found.start()].decode("latin-1")
            yield {**({"prefix": prefix} if prefix else {}), "hash": hash_name, "encoding": encoding}


def _header_fields(value: bytes) -> tuple[str, dict[bytes, bytes]] | None:
    """Return the separator and the fields of a header that is a list of fields. A repeated field has its last value."""
    for separator in _SEPARATORS:
        groups = header_fields(value, separator) or []
        items = [item for group in groups for item in group]
        if len(items) > 1 and all(_FIELD.fullmatch(name) for name, _ in items):
            return separator, dict(items)
    return None


def _times(headers: Headers, candidate: _Candidate) -> list[dict[str, Any]]:
    """Return the timestamp settings for every value that looks like a time of signing."""
    found: list[dict[str, Any]] = []
    for name, value in headers:
        if name != candidate.header:
            found += [{"timestamp": f"header:{name}", "timestamp_unit": unit} for unit in _units(value)]
        elif fields := _header_fields(value):
            found += [
                {
                    "timestamp": "field",
                    "timestamp_unit": unit,
                    "fields": {**candidate.settings["fields"], "timestamp": field.decode()},
                }
                for field, inner in fields[1].items()
                for unit in _units(inner)
            ]
    return found[:_MOST_TIMES]


def _units(value: bytes) -> list[str]:
    return [unit for unit, form in _UNITS if form.fullmatch(value)]


def _named(headers: Headers, candidate: _Candidate) -> list[str]:
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

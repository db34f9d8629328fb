"""The parts of a request that verification reads: headers that must be unique, lists of fields, timestamps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from pipeline.contracts import Headers
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.specs import FieldSettings

MOST_SIGNATURES: Final = 16
"""How many signatures one header may hold. No sender needs more, and each one costs time."""
_MOST_FIELDS: Final = 64

Unit = Literal["s", "ms", "iso8601"]
"""Seconds or milliseconds since 1970-01-01T00:00Z in decimal digits, or ISO 8601 with date, time and zone."""

_BETWEEN: Final = rb"(?:[ \t]{0,8},[ \t]{0,8}|[ \t]{1,8})"
"""The separator of two signatures. It is bounded, because the search must stay linear in a header full of blanks."""
_FIELD_ENDS: Final = {
    separator: re.compile(rb"[ \t]{0,8}%b[ \t]{0,8}" % separator.encode()) for separator in (",", ";")
}
_GROUP_ENDS: Final = {
    separator: re.compile(rb"(?<![ \t%b])[ \t]{1,8}(?=[A-Za-z0-9_-]{1,32}=)" % separator.encode())
    for separator in (",", ";")
}

_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_ISO8601: Final = re.compile(
    rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)",
)
_PER_SECOND: Final = {"s": 1, "ms": 1000}


def one_header(
    headers: Headers,
    name: str,
    *,
    missing: Reason = Reason.HEADER_MISSING,
    repeated: Reason = Reason.HEADER_REPEATED,
) -> bytes:
    """Return the value of the header as received.

    It refuses repeated headers even if they are equal: a proxy and this program could each read a different one.

    Raises:
        SignatureRefused: The header is missing or repeated.
    """
    value = one_header_or_none(headers, name, repeated=repeated)
    if value is None:
        raise SignatureRefused(missing, f"There is no header {name}")
    return value


def one_header_or_none(headers: Headers, name: str, *, repeated: Reason = Reason.HEADER_REPEATED) -> bytes | None:
    """Return the value of the header as received, or None if it is missing.

    Raises:
        SignatureRefused: The header is repeated.
    """
    wanted = name.lower()
    values = [value for header, value in headers if header.lower() == wanted]
    if len(values) > 1:
        raise SignatureRefused(repeated, f"The request has {len(values)} headers {name}")
    return values[0] if values else None


def without_prefix(value: bytes, prefix: bytes, name: str) -> bytes:
    """Return the value without its prefix, which must match exactly.

    Raises:
        SignatureRefused: The value does not begin with the prefix.
    """
    if not value.startswith(prefix):
        raise SignatureRefused(Reason.PREFIX_MISSING, f"The header {name} does not begin as configured")
    return value[len(prefix) :]


class SignatureList:
    """Splits a header that holds one or more signatures, each after the same prefix: ``sha256=…, sha256=…``.

    Senders send several signatures while they rotate a secret. A comma, blanks or both separate two signatures.
    """

    def __init__(self, prefix: str, header: str) -> None:
        """Take the prefix, and the name of the header for messages."""
        self._header = header
        self._between = re.compile(_BETWEEN + re.escape(prefix.encode()))

    def signatures(self, value: bytes) -> list[bytes]:
        """Return every signature of the header without its prefix, or an empty list if one of them is empty.

        Args:
            value: The header's value without its first prefix.

        Raises:
            SignatureRefused: The header holds too many signatures.
        """
        found = self._between.split(value, MOST_SIGNATURES)
        _check_number(found, self._header)
        return [] if b"" in found else found


class HeaderFields:
    """Splits a header such as ``t=1769121839,v1=74f1d275, v1=5c9bc3c4`` into its fields.

    Blanks around a separator are not part of a field. A blank without a separator begins a new group of fields, and
    each group has its own time, as in ``t=1769121839,v1=74f1d275 t=1769121839,v1=5c9bc3c4``. The whole header is
    refused if one field has no ``=``, or if two groups have different times.
    """

    def __init__(self, settings: FieldSettings, header: str) -> None:
        """Take the names of the fields and, for messages, the name of the header."""
        self._signatures = frozenset(name.encode() for name in settings.signature_names)
        self._timestamp = (settings.timestamp or "").encode()
        self._separator = settings.separator
        self._header = header

    def signatures(self, value: bytes) -> list[bytes]:
        """Return every signature of the header.

        Raises:
            SignatureRefused: The header holds none, too many, or is no list of fields.
        """
        found = [inner for group in self._groups(value) for name, inner in group if name in self._signatures]
        if not found:
            names = b" or ".join(sorted(self._signatures)).decode()
            raise SignatureRefused(Reason.SIGNATURE_MISSING, f"The header {self._header} has no field {names}")
        _check_number(found, self._header)
        return found

    def timestamp(self, value: bytes) -> bytes:
        """Return the timestamp as received.

        Raises:
            SignatureRefused: The field is missing, repeated, or has another value in another group.
        """
        found = [[inner for name, inner in group if name == self._timestamp] for group in self._groups(value)]
        name = self._timestamp.decode()
        if not all(found):
            raise SignatureRefused(Reason.TIMESTAMP_MISSING, f"The header {self._header} has no field {name}")
        if any(times != found[0] or len(times) > 1 for times in found):
            number = sum(map(len, found))
            raise SignatureRefused(Reason.TIMESTAMP_REPEATED, f"The header {self._header} has {number} fields {name}")
        return found[0][0]

    def _groups(self, value: bytes) -> list[list[tuple[bytes, bytes]]]:
        groups = header_fields(value, self._separator)
        if groups is None:
            raise SignatureRefused(Reason.SIGNATURE_MALFORMED, f"The header {self._header} is no list of fields")
        return groups


def header_fields(value: bytes, separator: Literal[",", ";"]) -> list[list[tuple[bytes, bytes]]] | None:
    """Return the names and values of a header's fields, by group.

    It returns None if a field has no ``=``, and if the header has more groups or fields than any sender needs.
    """
    groups = [
        _FIELD_ENDS[separator].split(group, _MOST_FIELDS)
        for group in _GROUP_ENDS[separator].split(value, MOST_SIGNATURES)
    ]
    if len(groups) > MOST_SIGNATURES or any(len(group) > _MOST_FIELDS for group in groups):
        return None
    pairs = [[field.partition(b"=") for field in group] for group in groups]
    if not all(equals for group in pairs for _, equals, _ in group):
        return None
    return [[(name, inner) for name, _, inner in group] for group in pairs]


def check_timestamp(text: bytes, now: datetime, *, unit: Unit, tolerance: float) -> float:
    """Return the age of the timestamp in seconds; negative if it is in the future.

    Args:
        text: The timestamp as received. Leading zeros do not change the time, but they are signed.
        now: Aware datetime.
        unit: How the timestamp is written.
        tolerance: How many seconds the time may lie in the past or future, the limit included.

    Raises:
        SignatureRefused: The text has another form, or the time is too old or too far in the future.
    """
    age = now.timestamp() - (_time(text) if unit == "iso8601" else _number(text) / _PER_SECOND[unit])
    if age > tolerance:
        raise SignatureRefused(
            Reason.TIMESTAMP_TOO_OLD, f"The timestamp is {age:.1f} s old, {tolerance:g} s are allowed"
        )
    if age < -tolerance:
        raise SignatureRefused(
            Reason.TIMESTAMP_IN_FUTURE, f"The timestamp is {-age:.1f} s ahead, {tolerance:g} s are allowed"
        )
    return age


def _number(text: bytes) -> int:
    if not _DIGITS.fullmatch(text):
        raise SignatureRefused(Reason.TIMESTAMP_MALFORMED, "The timestamp is not a number of 1 to 18 digits")
    return int(text)


def _time(text: bytes) -> float:
    try:
        if _ISO8601.fullmatch(text):
            return datetime.fromisoformat(text.decode()).timestamp()
    except (ValueError, OverflowError):
        pass
    raise SignatureRefused(Reason.TIMESTAMP_MALFORMED, "The timestamp is not ISO 8601 with date, time and zone")


def _check_number(signatures: Sequence[bytes], header: str) -> None:
    """Raise SignatureRefused if a header holds more than ``MOST_SIGNATURES``."""
    if len(signatures) > MOST_SIGNATURES:
        raise SignatureRefused(
            Reason.SIGNATURE_MALFORMED, f"The header {header} holds more than {MOST_SIGNATURES} signatures"
        )

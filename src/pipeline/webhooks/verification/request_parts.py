"""The parts of a request that verification reads: headers that must be unique, lists of fields, timestamps."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, Literal

from pipeline.contracts import Headers
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.specs import FieldSettings

MOST_SIGNATURES: Final = 16
"""How many signatures one header may hold; more would only cost us time."""

Unit = Literal["s", "ms", "iso8601"]
"""Seconds or milliseconds since 1970-01-01T00:00Z in decimal digits, or ISO 8601 with date, time and zone."""

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

    Repetitions are refused even when they are equal: two programs on the way may each read a different one.

    Raises:
        SignatureRefused: The header is missing or repeated.
    """
    value = one_header_or_none(headers, name, repeated=repeated)
    if value is None:
        raise SignatureRefused(missing, f"There is no header {name}")
    return value


def one_header_or_none(headers: Headers, name: str, *, repeated: Reason = Reason.HEADER_REPEATED) -> bytes | None:
    """Return the value of the header as received, or None where there is none.

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
        SignatureRefused: The value begins otherwise.
    """
    if not value.startswith(prefix):
        raise SignatureRefused(Reason.PREFIX_MISSING, f"The header {name} does not begin as configured")
    return value[len(prefix) :]


class HeaderFields:
    """Splits a header such as ``t=1769121839,v1=74f1d275,v1=5c9bc3c4`` into its fields.

    It trims nothing, and refuses the whole header for one field without ``=``.
    """

    def __init__(self, settings: FieldSettings, header: str) -> None:
        """Take the names of the fields and, for messages, the name of the header."""
        self._signature = settings.signature.encode()
        self._timestamp = (settings.timestamp or "").encode()
        self._separator = settings.separator.encode()
        self._header = header

    def signatures(self, value: bytes) -> list[bytes]:
        """Return every signature of the header.

        Raises:
            SignatureRefused: The header holds none, too many, or is no list of fields.
        """
        found = self._values(value, self._signature)
        if not found:
            raise SignatureRefused(
                Reason.SIGNATURE_MISSING, f"The header {self._header} has no field {self._signature.decode()}"
            )
        if len(found) > MOST_SIGNATURES:
            raise SignatureRefused(
                Reason.SIGNATURE_MALFORMED, f"The header {self._header} holds more than {MOST_SIGNATURES} signatures"
            )
        return found

    def timestamp(self, value: bytes) -> bytes:
        """Return the timestamp as received.

        Raises:
            SignatureRefused: The field is missing or repeated.
        """
        found = self._values(value, self._timestamp)
        name = self._timestamp.decode()
        if not found:
            raise SignatureRefused(Reason.TIMESTAMP_MISSING, f"The header {self._header} has no field {name}")
        if len(found) > 1:
            raise SignatureRefused(
                Reason.TIMESTAMP_REPEATED, f"The header {self._header} has {len(found)} fields {name}"
            )
        return found[0]

    def _values(self, value: bytes, name: bytes) -> list[bytes]:
        pairs = [field.partition(b"=") for field in value.split(self._separator)]
        if not all(equals for _, equals, _ in pairs):
            raise SignatureRefused(Reason.SIGNATURE_MALFORMED, f"The header {self._header} is no list of fields")
        return [inner for field, _, inner in pairs if field == name]


def check_timestamp(text: bytes, now: datetime, *, unit: Unit, tolerance: float) -> float:
    """Return the age in seconds, if it lies within ``tolerance`` seconds on either side, the limit included.

    Args:
        text: As received; leading zeros do not change the time, but they are signed.
        now: Aware datetime.
        unit: How the timestamp is written.
        tolerance: Seconds.

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

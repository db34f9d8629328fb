"""Judging the age of a signed timestamp."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, Literal

from pipeline.webhooks.verification.errors import Reason, SignatureRefused

Unit = Literal["s", "ms", "iso8601"]
"""Seconds or milliseconds since 1970-01-01T00:00Z in decimal digits, or ISO 8601 with date, time and zone."""

_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_ISO8601: Final = re.compile(
    rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)",
)
_PER_SECOND: Final = {"s": 1, "ms": 1000}


def check_timestamp(text: bytes, now: datetime, *, unit: Unit, tolerance: float) -> float:
    """Return the age in seconds, if it lies within ``tolerance`` seconds on either side, the limit included.

    Args:
        text: As received; leading zeros change nothing here, but they are signed.
        now: Aware datetime.
        unit: How the timestamp is written.
        tolerance: Seconds.

    Raises:
        SignatureRefused: It is written otherwise, too old, or too far in the future.
    """
    age = now.timestamp() - (_moment(text) if unit == "iso8601" else _number(text) / _PER_SECOND[unit])
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


def _moment(text: bytes) -> float:
    try:
        if _ISO8601.fullmatch(text):
            return datetime.fromisoformat(text.decode()).timestamp()
    except (ValueError, OverflowError):
        pass
    raise SignatureRefused(Reason.TIMESTAMP_MALFORMED, "The timestamp is not ISO 8601 with date, time and zone")

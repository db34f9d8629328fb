"""Judging the age of a signed timestamp."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from pipeline.signatures.errors import Reason, SignatureRefused

_DIGITS: Final = re.compile(rb"[0-9]{1,18}")


def check_timestamp(text: bytes, now: datetime, *, units_per_second: int, tolerance: float) -> None:
    """Return if the timestamp lies within ``tolerance`` seconds of ``now``, on either side, the limit included.

    Args:
        text: Decimal digits since 1970-01-01T00:00Z, as received.
        now: Aware datetime.
        units_per_second: 1 for seconds, 1000 for milliseconds.
        tolerance: Seconds.

    Raises:
        SignatureRefused: It is no number, too old, or too far in the future.
    """
    if not _DIGITS.fullmatch(text):
        raise SignatureRefused(Reason.TIMESTAMP_MALFORMED, "The timestamp is not a number of 1 to 18 digits")
    age = now.timestamp() - int(text) / units_per_second
    if age > tolerance:
        raise SignatureRefused(Reason.TIMESTAMP_TOO_OLD, f"The timestamp is older than {tolerance:g} s")
    if age < -tolerance:
        raise SignatureRefused(Reason.TIMESTAMP_IN_FUTURE, f"The timestamp is more than {tolerance:g} s ahead")

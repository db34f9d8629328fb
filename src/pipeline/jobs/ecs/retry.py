"""Reading ``Retry-After``."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_LONGEST: Final = 64


def retry_after_seconds(header: str | None, *, now: datetime, longest: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, from 0 to ``longest``, or None where it says nothing.

    Both forms of RFC 9110, section 10.2.3, are read: seconds and an HTTP date. A malformed header is as good as none.
    """
    text = (header or "").strip()
    if not text or len(text) > _LONGEST:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text), longest)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((aware - now).total_seconds(), 0.0), longest)

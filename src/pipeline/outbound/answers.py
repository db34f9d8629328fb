"""What the headers of another host's answer say about time."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""A longer ``Retry-After`` is cut to this: a server that asks for a day would outlast most jobs."""

_MAX_TEXT: Final = 64
_MAX_DIGITS: Final = 32


def retry_after_seconds(header: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, from 0 to an hour, or None without a usable one.

    Both forms of RFC 9110, section 10.2.3, are read: seconds and an HTTP date. A malformed header is ignored.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS) if len(text) <= _MAX_DIGITS else None
    date = http_date(text)
    return None if date is None else min(max((date - now).total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)


def http_date(text: str) -> datetime | None:
    """Return the time that an HTTP date names, in UTC unless it says otherwise, or None for any other text."""
    if len(text) > _MAX_TEXT:
        return None
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)

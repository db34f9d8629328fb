"""Range and If-Match, as S3 reads them."""

from __future__ import annotations

import re
from typing import Final

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


class UnsatisfiableRange(Exception):
    """The range begins at or behind the object's end."""


def asked_range(value: str, size: int) -> tuple[int, int] | None:
    """Return the bytes ``[start, end)`` that a Range header asks for, or None where it is to be ignored.

    S3 ignores what it cannot read, and several ranges at once. Raises UnsatisfiableRange for the answer 416.
    """
    found = _RANGE.fullmatch(value.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if not last else min(int(last) + 1, size)
        if last and int(last) < int(first):
            return None
    if start >= size or start == end:
        raise UnsatisfiableRange
    return start, end


def matches(value: str, etag: str) -> bool:
    """Tell whether an If-Match or If-None-Match header names this ETag; quotes may be missing, as S3 allows."""
    names = {name.strip().strip('"') for name in value.split(",")}
    return "*" in names or etag.strip('"') in names

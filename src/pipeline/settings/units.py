"""Numbers with a unit, where a number alone is needed."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")
_TIME: Final = {
    "ms": 0.001,
    "s": 1,
    "sec": 1,
    "second": 1,
    "seconds": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "minutes": 60,
    "h": 3600,
    "hour": 3600,
    "hours": 3600,
    "d": 86_400,
    "day": 86_400,
    "days": 86_400,
}
_SIZE: Final = {
    "b": 1,
    "byte": 1,
    "bytes": 1,
    "k": 1000,
    "kb": 1000,
    "kib": 1 << 10,
    "m": 1_000_000,
    "mb": 1_000_000,
    "mib": 1 << 20,
    "g": 1_000_000_000,
    "gb": 1_000_000_000,
    "gib": 1 << 30,
}
_OF_NAME: Final = {"bytes": "bytes", "seconds": "seconds", "days": "days", "ms": "milliseconds"}
_SECONDS_OF: Final = {"milliseconds": 0.001, "seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}
_IN_TEXT: Final = re.compile(r"\b(bytes|milliseconds|seconds|minutes|hours|days)\b", re.IGNORECASE)


def unit_of(name: str, description: str | None) -> str | None:
    """Return the unit that a setting is counted in, from its name's last word or else its description."""
    by_name = _OF_NAME.get(name.rpartition("_")[2])
    if by_name:
        return by_name
    found = _IN_TEXT.search(description or "")
    return found.group(1).lower() if found else None


def converted(text: str, unit: str | None) -> int | float | None:
    """Return what ``text`` (``10s``, ``5MB``) is in the given unit, or None where it says no such thing."""
    found = _NUMBER.fullmatch(text)
    if found is None or unit is None:
        return None
    number, suffix = float(found.group(1)), found.group(2).lower()
    factor = _SIZE.get(suffix) if unit == "bytes" else _TIME.get(suffix)
    if factor is None:
        return None
    value = number * factor / (1 if unit == "bytes" else _SECONDS_OF[unit])
    return int(value) if value == int(value) else round(value, 6)

"""Times and durations on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from pipeline.kafka import Point

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d{1,7})([smhd])")


def now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)


def parse_duration(text: str) -> timedelta | None:
    """Parse a duration such as ``90s``, ``10m``, ``2h`` or ``3d``; return None for any other text."""
    found = _DURATION.fullmatch(text)
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]]) if found else None


def shown_duration(duration: timedelta) -> str:
    """Format a duration of at least zero in its largest unit, such as ``90 s``, ``14 min``, ``3 h``."""
    seconds = int(duration.total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


class Duration(click.ParamType):  # type: ignore[type-arg]  # not generic at run time before click 8.3
    """A duration, such as ``10m``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the text as a positive timedelta."""
        duration = value if isinstance(value, timedelta) else parse_duration(value)
        if not duration:
            self.fail(f"{value!r} is not a duration such as 90s, 10m, 2h or 3d", param, ctx)
        return duration


class Time(click.ParamType):  # type: ignore[type-arg]  # as above
    """A time: ISO 8601 with a zone, or a duration before now.

    Args:
        edges: Whether to also accept ``earliest`` and ``latest``.
        future: Whether the time may be in the future.
    """

    name = "time"

    def __init__(self, *, edges: bool = False, future: bool = False) -> None:
        self._edges = edges
        self._future = future

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Point:
        """Return an aware datetime, or an edge."""
        if isinstance(value, datetime):
            return value
        if self._edges and value == "earliest":
            return "earliest"
        if self._edges and value == "latest":
            return "latest"
        time = _time(value)
        if time is None:
            edges = ", earliest or latest" if self._edges else ""
            self.fail(
                f"{value!r} is not a time: write ISO 8601 with a zone such as 2026-01-22T22:43:59Z, "
                f"or e.g. 2h for two hours ago{edges}",
                param,
                ctx,
            )
        if time > now() and not self._future:
            self.fail(f"{value!r} is in the future", param, ctx)
        return time


def _time(text: str) -> datetime | None:
    duration = parse_duration(text)
    try:
        time = datetime.fromisoformat(text) if duration is None else now() - duration
    except (ValueError, OverflowError):
        return None
    return time if time.tzinfo is not None else None

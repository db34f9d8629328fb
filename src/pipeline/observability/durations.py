"""Observing many short durations at little cost."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from prometheus_client import Histogram

_MOST_KEPT: Final = 32
_SHORT: Final = 0.001
"""Seconds: beside a longer duration the cost of an observation is nothing."""


class Durations:
    """Adds durations to a histogram, the short ones many at a time.

    ``Histogram.observe`` takes two locks, as long as a quick handler takes. So up to 31 short durations wait until the
    next one, until :meth:`flush`, or until a longer one comes. The histogram then holds what ``observe`` would have
    made of them: tests/unit/observability/test_durations.py fails when prometheus_client changes the parts that are
    used here.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._sum = histogram._sum  # noqa: SLF001 - it has no method for several at a time
        self._buckets = histogram._buckets  # noqa: SLF001
        self._bounds = tuple(histogram._upper_bounds)  # noqa: SLF001
        self._kept: list[float] = []

    def add(self, seconds: float) -> None:
        """Add one duration."""
        self._kept.append(seconds)
        if seconds > _SHORT or len(self._kept) >= _MOST_KEPT:
            self.flush()

    def flush(self) -> None:
        """Let the histogram show every duration that was added."""
        if not self._kept:
            return
        kept, self._kept = sorted(self._kept), []
        self._sum.inc(sum(kept))
        done = 0
        while done < len(kept):
            bucket = bisect_left(self._bounds, kept[done])
            end = done + 1
            while end < len(kept) and kept[end] <= self._bounds[bucket]:
                end += 1
            self._buckets[bucket].inc(end - done)
            done = end

"""Adds many short durations to a histogram at little cost."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from prometheus_client import Histogram

_MOST_KEPT: Final = 32
_SHORT: Final = 0.001
"""Seconds. For longer durations, the cost of an observation does not matter."""


class Durations:
    """Adds durations to a histogram, short ones in groups.

    ``Histogram.observe`` takes two locks, which cost as much as a quick handler. So this class collects up to 31 short
    durations, and adds them together at the next one, at :meth:`flush`, or when a longer duration comes. The histogram
    then has the same contents as after ``observe``. tests/unit/observability/test_durations.py fails if
    prometheus_client changes the private parts that this class uses.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._sum = histogram._sum  # noqa: SLF001 - the public method adds one duration at a time
        self._buckets = histogram._buckets  # noqa: SLF001
        self._bounds = tuple(histogram._upper_bounds)  # noqa: SLF001
        self._kept: list[float] = []

    def add(self, seconds: float) -> None:
        """Add one duration."""
        self._kept.append(seconds)
        if seconds > _SHORT or len(self._kept) >= _MOST_KEPT:
            self.flush()

    def flush(self) -> None:
        """Add all collected durations to the histogram."""
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

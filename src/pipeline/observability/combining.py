"""Combines the metrics of several processes that work as one, from a snapshot of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.registry import Collector

Snapshot = list[Any]
"""Metrics in a JSON-compatible form: name, help, type and samples (name, labels, value) of each family."""

Combine = Callable[[Iterable[float]], float]

_COUNTS: Final = frozenset({"counter", "histogram", "summary"})
"""Types of families whose samples only grow, so that the sum includes processes that have ended."""


def snapshot(families: Iterable[Metric]) -> Snapshot:
    """Return the current values of metric families, for example those that a registry collects."""
    return [
        [one.name, one.documentation, one.type, [[sample.name, sample.labels, sample.value] for sample in one.samples]]
        for one in families
    ]


class CombinedMetrics(Collector):
    """Exposes the metrics of several processes as the metrics of one.

    It adds up counters, histograms, and gauges without another rule. The counts of a process that has ended stay: if
    the sum went down, Prometheus would assume a restart and count the rest again.

    Args:
        rules: For gauges whose sum makes no sense: how to combine them, by name.
    """

    def __init__(self, rules: Mapping[str, Combine]) -> None:
        self._rules = rules
        self._of: dict[int, Snapshot] = {}
        self._ended: Snapshot = []

    def update(self, process: int, values: Snapshot) -> None:
        """Replace the values of a process."""
        self._of[process] = values

    def end(self, process: int) -> None:
        """Keep the counts of a process that has ended, and forget its gauges."""
        counts = [family for family in self._of.pop(process, []) if family[2] in _COUNTS]
        self._ended = snapshot(self._combined([self._ended, counts]))

    def collect(self) -> Iterator[Metric]:
        """Return the combined families."""
        return self._combined([self._ended, *self._of.values()])

    def _combined(self, snapshots: Iterable[Snapshot]) -> Iterator[Metric]:
        families: dict[str, tuple[str, str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]]] = {}
        for values in snapshots:
            for name, about, kind, samples in values:
                _, _, found = families.setdefault(name, (about, kind, {}))
                for sample, labels, value in samples:
                    found.setdefault((sample, tuple(labels.items())), []).append(value)
        for name, (about, kind, found) in families.items():
            family = Metric(name, about, kind)
            for (sample, labels), numbers in found.items():
                rule = min if sample.endswith("_created") and kind in _COUNTS else self._rules.get(name, sum)
                family.add_sample(sample, dict(labels), _of_numbers(rule, numbers))
            yield family


def farthest(numbers: Iterable[float]) -> float:
    """Return the number that is farthest from zero."""
    return max(numbers, key=abs)


def _of_numbers(rule: Combine, numbers: Iterable[float]) -> float:
    known = [one for one in numbers if not math.isnan(one)]
    return float(rule(known)) if known else math.nan

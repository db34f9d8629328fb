"""The rows of the table: medians over the rounds, their spread, and their bounds."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.machine import Quiet


@dataclass(frozen=True, slots=True)
class Row:
    """One measured row, as ``build/bench.json`` stores it.

    Attributes:
        suite: The suite that measured it; ``PART`` selects it.
        row: Its name.
        ours: Median over the rounds, in the row's unit.
        peer: Median over the rounds.
        ratio: Median of the rounds' ratios.
        spread: The lowest and the highest ratio of a round.
        rounds: How many rounds there were.
        floor: The ratio below which the row fails, or None.
        ceiling: The ratio above which the row fails, if smaller is better.
        target: The ratio that the row should reach.
        smaller_is_better: Whether the target is a maximum, as for costs.
        quiet: Other activity on the machine.
    """

    suite: str
    row: str
    ours: float
    peer: float
    ratio: float
    spread: tuple[float, float]
    rounds: int
    floor: float | None
    ceiling: float | None
    target: float | None
    smaller_is_better: bool
    quiet: Quiet

    @property
    def margin(self) -> float:
        """How far the ratio keeps its bound: below 1 it fails; infinite without a bound."""
        margins = [float("inf")]
        if self.floor:
            margins.append(self.ratio / self.floor)
        if self.ceiling:
            margins.append(self.ceiling / self.ratio)
        return min(margins)

    @property
    def reach(self) -> float | None:
        """The fraction of the target that the row reaches; 1 or more if it meets the target; None without a target."""
        if self.target is None:
            return None
        return self.target / self.ratio if self.smaller_is_better else self.ratio / self.target

    @property
    def bound(self) -> str:
        """The bound as the table shows it."""
        return f">= {self.floor:g}" if self.floor else f"<= {self.ceiling:g}" if self.ceiling else "-"

    @property
    def goal(self) -> str:
        """The target as the table shows it."""
        if self.target is None:
            return "-"
        return f"{'<=' if self.smaller_is_better else '>='} {self.target:g}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The module-level dictionaries of a suite, with bounds by the names of rows.

    A row in ``CEILINGS`` is one of which smaller is better. ``needs`` has the package of requirements/bench.txt without
    which a row is left out.
    """

    floors: dict[str, float]
    ceilings: dict[str, float]
    targets: dict[str, float]
    needs: dict[str, str]

    @classmethod
    def of(cls, module: object) -> Bounds:
        """Return the bounds of a suite."""
        return cls(*(getattr(module, name, {}) for name in ("FLOORS", "CEILINGS", "TARGETS", "NEEDS")))

    def names(self) -> set[str]:
        """Return the rows that have a bound or a target, and whose peer is installed."""
        missing = {row for row, package in self.needs.items() if not installed(package)}
        return {*self.floors, *self.ceilings, *self.targets} - missing


def installed(package: str) -> bool:
    """Return whether a peer is installed. ``make bench`` installs peers, ``make test`` does not."""
    return importlib.util.find_spec(package) is not None


def summarise(suite: str, name: str, pairs: Sequence[tuple[float, float]], bounds: Bounds, quiet: Quiet) -> Row:
    """Return the row of the rounds' pairs of (ours, peer)."""
    ratios = [ours / peer for ours, peer in pairs]
    return Row(
        suite=suite,
        row=name,
        ours=round(statistics.median(ours for ours, _ in pairs), 6),
        peer=round(statistics.median(peer for _, peer in pairs), 6),
        ratio=round(statistics.median(ratios), 3),
        spread=(round(min(ratios), 3), round(max(ratios), 3)),
        rounds=len(pairs),
        floor=bounds.floors.get(name),
        ceiling=bounds.ceilings.get(name),
        target=bounds.targets.get(name),
        smaller_is_better=name in bounds.ceilings,
        quiet=quiet,
    )


def show(rows: Iterable[Row], title: str) -> None:
    """Print the table."""
    table = Table(title=title)
    for heading in ("row", "ours", "peer", "ratio", "spread", "bound", "target"):
        table.add_column(heading, justify="left" if heading == "row" else "right")
    for row in rows:
        table.add_row(
            row.row,
            f"{row.ours:,.4g}",
            f"{row.peer:,.4g}",
            f"{row.ratio:.2f}",
            f"{row.spread[0]:.2f}-{row.spread[1]:.2f}",
            row.bound,
            row.goal,
        )
    Console(width=150).print(table)

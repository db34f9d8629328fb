"""Run every row, print a table, write ``build/bench.json``.

Ours and the peer run in turn, several rounds each; the ratio is the median of the rounds' ratios, so it holds when the
machine's speed drifts. ``spread`` is the lowest and highest ratio of a round. Of most rows larger is better: ``floor``
is the ratio below which such a row fails. Of the rows that compare costs smaller is better: ``ceiling`` is the ratio
above which such a row fails. ``target`` is what the row is to reach one day. Each is null where there is none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import ingress, job, neighbour, process, start, subscriber

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

OUT = Path("build/bench.json")


@dataclass(frozen=True, slots=True)
class Pair:
    """One round: what ours and the peer reached, both in the row's unit."""

    ours: float
    peer: float


@dataclass(frozen=True, slots=True)
class Row:
    """One measured row, as in ``build/bench.json``."""

    row: str
    ours: float
    peer: float
    ratio: float
    spread: tuple[float, float]
    floor: float | None
    ceiling: float | None
    target: float | None

    @property
    def within(self) -> bool:
        """Whether the ratio keeps its bound."""
        return self.ratio >= (self.floor or 0) and self.ratio <= (self.ceiling or self.ratio)

    @property
    def bound(self) -> str:
        """The bound as the table shows it."""
        return f">= {self.floor}" if self.floor else f"<= {self.ceiling}" if self.ceiling else "-"


def summarise(name: str, pairs: list[Pair]) -> Row:
    """Return medians over the rounds."""
    ratios = [pair.ours / pair.peer for pair in pairs]
    return Row(
        row=name,
        ours=round(statistics.median(pair.ours for pair in pairs), 6),
        peer=round(statistics.median(pair.peer for pair in pairs), 6),
        ratio=round(statistics.median(ratios), 3),
        spread=(round(min(ratios), 3), round(max(ratios), 3)),
        floor=FLOORS.get(name),
        ceiling=CEILINGS.get(name),
        target=TARGETS.get(name),
    )


SUITES: dict[str, Callable[[int], dict[str, list[tuple[float, float]]]]] = {
    "ingress": ingress.measure,
    "subscriber": subscriber.measure,
    "process": process.measure,
    "job": job.measure,
    "neighbour": neighbour.measure,
    "start": start.measure,
}
FLOORS: dict[str, float] = {**start.FLOORS, **neighbour.FLOORS}
"""The least ratio of a row, by its name."""
CEILINGS: dict[str, float] = {**ingress.CEILINGS}
"""The largest ratio of a row of which smaller is better, by its name."""
TARGETS: dict[str, float] = {**ingress.TARGETS}
"""The ratio that a row is to reach, by its name."""


def main() -> None:
    """Measure what was asked for; exit 1 where a row is below its floor."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.suites or SUITES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        measured = SUITES[name](options.rounds)
        rows += [summarise(title, [Pair(*pair) for pair in pairs]) for title, pairs in measured.items()]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    table = Table(title="ours beside the peer")
    for heading in ("row", "ours", "peer", "ratio", "spread", "bound", "target"):
        table.add_column(heading, justify="left" if heading == "row" else "right")
    for row in rows:
        spread = f"{row.spread[0]:.2f}-{row.spread[1]:.2f}"
        table.add_row(
            row.row,
            f"{row.ours:,.4g}",
            f"{row.peer:,.4g}",
            f"{row.ratio:.2f}",
            spread,
            row.bound,
            str(row.target or "-"),
        )
    Console(width=130).print(table)
    sys.exit(not all(row.within for row in rows))


if __name__ == "__main__":
    main()

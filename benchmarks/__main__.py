"""Measure rows and their peers, print a table, write ``build/bench.json``.

Ours and the peer run in turn, several rounds each; the ratio is the median of the rounds' ratios, so it holds when the
machine's speed drifts. ``spread`` is the lowest and highest ratio of a round. Of most rows larger is better: ``floor``
is the ratio below which such a row fails. Of the rows that compare costs smaller is better: ``ceiling`` is the ratio
above which such a row fails. Both leave a margin of about a quarter for noise. ``target`` is what the row is to reach.

A suite is a module of this package. Its ``measure(rounds, scale=1.0)`` returns one pair (ours, peer) per round for each
row; ``scale`` multiplies the amount of work. Its dictionaries ``FLOORS``, ``CEILINGS`` and ``TARGETS`` have bounds by
the name of the row, ``NEEDS`` the package of a peer without which a row is left out. ``ROUNDS_AT_MOST`` is for a suite
whose rounds take minutes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from benchmarks.machine import Quiet, QuietWatch, described
from benchmarks.page import notes, write_page
from benchmarks.rows import Bounds, Row, show, summarise

OUT: Final = Path("build/bench.json")
SMOKE_OUT: Final = Path("build/bench-smoke.json")
SUITES: Final = (
    "ingress",
    "subscriber",
    "process",
    "job",
    "cost",
    "start",
    "http",
    "transfer",
    "neighbour",
    "fanout",
)
"""The suites in the order in which they run. A suite is imported right before it runs."""
MODULES: Final = {"ingress": ("ingress", "peers"), "http": ("http", "card_rate")}
"""Modules of the suites that have several."""
ROUNDS: Final = 5
SMOKE: Final = 0.02
"""Fraction of the work that a smoke run does, in one round."""


@dataclass(slots=True)
class Run:
    """One run, as ``build/bench.json`` stores it."""

    machine: dict[str, str | int | float] = field(default_factory=described)
    measured_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    seconds: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def measure(self, suite: str, rounds: int, scale: float) -> None:
        """Add the rows of a suite. If it fails, record the failure and continue with the next suite."""
        print(f"measuring {suite} ...", file=sys.stderr, flush=True)
        for name in MODULES.get(suite, (suite,)):
            self._measure(suite, name, rounds, scale)

    def _measure(self, suite: str, module_name: str, rounds: int, scale: float) -> None:
        begun, watch = time.monotonic(), QuietWatch()
        try:
            module: Any = importlib.import_module(f"benchmarks.{module_name}")
            measured = module.measure(min(rounds, getattr(module, "ROUNDS_AT_MOST", rounds)), scale)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a failing suite must not stop the others
            traceback.print_exc()
            self.broken.append(f"{suite}: {error}")
            return
        quiet = watch.result()
        bounds = Bounds.of(module)
        seconds = time.monotonic() - begun
        self.seconds[suite] = round(self.seconds.get(suite, 0) + seconds, 1)
        print(
            f"  {seconds:.0f} s, CPU time {quiet.cpu_seconds:.0f} s{'; ' if quiet.note else ''}{quiet.note}",
            file=sys.stderr,
            flush=True,
        )
        self.rows += [summarise(suite, name, pairs, bounds, quiet) for name, pairs in measured.items()]
        if missing := bounds.names() - measured.keys():
            self.broken.append(f"{suite}: not measured, though there is a bound for them: {', '.join(sorted(missing))}")

    def write(self, path: Path = OUT) -> None:
        """Write ``build/bench.json``."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def last(cls, path: Path = OUT) -> Run:
        """Read ``build/bench.json``."""
        if not path.exists():
            raise SystemExit(f"{path} is missing: run `make bench` first")
        kept: dict[str, Any] = json.loads(path.read_text())
        rows = [Row(**{**row, "quiet": Quiet(**row["quiet"]), "spread": tuple(row["spread"])}) for row in kept["rows"]]
        return cls(**{**kept, "rows": rows})


def check(rows: Sequence[Row]) -> bool:
    """Print the rows that break their bound; print the row nearest to its bound last."""
    bounded = sorted((row for row in rows if row.margin < float("inf")), key=lambda row: row.margin, reverse=True)
    for row in (row for row in bounded if row.margin < 1):
        print(f"below its bound: {row.row}: {row.ratio:g}, must be {row.bound}", file=sys.stderr)
    if bounded:
        worst = bounded[-1]
        print(f"worst row: {worst.row}: {worst.ratio:g}, must be {worst.bound} ({worst.margin:.2f} of its bound)")
    return all(row.margin >= 1 for row in rows)


def main() -> None:
    """Measure the chosen suites; exit 1 if one failed, or with ``--check`` if a row breaks its bound."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"one of {', '.join(SUITES)}; default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--smoke", action="store_true", help="one round with a fiftieth of the work, to see that it runs"
    )
    parser.add_argument("--last", action="store_true", help="measure nothing; use build/bench.json of the last run")
    parser.add_argument("--check", action="store_true", help="exit 1 if a row breaks its bound")
    parser.add_argument(
        "--write-docs", action="store_true", help="write the table and charts of docs/explanation/performance.md"
    )
    options = parser.parse_args()
    if unknown := sorted({*options.suites} - {*SUITES}):
        parser.error(f"there is no suite {', '.join(unknown)}; there are {', '.join(SUITES)}")
    run = Run.last() if options.last else Run()
    if not options.last:
        for suite in options.suites or SUITES:
            run.measure(suite, 1 if options.smoke else options.rounds, SMOKE if options.smoke else 1.0)
        run.write(SMOKE_OUT if options.smoke else OUT)
    rows = [row for row in run.rows if row.suite in (options.suites or SUITES)]
    show(rows, "smoke run: the numbers say nothing" if options.smoke else "ours beside the peer")
    print("\n".join(notes(rows)))
    if options.write_docs:
        write_page(rows, run.machine, run.measured_at)
    for broken in run.broken:
        print(f"broken: {broken}", file=sys.stderr)
    kept = check(rows) if options.check else True
    sys.exit(bool(run.broken) or not kept)


if __name__ == "__main__":
    main()

"""The measured part of docs/explanation/performance.md: the machine, the table and the charts of the last run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.charts import write_charts
from benchmarks.rows import Row

PAGE: Final = Path("docs/explanation/performance.md")
CHARTS: Final = Path("docs/explanation/charts")
_MEASURED: Final = re.compile(r"(<!-- results:[^>]*-->\n).*?(\n<!-- /results -->)", re.DOTALL)


def write_page(rows: Sequence[Row], machine: Mapping[str, object], measured_at: str) -> None:
    """Write the results between the page's two marks, and the charts beside the page."""
    text = PAGE.read_text("utf-8")
    suites = write_charts(rows, CHARTS)
    results = "\n".join(
        [
            "",
            described(machine, measured_at),
            "",
            *table(rows),
            "",
            *notes(rows),
            *(f"![{suite}: each row against its target](charts/{suite}.svg)\n" for suite in suites),
        ]
    )
    PAGE.write_text(_MEASURED.sub(lambda found: found[1] + results + found[2], text), "utf-8")


def described(machine: Mapping[str, object], measured_at: str) -> str:
    """Return a sentence about the machine and the day."""
    hardware = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory"
    software = f"Python {machine['python']}, Java {machine['java']}, Apache Kafka {machine['kafka']}"
    return f"Measured on {measured_at[:10]}: {hardware}, Linux {machine['kernel']}, {software}."


def table(rows: Sequence[Row]) -> list[str]:
    """Return the table of the rows."""
    lines = ["| row | ratio | spread | rounds | bound | target | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        cells = (
            row.row.replace("|", "/"),
            f"{row.ratio:.3g}",
            f"{row.spread[0]:.3g} to {row.spread[1]:.3g}",
            str(row.rounds),
            row.bound,
            row.goal,
            reached(row),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def reached(row: Row) -> str:
    """Return whether the row meets its target, or by how much it misses the target."""
    if row.reach is None:
        return ""
    return "met" if row.reach >= 1 else f"missed by {1 - row.reach:.0%}"


def notes(rows: Sequence[Row]) -> list[str]:
    """Return the disturbances of the suites; empty for a quiet machine."""
    found = dict.fromkeys(f"- {row.suite}: {row.quiet.note}" for row in rows if row.quiet.note)
    return ["While these suites ran the machine was not quiet:", "", *found, ""] if found else []

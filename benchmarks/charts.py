"""Charts of a run for docs/explanation/performance.md: one SVG per suite, each row a bar with a mark at its target.

A bar shows which part of its target a row reaches, so that costs and speeds read alike: longer is better, and the mark
at 1 is the target. The colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from benchmarks.rows import Row

_WIDTH: Final = 760
_ROW: Final = 46
_LEFT: Final = 16
_RIGHT: Final = 16
_TOP: Final = 52
_MOST: Final = 2.0
"""End of the scale. A longer bar is cut there, with its number beside its name."""
_LEGEND: Final = (
    "Longer is better. The mark is the target (without one: the bound, or 1), the thin line the rounds' spread."
)
_STYLE: Final = (
    "<style>text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}.dim{fill:#59636e}"
    ".track{fill:#e6e9ed}.met{fill:#1a7f37}.missed{fill:#bc4c00}.open{fill:#0969da}"
    ".mark{stroke:#1f2328;stroke-width:2}.spread{stroke:#59636e;stroke-width:2}.paper{fill:#ffffff}"
    "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.dim{fill:#9198a1}.track{fill:#2a313c}.met{fill:#3fb950}"
    ".missed{fill:#f0883e}.open{fill:#4493f8}.mark{stroke:#f0f6fc}.spread{stroke:#9198a1}.paper{fill:#0d1117}}"
    "</style>"
)


def write_charts(rows: Sequence[Row], folder: Path) -> list[str]:
    """Write one chart per suite; return the suites."""
    folder.mkdir(parents=True, exist_ok=True)
    suites = list(dict.fromkeys(row.suite for row in rows))
    for suite in suites:
        (folder / f"{suite}.svg").write_text(chart(suite, [row for row in rows if row.suite == suite]), "utf-8")
    return suites


def chart(suite: str, rows: Sequence[Row]) -> str:
    """Return the SVG of a suite."""
    height = _TOP + _ROW * len(rows) + 10
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(_spoken(suite, rows))}">',
        _STYLE,
        f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="6"/>',
        f'<text class="title" x="{_LEFT}" y="24">{escape(suite)}</text>',
        f'<text class="dim" x="{_LEFT}" y="42">{_LEGEND}</text>',
    ]
    for number, row in enumerate(rows):
        lines += _bar(row, _TOP + number * _ROW)
    return "\n".join([*lines, "</svg>", ""])


def _bar(row: Row, top: int) -> list[str]:
    reach = _reached(row, row.ratio)
    kind = "open" if row.target is None else "met" if reach >= 1 else "missed"
    low, high = sorted(_x(_reached(row, ratio)) for ratio in row.spread)
    goal = f"target {row.goal}" if row.target is not None else f"must be {row.bound}" if row.bound != "-" else ""
    numbers = f"{row.ratio:.3g}{f' ({goal})' if goal else ''}"
    return [
        f'<text x="{_LEFT}" y="{top + 14}">{escape(row.row)}</text>',
        f'<text class="dim" x="{_WIDTH - _RIGHT}" y="{top + 14}" text-anchor="end">{escape(numbers)}</text>',
        f'<rect class="track" x="{_LEFT}" y="{top + 20}" width="{_x(_MOST) - _LEFT:.1f}" height="12" rx="3"/>',
        f'<rect class="{kind}" x="{_LEFT}" y="{top + 20}" width="{_x(reach) - _LEFT:.1f}" height="12" rx="3"/>',
        f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{top + 35}" y2="{top + 35}"/>',
        f'<line class="mark" x1="{_x(1):.1f}" x2="{_x(1):.1f}" y1="{top + 17}" y2="{top + 38}"/>',
    ]


def _reached(row: Row, ratio: float) -> float:
    """Return the fraction of its target that a ratio reaches; without a target, of 1 or of the row's ceiling."""
    wanted = row.target or row.ceiling or 1.0
    if not ratio:
        return math.inf if row.smaller_is_better else 0.0
    return wanted / ratio if row.smaller_is_better else ratio / wanted


def _x(reach: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(reach, _MOST) / _MOST


def _spoken(suite: str, rows: Sequence[Row]) -> str:
    return f"{suite}: " + "; ".join(f"{row.row}: {row.ratio:.3g}, target {row.goal}" for row in rows)

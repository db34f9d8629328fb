"""Fails if the last test run covered too few lines or branches: ``python -m tools.coverage_gate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from coverage import Coverage
from coverage.exceptions import NoDataError

LEAST: Final = 90.0
"""Minimum percentages of lines and of branches. Coverage's own ``fail_under`` only checks them combined."""
_KINDS: Final = {"lines": "percent_statements_covered", "branches": "percent_branches_covered"}


def main(arguments: Sequence[str]) -> int:
    """Print both percentages, and if one is too low, the modules with the most uncovered code.

    Args:
        arguments: The data file, if not the configured one.

    Returns:
        The exit code.
    """
    measured = Coverage(data_file=arguments[0]) if arguments else Coverage()
    try:
        measured.load()
        measured.json_report()
    except NoDataError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 2
    report = json.loads(Path(measured.config.json_output).read_text("utf-8"))
    covered = {kind: report["totals"][key] for kind, key in _KINDS.items()}
    print("covered: " + ", ".join(f"{percent:.1f} % of {kind}" for kind, percent in covered.items()))
    if min(covered.values()) >= LEAST:
        return 0
    print(f"less than {LEAST:g} %. Most is missing in:", file=sys.stderr)
    for name, summary in _worst(report["files"]):
        print(f"  {name}: {summary['missing_lines']} lines, {summary['missing_branches']} branches", file=sys.stderr)
    return 1


def _worst(files: dict[str, Any]) -> list[tuple[str, Any]]:
    summaries = [(name, file["summary"]) for name, file in files.items()]
    return sorted(summaries, key=lambda one: one[1]["missing_lines"] + one[1]["missing_branches"])[:-11:-1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What it costs to start: the command's help beside `import click`, and the subscriber's import beside two libraries.

CPU time of processes, so that a busy machine changes little. The peer of the help is what the help may cost at most:
1.2 times the time of `import click`, and 0.15 s.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

RUNS: Final = 5
HELP: Final = "start, pipeline --help"
IMPORT: Final = "start, import pipeline.subscriber"
FLOORS: Final = {HELP: 1.0}

_HELP: Final = "import sys; sys.argv = ['pipeline', '--help']; from pipeline.cli import main; main()"


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return rows of (ours, peer): starts per second of CPU time."""
    rows: dict[str, list[tuple[float, float]]] = {HELP: [], IMPORT: []}
    runs = max(1, int(RUNS * scale))
    for _ in range(rounds):
        rows[HELP].append((1 / _seconds(_HELP, runs), 1 / (1.2 * _seconds("import click", runs) + 0.15)))
        rows[IMPORT].append(
            (1 / _seconds("import pipeline.subscriber", runs), 1 / _seconds("import aiokafka, pydantic", runs))
        )
    return rows


def _seconds(code: str, runs: int) -> float:
    """Return the least CPU time of some runs, in seconds."""
    return min(_once(code) for _ in range(runs))


def _once(code: str) -> float:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)  # noqa: S603 - ourselves
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{code} failed")
    return usage.ru_utime + usage.ru_stime

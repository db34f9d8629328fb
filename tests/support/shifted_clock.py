"""The ``pipeline`` command on a machine whose clock is wrong: ``python -m support.shifted_clock SECONDS ARGUMENTS...``.

Production code knows no such option: the clock is a port, and this launcher replaces it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from support.flow_process import Child, Launch

from pipeline import cli
from pipeline.app import Ports


class ShiftedPorts(Ports):
    """The ports of production, with a clock that is ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


def launch_ahead(seconds: float) -> Launch:
    """Return what starts processes whose clock is so many seconds ahead."""

    def launch(argv: Sequence[str], *, out: Path, err: Path, env: Mapping[str, str]) -> Child:
        command = [sys.executable, "-m", "support.shifted_clock", str(seconds), *argv]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=dict(env))

    return launch


if __name__ == "__main__":
    cli.main(ShiftedPorts(timedelta(seconds=float(sys.argv.pop(1)))))

"""The ``pipeline`` command with a death in it: ``python -m support.crashing_pipeline POINT ARGUMENTS...``.

A point is one of :data:`support.effects.CRASH_POINTS`, for example ``before:publish.card-batch.processed``: the process
kills itself (SIGKILL, so nothing is flushed or cleaned up) when it gets there for the first time; ``...#3`` means the
third time. A process that ends without having been there says so, and its exit code is never one of the command's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from support.effects import CRASH_POINTS, EFFECTS, NoticingPorts

from pipeline import cli
from pipeline.audit import chain
from pipeline.jobs.part_store import PartStore

NEVER_THERE: Final = 70
"""Exit code of a process that was never at its point."""


class Crash:
    """Kills this process at one point."""

    def __init__(self, point: str) -> None:
        self._whole = point
        self._point, _, times = point.partition("#")
        if self._point not in CRASH_POINTS:
            raise SystemExit(f"{point} is no crash point: support.effects.CRASH_POINTS lists them")
        self._left = int(times or 1)

    @contextmanager
    def around(self, effect: str) -> Iterator[None]:
        """Surround an effect."""
        if effect not in EFFECTS:
            raise LookupError(f"{effect} is missing in support.effects.EFFECTS")
        self._reach(f"before:{effect}")
        yield
        self._reach(f"after:{effect}")

    def _reach(self, point: str) -> None:
        if point != self._point:
            return
        self._left -= 1
        if self._left == 0:
            os.write(2, died_at(self._whole).encode())
            os.kill(os.getpid(), signal.SIGKILL)


def died_at(point: str) -> str:
    """Return the last line of a process that died at its point."""
    return f"killed itself at {point}\n"


def run(point: str) -> None:
    """Run the command, with this process's arguments; it does not return alive from its point."""
    crash = Crash(point)
    if point.partition(":")[2].startswith("store.part"):
        PartStore.inline_bytes = -1  # else the small parts of the tests are in their manifests
    if point.partition(":")[2].endswith(".checkpoint"):
        chain._CHECKPOINT_EVERY = 1  # type: ignore[misc]
    try:
        cli.main(NoticingPorts(crash.around))
    except SystemExit as end:
        sys.stderr.write(f"ended by {end.code!r}, never at {point}\n")
        raise SystemExit(NEVER_THERE) from None


if __name__ == "__main__":
    point = sys.argv.pop(1)
    run(point)

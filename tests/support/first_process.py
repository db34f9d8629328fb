"""Processes that are process 1 of a namespace, as the command of a container is."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_WAYS: Final = (["unshare", "-pf"], ["unshare", "-Upf"])
"""As root; and as a user, where the kernel lets users have namespaces."""
_SIGTERM_BIT: Final = 1 << 14


class FirstProcess:
    """A process that sees itself as process 1.

    Attributes:
        pid: Its number outside.
    """

    def __init__(self, outer: subprocess.Popen[str], pid: int) -> None:
        self.pid = pid
        self._outer = outer

    def catches_sigterm(self) -> bool:
        """Say whether it has a handler of SIGTERM; without one the kernel drops the signal."""
        status = Path(f"/proc/{self.pid}/status").read_text("ascii")
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.partition(":")[2], 16) & _SIGTERM_BIT)

    def has_loaded(self, library: str) -> bool:
        """Say whether a shared library of this name is in its memory."""
        return library in Path(f"/proc/{self.pid}/maps").read_text("utf-8")

    def printed(self) -> str:
        """Return the next line of the process's standard output."""
        assert self._outer.stdout is not None
        return self._outer.stdout.readline().rstrip("\n")

    def exit_code(self, seconds: float = 20.0) -> int:
        """Wait until it has ended; return its exit code."""
        return self._outer.wait(timeout=seconds)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until a condition holds, looking often."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come to it in time"
        time.sleep(0.001)


@contextmanager
def first_process(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Iterator[FirstProcess]:
    """Run a command as process 1 of a new namespace, and kill it at the end; skip the test where that is forbidden."""
    for way in _WAYS:
        if subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip("this machine lets nobody make a PID namespace")
    with (cwd / "stderr").open("w") as errors:
        outer = subprocess.Popen(
            [*way, "--kill-child", *command], cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=errors
        )
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        until(lambda: bool(children.read_text("ascii").split()))
        yield FirstProcess(outer, int(children.read_text("ascii").split()[0]))
    finally:
        outer.kill()
        outer.wait()
        if outer.stdout is not None:
            outer.stdout.close()

"""The CLI's processes without the second of CPU that importing it takes: forked from one that has imported everything.

Tests that start a process a hundred times use it; each fork is a process of its own that runs the same ``main()`` with
its own arguments and environment, and dies of signals as any other. ``test_whole_flow`` starts the installed command.

``python -m support.prefork`` reads one JSON line per process on stdin and answers each with a line that holds the
process id. A line holds ``argv``, ``env``, the files ``out`` and ``err``, ``crash_at`` (None, or where the process
kills itself), and the file ``note``, in which it is written how the process ended. When stdin ends, whatever still runs
is killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

_NOTED_WITHIN: Final = 30.0
_LOOK_SECONDS: Final = 0.02
_NEEDED: Final = (
    "pipeline.cli",
    "pipeline.cli.serve",
    "pipeline.app",
    "pipeline.jobs.processors.validate",
    "support.counting",
    "support.crashing_pipeline",
)


class Prefork:
    """Starts processes; see :class:`support.flow_process.Launch`."""

    def __init__(self, server: subprocess.Popen[bytes], crash_at: str | None = None) -> None:
        self._server = server
        self._crash_at = crash_at

    def crashing(self, point: str) -> Prefork:
        """Return what starts processes that die at a point; see :mod:`support.crashing_pipeline`."""
        return Prefork(self._server, point)

    def __call__(self, argv: Sequence[str], *, out: Path, err: Path, env: Mapping[str, str]) -> Forked:
        """Start ``pipeline`` with these arguments."""
        note = out.with_suffix(".code")
        files = {"out": str(out), "err": str(err), "note": str(note)}
        order = {"argv": argv, "env": dict(env), "crash_at": self._crash_at, **files}
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        self._server.stdin.flush()
        return Forked(int(self._server.stdout.readline()), note)


class Forked:
    """What tests need of ``subprocess.Popen``, for a process that is a child of another."""

    def __init__(self, pid: int, note: Path) -> None:
        self.pid = pid
        self._note = note

    def poll(self) -> int | None:
        """Return how it ended (negative: by which signal), or None while it runs."""
        return int(self._note.read_text()) if self._note.exists() else None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end, which must be near; return how it ended."""
        end = time.monotonic() + _NOTED_WITHIN
        while (code := self.poll()) is None:
            assert time.monotonic() < end, f"{self.pid} does not end"
            time.sleep(0.01)
        return code


@contextmanager
def running_prefork(env: Mapping[str, str]) -> Iterator[Prefork]:
    """Run the server; all processes end with it at the latest."""
    command = [sys.executable, "-m", "support.prefork"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(env)) as server:
        assert server.stdout
        assert server.stdout.readline() == b"ready\n"
        yield Prefork(server)


class _Server:
    def __init__(self) -> None:
        self._notes: dict[int, Path] = {}

    def run(self) -> None:
        for name in _NEEDED:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # what is there now is shared with the forks and never collected
        self._say("ready")
        try:
            while line := self._next_order():
                self._fork(json.loads(line))
        finally:
            for pid in self._notes:
                os.kill(pid, signal.SIGKILL)

    def _next_order(self) -> bytes:
        """Wait for the next line, and meanwhile note which processes have ended. Lines come one at a time."""
        while not select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
            while self._notes and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._note(*ended)
        return sys.stdin.buffer.readline()

    def _note(self, pid: int, status: int) -> None:
        note = self._notes.pop(pid)
        aside = note.with_suffix(".aside")
        aside.write_text(str(os.waitstatus_to_exitcode(status)))
        aside.rename(note)

    def _fork(self, order: Mapping[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            _become(order)
        self._notes[pid] = Path(order["note"])
        self._say(str(pid))

    @staticmethod
    def _say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _become(order: Mapping[str, Any]) -> NoReturn:
    """Be the process that was ordered."""
    code = 70
    try:
        for number, (path, flags) in enumerate(
            ((os.devnull, os.O_RDONLY), (order["out"], os.O_WRONLY), (order["err"], os.O_WRONLY))
        ):
            descriptor = os.open(path, flags)
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(order["env"])
        sys.argv = ["pipeline", *order["argv"]]
        if order["crash_at"]:
            sys.modules["support.crashing_pipeline"].run(order["crash_at"])
        else:
            sys.modules["pipeline.cli"].main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _Server().run()

"""The ingress processes of a supervisor: the state of each, and the detection of their ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from typing import Final

from pipeline.app.supervised import METRICS, STOP
from pipeline.observability import Health
from pipeline.observability.health import Results


class Process:
    """One process that was started.

    Attributes:
        ended: Its exit code once it has ended. A negative code is the number of a signal.
        checks: The results of its last report; empty before the first one.
        was_ready: Whether it has ever been ready.
        silent: Seconds since its last report, or since its start.
        measured: Set once it has sent its metrics.
    """

    def __init__(self, popen: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.channel = channel
        self.pid = popen.pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.checks: Results = {}
        self.alarms: Results = {}
        self.was_ready = False
        self.silent = 0.0
        self.measured = asyncio.Event()
        self.writer: asyncio.StreamWriter | None = None
        self._popen = popen
        self._started_at = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the start of the process."""
        return time.monotonic() - self._started_at

    @property
    def ready(self) -> bool:
        """Whether it has reported and every check passed."""
        return bool(self.checks) and all(result["ok"] for result in self.checks.values())

    def report(self, checks: Results, alarms: Results) -> None:
        """Store the results that the process reported."""
        self.silent = 0.0
        self.checks, self.alarms = checks, alarms
        self.was_ready = self.was_ready or self.ready

    async def measure(self) -> None:
        """Ask for its metrics and wait for them, or for its end."""
        if self.writer is not None and not self.writer.is_closing():
            self.measured.clear()
            self.writer.write(METRICS)
            await self.measured.wait()

    def ask_to_stop(self) -> None:
        """Ask it to stop.

        A ready process gets a message and no signal: it may have got a signal already, and a second one would kill it.
        """
        if self.was_ready and self.writer is not None and not self.writer.is_closing():
            self.writer.write(STOP)
        elif not self.ended.done():
            self._popen.terminate()

    def kill(self) -> None:
        """End it at once."""
        if not self.ended.done():
            self._popen.kill()

    def poll(self) -> None:
        """Store its exit code, if it has ended."""
        code = self._popen.poll()
        if code is not None and not self.ended.done():
            self.ended.set_result(code)


class Slot:
    """One of the N processes: the one that runs now, or the next one."""

    def __init__(self, number: int) -> None:
        self.number: Final = number
        self.process: Process | None = None
        self.quick_ends = 0
        """How many processes in a row ended soon after their start."""

    @property
    def ready(self) -> bool:
        """Whether its process runs and is ready."""
        return self.process is not None and self.process.ready

    @property
    def listens(self) -> bool:
        """Whether its process accepts connections, according to the last report."""
        return self.process is not None and bool(self.process.checks.get("ingress", {}).get("ok"))

    def kill(self) -> None:
        """End the process at once, if one runs."""
        if self.process is not None:
            self.process.kill()

    def health(self) -> Health:
        """Return the health of its process, alarms included."""
        process = self.process
        if process is None:
            return Health(
                ok=False, message=f"ended ({self.quick_ends} times soon after its start); it will be replaced"
            )
        if not process.checks:
            return Health(ok=False, message=f"pid {process.pid}: starting")
        results = {**process.checks, **process.alarms}
        wrong = [f"{name}: {result['message']}" for name, result in results.items() if not result["ok"]]
        return Health(ok=not wrong, message=f"pid {process.pid}: {'; '.join(wrong) or 'ready'}")


def reap_all(running: Mapping[int, Process]) -> None:
    """Reap every child of this process that has ended: ingress processes, and orphans of other processes.

    It checks each child before it reaps it, so that the exit code of an ingress process is not lost.

    Args:
        running: The ingress processes that still run, as far as is known, by pid.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            process = running.get(ended.si_pid)
            if process is None:
                os.waitpid(ended.si_pid, 0)
            else:
                process.poll()

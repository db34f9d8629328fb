"""One process of the installed CLI: started, waited for, frozen, killed, looked at."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from support.members import until
from support.paths import SUPPORT

PIPELINE = Path(sys.executable).with_name("pipeline")
"""The installed command, beside the interpreter that runs the tests."""

_TESTS = SUPPORT.parent


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without settings of the pipeline; processors of ``support`` can be imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
    path = os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, **(extra or {})}


class Child(Protocol):
    """What a flow needs of ``subprocess.Popen``."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def send_signal(self, number: int, /) -> None: ...

    def kill(self) -> None: ...

    def wait(self) -> int: ...


class Launch(Protocol):
    """Starts the CLI with some arguments; stdout and stderr go to files that exist."""

    def __call__(self, argv: Sequence[str], *, out: Path, err: Path, env: Mapping[str, str]) -> Child: ...


def launch_installed(argv: Sequence[str], *, out: Path, err: Path, env: Mapping[str, str]) -> Child:
    """Start the installed command."""
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(
            [str(PIPELINE), *argv], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=dict(env)
        )


class FlowProcess:
    """A server of the CLI. stdout and stderr go to files, so that nothing blocks and a failure can be read.

    Attributes:
        name: ``ingress`` or a stage.
        log_file: What it wrote to stderr.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        base: Path,
        env: Mapping[str, str] | None = None,
        launch: Launch = launch_installed,
    ) -> None:
        self.name = name
        self.log_file = base.with_suffix(".err")
        self._out_file = base.with_suffix(".out")
        for file in (self._out_file, self.log_file):
            file.touch()
        self._process = launch(argv, out=self._out_file, err=self.log_file, env=environment(env))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """The log output so far."""
        return self.log_file.read_text("utf-8", "replace")

    @property
    def output(self) -> str:
        """The standard output so far."""
        return self._out_file.read_text("utf-8", "replace")

    @property
    def code(self) -> int | None:
        """How it ended (negative: by which signal), or None while it runs."""
        return self._process.poll()

    async def ready(self, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for its ready line and return it."""
        await until(lambda: b"\n" in self._out_file.read_bytes() or self.code is not None, seconds)
        line = self._out_file.read_bytes().partition(b"\n")[0]
        assert line, f"{self.name} ended with {self.code} before it was ready:\n{self.log[-3000:]}"
        said: dict[str, Any] = json.loads(line)
        return said

    async def ended(self, seconds: float = 60.0) -> int:
        """Wait until it has ended and return its code."""
        await until(lambda: self.code is not None, seconds)
        return self._process.wait()

    async def stop(self, seconds: float = 60.0) -> int:
        """Ask it to stop (SIGTERM) and wait for it."""
        self.signal(signal.SIGTERM)
        return await self.ended(seconds)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, e.g. SIGSTOP and SIGCONT."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process in any state; do nothing if it has ended."""
        self._process.kill()
        self._process.wait()


async def run_cli(*arguments: str, seconds: float = 60.0, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a command to its end; return its code and what it printed on stdout."""
    process = await asyncio.create_subprocess_exec(
        str(PIPELINE), *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment(env)
    )
    try:
        async with asyncio.timeout(seconds):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return process.returncode, out.decode()

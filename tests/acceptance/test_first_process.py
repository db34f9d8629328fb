"""SIGTERM to the first process of a container: the kernel drops it unless there is a handler."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from support.first_process import first_process, until
from support.flow_process import PIPELINE, environment

SETTINGS: Final = """\
[kafka]
bootstrap_servers = "127.0.0.1:1"

[store]
kind = "local"
path = "store"

[ingress]
port = 0

[management]
port = 0
"""

ENDED_BY_SIGTERM: Final = 128 + signal.SIGTERM

SLOW_STOP: Final = """
import asyncio, sys, uvloop
from pipeline.signals import stop_on_signals

async def serve():
    stop = asyncio.Event()
    with stop_on_signals(stop.set):
        print("ready", flush=True)
        await stop.wait()
        print("stopping", flush=True)
        {work}
        await asyncio.sleep(60)

with asyncio.Runner(loop_factory={loop}) as runner:
    runner.run(serve())
"""


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1, 0.2, 0.4, 0.8])
def test_sigterm_in_the_first_second_ends_a_server(tmp_path: Path, seconds: float) -> None:
    """The handler is there before the imports, which take most of that second."""
    (tmp_path / "pipeline.toml").write_text(SETTINGS)
    with first_process([str(PIPELINE), "ingress"], cwd=tmp_path, env=environment()) as server:
        until(server.catches_sigterm)
        if seconds == 0.0:
            assert not server.has_loaded("pydantic_core")
        time.sleep(seconds)
        os.kill(server.pid, signal.SIGTERM)
        assert server.exit_code() in {0, ENDED_BY_SIGTERM}


@pytest.mark.parametrize("command", [["job", "list"], ["topics", "check"]])
def test_sigterm_ends_any_command(tmp_path: Path, command: list[str]) -> None:
    """A job of the cluster that was terminated must not look done."""
    (tmp_path / "pipeline.toml").write_text(SETTINGS)
    with first_process([str(PIPELINE), *command], cwd=tmp_path, env=environment()) as process:
        until(process.catches_sigterm)
        os.kill(process.pid, signal.SIGTERM)
        assert process.exit_code() == ENDED_BY_SIGTERM


@pytest.mark.parametrize("loop", ["asyncio.new_event_loop", "uvloop.new_event_loop"])
@pytest.mark.parametrize("work", ["", "import time; time.sleep(60)"], ids=["waiting", "busy"])
def test_a_second_sigterm_ends_it_at_once(tmp_path: Path, loop: str, work: str) -> None:
    script = SLOW_STOP.format(loop=loop, work=work)
    with first_process([sys.executable, "-c", script], cwd=tmp_path, env=environment()) as process:
        assert process.printed() == "ready"
        os.kill(process.pid, signal.SIGTERM)
        assert process.printed() == "stopping"
        os.kill(process.pid, signal.SIGTERM)
        assert process.exit_code(10) == ENDED_BY_SIGTERM

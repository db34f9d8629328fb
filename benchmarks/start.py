"""The cost of starting and waiting: CPU time of the command's help and of a worker, memory of idle processes.

The peer of a start is ``python -c "import aiohttp, aiokafka, pydantic"``, the libraries that every process needs. CPU
time of processes, so that a busy machine changes little: what a start waits for, such as a group that lets its members
join, is not in it. The peer of an idle process is the memory that it may take, in MB. The processes run on the embedded
broker, with one integration of ECS, whose cards ``validate`` checks.

Ours and the peer load compiled modules, as pip installs them, from a folder of this run. Where the environment has
``PYTHONDONTWRITEBYTECODE``, Python would compile the project's modules at each start, but not those of the libraries.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.ingress import Server, cli, running, write_config

RUNS: Final = 3
IDLE_SECONDS: Final = 5.0

HELP: Final = "start, pipeline --help / import of the libraries"
IMPORT: Final = "start, import pipeline.subscriber / import aiokafka, pydantic"
READY: Final = "start to ready, process worker / import of the libraries"
MEMORY_MB: Final = {
    "idle memory, ingress": 80.0,
    "idle memory, process worker": 100.0,
    "idle memory, upload worker": 100.0,
    "idle memory, confirm worker": 100.0,
    "idle memory, audit worker": 100.0,
}
"""Allowed memory of idle processes, by the names of rows."""

FLOORS: Final[dict[str, float]] = {}
TARGETS: Final = {HELP: 0.6, READY: 2.5} | dict.fromkeys(MEMORY_MB, 1.0)
CEILINGS: Final = {HELP: 0.6, READY: 3.2} | dict.fromkeys(MEMORY_MB, 1.25) | {"idle memory, process worker": 1.6}

_LIBRARIES: Final = "import aiohttp, aiokafka, pydantic"
_SUBSCRIBER: Final = "import sys; sys.modules['rich'] = None; import pipeline.subscriber"
"""A subscriber is installed without the extra ``server``, which brings rich; structlog would load it where it is."""
_PEER_OF_SUBSCRIBER: Final = "import aiokafka, pydantic"
_HELP: Final = "import sys; sys.argv = ['pipeline', '--help']; from pipeline.cli import main; main()"


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return rows of (ours, peer): seconds of CPU time, and MB of memory. In all rows, smaller is better."""
    from support.brokers import running_embedded_broker  # noqa: PLC0415 - found once the tests' folder is on the path

    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in (HELP, IMPORT, READY, *MEMORY_MB)}
    runs = max(1, int(RUNS * scale))
    with tempfile.TemporaryDirectory() as name, running_embedded_broker() as broker:
        config = write_config(Path(name) / "ecs", broker.bootstrap_servers, "ecs")
        env = _with_compiled_modules(Path(name) / "compiled")
        for code in (_LIBRARIES, _HELP, _SUBSCRIBER, _PEER_OF_SUBSCRIBER):
            _seconds(code, 1, env)
        _processes(config, 0.0, env)
        for _ in range(rounds):
            libraries = _seconds(_LIBRARIES, runs, env)
            rows[HELP].append((_seconds(_HELP, runs, env), libraries))
            rows[IMPORT].append((_seconds(_SUBSCRIBER, runs, env), _seconds(_PEER_OF_SUBSCRIBER, runs, env)))
            ready, megabytes = _processes(config, IDLE_SECONDS * scale, env)
            rows[READY].append((ready, libraries))
            for row, allowed in MEMORY_MB.items():
                rows[row].append((megabytes[row.split()[2]], allowed))
    return rows


def _with_compiled_modules(folder: Path) -> Mapping[str, str]:
    """Return an environment in which Python writes compiled modules to a folder, and reads them from there."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder)}


def _processes(config: Path, idle_seconds: float, env: Mapping[str, str]) -> tuple[float, dict[str, float]]:
    """Start one process after the other; return the CPU seconds of PROCESS to ready, and the MB of each when idle."""
    with ExitStack() as stack:
        started: dict[str, Server] = {}
        ready = 0.0
        for name in (row.split()[2] for row in MEMORY_MB):
            command = ["ingress"] if name == "ingress" else ["work", name]
            started[name] = stack.enter_context(running([cli(), "--config", str(config), *command], env))
            if name == "process":
                ready = started[name].cpu_seconds
        time.sleep(idle_seconds)
        return ready, {name: server.process.memory_info().rss / (1 << 20) for name, server in started.items()}


def _seconds(code: str, runs: int, env: Mapping[str, str]) -> float:
    """Return the minimum CPU time of several runs, in seconds."""
    return min(_once(code, env) for _ in range(runs))


def _once(code: str, env: Mapping[str, str]) -> float:
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)  # noqa: S603 - ourselves
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{code} failed")
    return usage.ru_utime + usage.ru_stime

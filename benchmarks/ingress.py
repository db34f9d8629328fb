"""INGRESS, verified and durable, compared with a bare aiohttp no-op.

Ours is ``pipeline ingress`` as a process: announcements of ECS (HMAC verified, body validated), events of Weavr (all 32
kinds), and authorisations alone, which go to one topic. Each is one record on Apache Kafka with acks=all. The peer
answers 202 to any POST and does nothing. The load generator is a third process with keep-alive connections, each
sending its next request when the last one is answered; all share this machine's cores. So the CPU time of a server per
request says more about the server than the requests per second do.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import psutil

from pipeline.jobs.part_encryption import new_part_key

REQUESTS: Final = {64: 6_000, 256: 8_000}
"""Requests of one round by number of connections."""

LOADS: Final = {
    "events": "events, 32 kinds",
    "authorisations": "authorisations only",
    "announcements": "announcements",
}
"""The loads, with their names in the rows."""

_CPU: Final = "ingress, {}, 64 connections: CPU per request / no-op's"
_RATE: Final = "requests/s against the no-op, {}, {} connections"
_TAIL: Final = "p99 at half of the reached load / median"
TARGETS: Final = {
    _RATE.format(LOADS["events"], 64): 0.32,
    _RATE.format(LOADS["events"], 256): 0.36,
    _RATE.format(LOADS["announcements"], 64): 0.28,
    _RATE.format(LOADS["announcements"], 256): 0.33,
    _CPU.format(LOADS["events"]): 3.0,
    _CPU.format(LOADS["authorisations"]): 2.8,
    _CPU.format(LOADS["announcements"]): 3.5,
    _TAIL: 3.0,
}
CEILINGS: Final = {
    _CPU.format(LOADS["events"]): 3.5,
    _CPU.format(LOADS["authorisations"]): 3.6,
    _CPU.format(LOADS["announcements"]): 3.8,
    _TAIL: 8.0,
}
_TAIL_SECONDS: Final = 5
_TICK: Final = 0.01
"""The kernel counts the CPU time of a process in hundredths of a second: a smoke run may see none."""

SECRET = "benchmark-webhook-secret-0123456789"  # noqa: S105 - of nobody
_SOURCES = {
    "ecs": """\
[ecs.bench]
partner_guid = "03338397-83da-470d-9cd7-241f6b5dbd62"
[ecs.bench.webhook]
scheme = "hmac"
header = "X-Signature"
secrets = [{{ file = "{folder}/secret" }}]
[ecs.bench.callback]
token_file = "{folder}/token"
[ecs.bench.hosts]
input = ["files.example"]
result = ["files.example"]
callback = ["ecs.example"]
[parts]
keys = [{{ id = "1", file = "{folder}/part-key" }}]
""",
    "weavr": """\
[weavr.bench]
secrets = [{{ file = "{folder}/secret" }}]
[[weavr.bench.unsigned_paths]]
path = "/bulk_process_end/watch"
source_addresses = ["127.0.0.1/32"]
""",
}
"""Settings of the two sources; each is measured alone. With ECS's, the workers start too."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    url: str
    process: psutil.Process

    @property
    def cpu_seconds(self) -> float:
        """CPU time that the process has used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return rows of (ours, peer): CPU seconds per request, requests per second, and seconds of p99 and median."""
    from support.brokers import running_apache_kafka  # noqa: PLC0415 - found once the tests' folder is on the path

    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    noop = [sys.executable, "-m", "benchmarks.ingress_noop"]
    with (
        tempfile.TemporaryDirectory() as folder,
        running_apache_kafka() as broker,
        running(noop) as peer,
        Generator() as generator,
    ):
        for kind in ("weavr", "ecs"):
            config = write_config(Path(folder) / kind, broker.bootstrap_servers, kind)
            run_command(config, "topics", "create")
            with running([cli(), "--config", str(config), "ingress"]) as ours:
                for load in ("announcements",) if kind == "ecs" else ("events", "authorisations"):
                    _measure(generator, load, ours, peer, rounds=rounds, scale=scale, rows=rows)
                if kind == "weavr":
                    reached = statistics.median(pair[0] for pair in rows[_RATE.format(LOADS["events"], 64)])
                    rows[_TAIL] = [generator.tail(ours, reached / 2, _TAIL_SECONDS * scale) for _ in range(rounds)]
    return dict(rows)


def _measure(
    generator: Generator,
    load: str,
    ours: Server,
    peer: Server,
    *,
    rounds: int,
    scale: float,
    rows: dict[str, list[tuple[float, float]]],
) -> None:
    for connections, most in REQUESTS.items():
        requests = max(int(most * scale), connections)
        if load == "authorisations" and connections != 64:  # noqa: PLR2004 - the row has 64
            continue
        generator.sent(ours, load, connections, requests // 4)
        for _ in range(rounds):
            rates, costs = zip(
                *(generator.sent(server, load, connections, requests) for server in (ours, peer)), strict=True
            )
            if load != "authorisations":
                rows[_RATE.format(LOADS[load], connections)].append(rates)
            if connections == 64:  # noqa: PLR2004 - the row has 64
                rows[_CPU.format(LOADS[load])].append(costs)


def write_config(folder: Path, bootstrap_servers: str, kind: str) -> Path:
    """Write settings with this one source into a new folder: with several, none may take all requests in flight."""
    folder.mkdir()
    for name, text in (("secret", SECRET), ("token", "token-of-nobody"), ("part-key", new_part_key())):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    path = folder / "pipeline.toml"
    path.write_text(
        f"""
[kafka]
bootstrap_servers = "{bootstrap_servers}"
replication_factor = 1
[store]
kind = "local"
path = "{folder}/store"
[ingress]
port = 0
drain_seconds = 0
[management]
port = 0
[logging]
level = "error"
{_SOURCES[kind].format(folder=folder)}"""
    )
    return path


def cli() -> str:
    """Return the path of the installed command."""
    return str(Path(sys.executable).with_name("pipeline"))


def run_command(config: Path, *arguments: str) -> None:
    """Run a command of the CLI."""
    command = [cli(), "--config", str(config), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ourselves


@contextmanager
def running(command: list[str], env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run a server, which prints its URL in one JSON line when it is ready."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)  # noqa: S603 - ourselves
    try:
        ready: dict[str, Any] = json.loads(process.stdout.readline() if process.stdout else "")
        yield Server(str(ready["url"]), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout:
            process.stdout.close()


class Generator:
    """The load generator, in its own process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.ingress_load"]
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()

    def sent(self, server: Server, load: str, connections: int, requests: int) -> tuple[float, float]:
        """Send as fast as answers arrive; return requests per second, and the server's CPU seconds per request."""
        before = server.cpu_seconds
        result = self._generate(server.url, load, connections, requests)
        return result["per_second"], max(server.cpu_seconds - before, _TICK) / requests

    def tail(self, server: Server, per_second: float, seconds: float) -> tuple[float, float]:
        """Return the seconds of the 99th percentile and of the median at a steady load of events."""
        result = self._generate(server.url, "events", 64, max(int(per_second * seconds), 64), per_second)
        return result["p99"], result["p50"]

    def _generate(self, *words: object) -> dict[str, float]:
        pipes = self._process.stdin, self._process.stdout
        if not pipes[0] or not pipes[1]:
            raise RuntimeError("the load generator has no pipes")
        print(*words, file=pipes[0], flush=True)
        line = pipes[1].readline()
        if not line:
            raise SystemExit("the load generator ended")
        result: dict[str, float] = json.loads(line)
        return result

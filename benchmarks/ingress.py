"""INGRESS, verified and durable, against a bare aiohttp no-op.

Ours is ``pipeline ingress`` as a process, twice over: announcements of ECS (HMAC verified, body validated) and events
of Weavr (all 32 kinds), each one record on Apache Kafka with acks=all. The peer answers 202 to any POST and does
nothing. The load generator is a third process with keep-alive connections, each sending its next request when the last
one is answered; all share this machine's cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REQUESTS = {64: 6_000, 256: 8_000}
"""Requests of one round by number of connections."""

WEBHOOKS = {"ecs": "announcements of jobs", "weavr": "events"}
"""What is sent, by kind of source."""

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
""",
    "weavr": """\
[weavr.bench]
secrets = [{{ file = "{folder}/secret" }}]
[[weavr.bench.unsigned_paths]]
path = "/bulk_process_end/watch"
source_addresses = ["127.0.0.1/32"]
""",
}
"""Settings of the two sources; each is measured alone."""


def measure(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return a row per number of connections of (ours, peer): requests per second."""
    from support.brokers import running_apache_kafka  # noqa: PLC0415 - found once the tests' folder is on the path

    rows: dict[str, list[tuple[float, float]]] = {}
    noop = [sys.executable, "-m", "benchmarks.ingress_noop"]
    with tempfile.TemporaryDirectory() as folder, running_apache_kafka() as broker, _server(noop) as peer:
        for kind, what in WEBHOOKS.items():
            config = _config(Path(folder) / kind, broker.bootstrap_servers, kind)
            _pipeline(config, "topics", "create")
            with _server([_cli(), "--config", str(config), "ingress"]) as ours:
                for connections, requests in REQUESTS.items():
                    name = f"ingress, {what}, {connections} connections: requests/s, peer aiohttp no-op"
                    _load(ours, kind, connections, requests // 4)
                    rows[name] = [
                        (_load(ours, kind, connections, requests), _load(peer, kind, connections, requests))
                        for _ in range(rounds)
                    ]
    return rows


def _config(folder: Path, bootstrap_servers: str, kind: str) -> Path:
    """Write the settings of an ingress with this one source: with several, none may take all requests in flight."""
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    (folder / "token").write_text("token-of-nobody")
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


def _cli() -> str:
    return str(Path(sys.executable).with_name("pipeline"))


def _pipeline(config: Path, *arguments: str) -> None:
    command = [_cli(), "--config", str(config), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ourselves


@contextmanager
def _server(command: list[str]) -> Iterator[str]:
    """Run a server; give its URL, which it prints in one JSON line when it is ready."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
    try:
        ready: dict[str, Any] = json.loads(process.stdout.readline() if process.stdout else "")
        yield str(ready["url"])
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout:
            process.stdout.close()


def _load(url: str, kind: str, connections: int, requests: int) -> float:
    """Return requests per second."""
    command = [sys.executable, "-m", "benchmarks.ingress_load", url, kind, str(connections), str(requests)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    result: dict[str, float] = json.loads(done.stdout)
    return result["per_second"]

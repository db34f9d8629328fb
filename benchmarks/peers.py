"""INGRESS compared with another bridge from HTTP to Kafka, in requests per CPU-second.

Ours verifies and validates each announcement; mq-bridge (Rust, on PyPI) takes any POST. Both write one record with
acks=all to the same Apache Kafka before they answer. The load is that of ``ingress``, on 64 connections.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import ingress
from benchmarks.rows import installed

REQUESTS: Final = 6_000
_CONNECTIONS: Final = 64
ROW: Final = "requests per CPU-second against mq-bridge (unverified mode)"
FLOORS: Final = {ROW: 0.22}
TARGETS: Final = {ROW: 0.35}
NEEDS: Final = {ROW: "mq_bridge"}


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return one row of (ours, peer): requests per second of the server's CPU time."""
    from support.brokers import running_apache_kafka  # noqa: PLC0415 - found once the tests' folder is on the path

    if not installed("mq_bridge"):
        return {}
    requests = max(int(REQUESTS * scale), _CONNECTIONS)
    with tempfile.TemporaryDirectory() as folder, running_apache_kafka() as broker:
        config = ingress.write_config(Path(folder) / "ecs", broker.bootstrap_servers, "ecs")
        ingress.run_command(config, "topics", "create")
        bridge = [sys.executable, "-m", "benchmarks.ingress_bridge", broker.bootstrap_servers, "bench-bridge"]
        with (
            ingress.Generator() as generator,
            ingress.running([ingress.cli(), "--config", str(config), "ingress"]) as ours,
            ingress.running(bridge) as peer,
        ):
            pairs = []
            for round_number in range(rounds + 1):
                both = [generator.sent(server, "announcements", _CONNECTIONS, requests)[1] for server in (ours, peer)]
                if round_number:  # the first round warms up
                    pairs.append((1 / both[0], 1 / both[1]))
    return {ROW: pairs}

"""The peer: mq-bridge from HTTP to one Kafka topic with acks=all. It verifies nothing, and sets no key."""

from __future__ import annotations

import json
import signal
import socket
import sys

import mq_bridge


def main() -> None:
    """Serve until SIGTERM."""
    bootstrap_servers, topic = sys.argv[1:]
    with socket.socket() as probe:  # it does not report the port that it listens on
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    source = {"url": f"127.0.0.1:{port}", "method": "POST", "concurrency_limit": 1000, "internal_buffer_size": 1000}
    target = {"url": bootstrap_servers, "topic": topic, "producer_options": [["acks", "all"]]}
    route = mq_bridge.Route.from_config({"input": {"http": source}, "output": {"kafka": target}})
    route.start()
    print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    signal.sigwait({signal.SIGTERM})
    route.stop()


if __name__ == "__main__":
    main()

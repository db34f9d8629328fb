"""The embedded broker as a process of its own: ``python -m pipeline.kafka.embedded_process``.

It writes one JSON line to stdout when it is ready, and runs until SIGTERM or SIGINT. With ``--until-eof`` it also ends
with its standard input, so that it never outlives its parent.
"""

from __future__ import annotations

import json
import signal
import sys
from types import FrameType

from pipeline.kafka.embedded import EmbeddedBroker


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> None:
    """Run until a signal, or the end of standard input."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    with EmbeddedBroker() as broker:
        ready = {"ready": "embedded-broker", "bootstrap_servers": broker.bootstrap_servers}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        if "--until-eof" in sys.argv[1:]:
            sys.stdin.buffer.read()
        else:
            signal.pause()


if __name__ == "__main__":
    main()

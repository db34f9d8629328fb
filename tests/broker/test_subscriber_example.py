"""``examples/subscriber.py`` with an event as the ingress publishes it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from threading import Timer
from typing import Final

from support.brokers import Broker
from support.paths import ROOT

from pipeline.contracts import OutgoingRecord
from pipeline.contracts.weavr import BY_TYPE
from pipeline.kafka import KafkaPublisher, KafkaSettings
from pipeline.sandbox.weavr.bodies import body_of
from pipeline.subscriber.testing import event_of

KIND: Final = BY_TYPE["weavr.managed_cards.authorisations"]


async def test_the_example_handles_an_event_and_stops_in_order(embedded_broker: Broker) -> None:
    body = body_of(KIND.path, Random(3), entity="112233")  # noqa: S311 - the same each time
    event = event_of(KIND.type, json.dumps(body).encode())
    kafka = KafkaSettings(bootstrap_servers=embedded_broker.bootstrap_servers)
    async with KafkaPublisher(kafka) as publisher:
        await publisher.publish(OutgoingRecord(event.topic, event.key, event.raw, event.headers))
    with _example(kafka) as process:
        line = await asyncio.to_thread(_line_of, process, "card/112233")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
    assert line.split()[:2] in (["card/112233", "approved"], ["card/112233", "declined:"])


@contextmanager
def _example(kafka: KafkaSettings) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(ROOT / "examples" / "subscriber.py"), "--bootstrap", kafka.bootstrap_servers]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        timer = Timer(60, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def _line_of(process: subprocess.Popen[str], card: str) -> str:
    """Return what the handler said of a card; other tests may have sent events too."""
    assert process.stdout is not None
    return next((line for line in process.stdout if line.startswith(f"{card} ")), "")

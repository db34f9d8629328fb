"""A subscriber that a team wrote in haste: it puts what it was given into whatever it raises.

``python -m support.loud_subscriber GROUP TOPIC...`` with ``KAFKA`` in the environment: the settings, as JSON. At
SIGTERM it prints its metrics.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from prometheus_client import generate_latest

from pipeline.kafka import KafkaSettings
from pipeline.subscriber import Event, Poison, Retry, Subscriber, SubscriberSettings

HANDLED: Final = "weavr.login"
_SETTINGS: Final = SubscriberSettings(
    max_dead_letters=100_000,
    retry={"first_seconds": 0.05, "max_seconds": 0.1, "max_tries": 2},
    session_timeout_seconds=6.0,
    commit_interval_seconds=0.2,
    fetch_wait_seconds=0.2,
)


class ClumsyError(Exception):
    """Says everything that it knows."""


async def _handle(event: Event[Any]) -> None:
    if event.type == HANDLED:
        return
    if event.type.startswith("weavr.transfers"):
        raise Poison("transfers are not for us")
    if event.type.startswith("weavr.send"):
        raise Retry("not now", retry_after=0.05)
    try:
        int(event.raw)  # its error repeats what it was given
    except ValueError as error:
        raise ClumsyError(f"{event.raw!r} {event.data!r} {dict(event.headers)}") from error


async def run(group: str, topics: Sequence[str], kafka: KafkaSettings) -> None:
    """Handle events until SIGTERM, as badly as can be."""
    subscriber = Subscriber(kafka=kafka, group=group, topics=topics, settings=_SETTINGS)
    subscriber.on_any(_handle)
    await subscriber.run()
    sys.stdout.write(generate_latest(subscriber.registry).decode())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("pipeline").setLevel(logging.DEBUG)
    _, _group, *_topics = sys.argv
    asyncio.run(run(_group, _topics, KafkaSettings.model_validate_json(os.environ["KAFKA"])))

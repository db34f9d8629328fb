"""The demo's subscribers, one per category, as a team would write them, and a reader of the quarantine."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from pipeline.kafka import KafkaSettings, read_topic
from pipeline.sandbox.weavr import expected_id
from pipeline.subscriber import Event, Subscriber, SubscriberSettings

QUARANTINES: Final = ("card-events.quarantine", "card-events.stepup.quarantine")
_SETTINGS: Final = SubscriberSettings(
    signals=False, stop_grace_seconds=5.0, fetch_wait_seconds=0.2, commit_interval_seconds=1.0
)
"""Eighteen subscribers share one process, so each waits a little longer for records than the default."""
_REPEATS: Final = "subscriber_repeats_total"


@dataclass(slots=True)
class Seen:
    """The events that one category's subscriber has received.

    Attributes:
        times: How often each event was handled, by ``ce_id``.
        positions: Partition and offset of the record, by ``ce_id``.
        odd: Events that have no model, or whose id does not follow from their path, reference and body.
    """

    times: Counter[str] = field(default_factory=Counter)
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)


class Subscribers:
    """One subscriber per category. Each remembers the events that it receives.

    Args:
        bootstrap_servers: Address of the embedded broker.
        integration: The integration whose events are sent.
        categories: The categories, such as ``managed-cards``.
    """

    def __init__(self, bootstrap_servers: str, integration: str, categories: Sequence[str]) -> None:
        self.seen = {category: Seen() for category in categories}
        self._kafka = KafkaSettings(bootstrap_servers=bootstrap_servers)
        self._integration = integration
        self._subscribers = {category: self._subscriber(category) for category in categories}

    async def run(self) -> None:
        """Read events until :meth:`stop` is called."""
        async with asyncio.TaskGroup() as group:
            for subscriber in self._subscribers.values():
                group.create_task(subscriber.run())

    def stop(self) -> None:
        """Ask all subscribers to finish."""
        for subscriber in self._subscribers.values():
            subscriber.stop()

    def delivered(self) -> int:
        """Return how many events were handled so far, by all subscribers together."""
        return sum(seen.times.total() for seen in self.seen.values())

    def repeats(self, category: str) -> int:
        """Return how many records of a category were skipped as repeats, from the subscriber's own metric."""
        metrics = self._subscribers[category].registry.collect()
        samples = (sample for metric in metrics for sample in metric.samples if sample.name.endswith(_REPEATS))
        return round(sum(sample.value for sample in samples))

    async def quarantined(self) -> list[tuple[str, str]]:
        """Return ``ce_id`` and path of every record in quarantine."""
        found = []
        for topic in QUARANTINES:
            async for record in read_topic(self._kafka, topic):
                named = {name: value.decode() for name, value in record.headers}
                found.append((named["ce_id"], named.get("pipeline_path", "")))
        return found

    def _subscriber(self, category: str) -> Subscriber:
        subscriber = Subscriber(kafka=self._kafka, group=f"demo-{category}", topics=[category], settings=_SETTINGS)
        subscriber.on_any(noting(self.seen[category], self._integration))
        return subscriber


def noting(seen: Seen, integration: str) -> Callable[[Event[Any]], Awaitable[None]]:
    """Return a handler that adds each event to ``seen``."""

    async def note(event: Event[Any]) -> None:
        seen.times[event.id] += 1
        seen.positions.setdefault(event.id, (event.partition, event.offset))
        if not isinstance(event.data, BaseModel) or _id_of(event, integration) != event.id:
            seen.odd.append(event.id)

    return note


def _id_of(event: Event[Any], integration: str) -> str:
    """Return the id that follows from the path, the headers and the body of the record."""
    named = {name: value.decode() for name, value in event.headers}
    reference = named.get("call-ref") or named.get("request-ref", "")
    path, published = named.get("pipeline_path", ""), named.get("published-timestamp", "")
    return expected_id(integration, path, reference, event.raw, published)

"""The second part: send Weavr's events through the ingress and the topics to one subscriber per category."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.sandbox.demo.books import Row, Topics, check, rows, total
from pipeline.sandbox.demo.plan import EVENTS, WEAVR
from pipeline.sandbox.demo.subscribing import Subscribers
from pipeline.sandbox.weavr import Entry, Pace, SigningKeys, Totals, send_events, weavr_kinds

_PACE: Final = Pace(connections=16, compress_retries=5000)
_DELIVERY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1

WatchEvents = Callable[[float], None]
"""Takes the share of the events that is done, from 0 to 1, and shows it."""


@dataclass(frozen=True, slots=True)
class EventsOutcome:
    """The result of the second part.

    Attributes:
        rows: One row per category, and one for unknown paths.
        total: The sum of the rows.
        sending: The sums of the sender's own ledger.
        seconds: Time from the first request to the last handled event.
        findings: Differences from the expected result.
    """

    rows: tuple[Row, ...]
    total: Row
    sending: dict[str, object]
    seconds: float
    findings: tuple[str, ...]


async def run_events(
    url: str, bootstrap_servers: str, key_files: tuple[Path, Path], watch: WatchEvents
) -> EventsOutcome:
    """Send the plan's events to an ingress while subscribers read them, and return the result.

    Args:
        url: URL of the ingress, without a path.
        bootstrap_servers: Address of the broker that the ingress publishes to.
        key_files: The key that signs the first half of the events, and the key that signs the second half.
        watch: Called with the progress.
    """
    categories = sorted({kind.category for kind in weavr_kinds().values()})
    subscribers = Subscribers(bootstrap_servers, WEAVR, categories)
    entries: list[Entry] = []
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(subscribers.run())
        try:
            totals = await _send(url, key_files, entries, lambda sent: watch(_share(sent, subscribers)))
            await _await_delivery(entries, subscribers, lambda: watch(_share(totals, subscribers)))
        finally:
            subscribers.stop()
    seconds = time.monotonic() - began
    topics = Topics(
        subscribers.seen,
        {category: subscribers.repeats(category) for category in categories},
        await subscribers.quarantined(),
    )
    watch(1.0)
    found = rows(entries, topics)
    return EventsOutcome(tuple(found), total(found), totals.view(), seconds, tuple(check(entries, topics)))


async def _send(
    url: str, key_files: tuple[Path, Path], entries: list[Entry], watch: Callable[[Totals], None]
) -> Totals:
    first, then = [await asyncio.to_thread(file.read_bytes) for file in key_files]
    events = EVENTS.events(
        WEAVR, SigningKeys(first, then, rotate_at=EVENTS.count // 2), now_ms=time.time_ns() // 1_000_000
    )
    return await send_events(f"{url}/webhooks/weavr/{WEAVR}", events, _PACE, entries.append, watch=watch)


async def _await_delivery(entries: list[Entry], subscribers: Subscribers, watch: Callable[[], None]) -> None:
    """Wait until every event is handled, but not forever: a missing event becomes a finding."""
    wanted = sum(entry.expected == "accepted" and entry.accepted for entry in entries)
    repeats = sum(len(entry.deliveries) - 1 for entry in entries)
    end = time.monotonic() + _DELIVERY_SECONDS
    while time.monotonic() < end:
        watch()
        found = sum(subscribers.repeats(category) for category in subscribers.seen)
        if subscribers.delivered() >= wanted and found >= repeats:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _share(totals: Totals, subscribers: Subscribers) -> float:
    return min(0.99, (totals.events + subscribers.delivered()) / (2 * EVENTS.count))

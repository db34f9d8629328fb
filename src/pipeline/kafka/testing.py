"""A publisher in memory, for tests of code that publishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pipeline.contracts import OutgoingRecord, RecordPosition, Topic


async def _nothing(_: OutgoingRecord) -> None:
    """Accept the publication."""


class MemoryPublisher:
    """Remembers what was published, in order.

    Attributes:
        published: Every record that was confirmed. Tests may read it.
        before: Awaited before each record is stored. Raise or wait in it, to simulate a broker.
    """

    def __init__(self, before: Callable[[OutgoingRecord], Awaitable[None]] = _nothing) -> None:
        """Begin empty."""
        self.published: list[OutgoingRecord] = []
        self.before = before

    async def publish(self, record: OutgoingRecord) -> RecordPosition:
        """See Publisher."""
        await self.before(record)
        self.published.append(record)
        return RecordPosition(record.topic, 0, len(self.published) - 1)

    def on(self, topic: Topic) -> list[OutgoingRecord]:
        """Return the records of one topic."""
        return [record for record in self.published if record.topic is topic]

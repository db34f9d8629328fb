"""Decides which events of a partition reach a handler: first occurrences of types that have a handler."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from pipeline.contracts import REPLAYED_FROM_HEADER, Record, TopicName, is_for
from pipeline.observability import SubscriberMetrics, get_logger
from pipeline.subscriber.window import RepeatWindow

log = get_logger(__name__)

ReadBack = Callable[[Record], AsyncIterator[Record]]
"""Yields, in the order of offsets, the earlier records that a record's window needs."""

_AT_ONCE: Final = 2
"""How many windows may be read at the same time. Each needs a connection and time of the event loop."""


class Wanted(Protocol):
    """Tells which event types have a handler."""

    def handles(self, event_type: str) -> bool:
        """Return whether events of a type have a handler."""
        ...


class RepeatGates:
    """Makes the gates of a subscriber's partitions."""

    def __init__(
        self,
        wanted: Wanted,
        read_back: ReadBack,
        *,
        seconds: float,
        records: int,
        group: str,
        metrics: SubscriberMetrics,
    ) -> None:
        self.wanted = wanted
        self.read_back = read_back
        self.group = group
        self.metrics = metrics
        self.reading = asyncio.Semaphore(_AT_ONCE)
        self._seconds = seconds
        self._records = records

    def window(self) -> RepeatWindow:
        """Return an empty window."""
        return RepeatWindow(self._seconds, self._records)

    def __call__(self, topic: TopicName, partition: int) -> RepeatGate:
        """Return the gate of a newly assigned partition."""
        return RepeatGate(self, topic, partition)


class RepeatGate:
    """Implements :class:`pipeline.kafka.Gate`: skips repeats, and types without a handler.

    The partition itself is the only state: before the first record, the gate reads its window from the partition. So
    the window does not depend on which member had the partition before.

    A replayed dead letter has the id of its event, which is already in the window. So the window identifies it by the
    position of the dead letter instead. The first copy is handled, and a second copy is a repeat.
    """

    def __init__(self, gates: RepeatGates, topic: TopicName, partition: int) -> None:
        labels = {"stage": gates.group, "topic": str(topic)}
        metrics = gates.metrics
        self._gates = gates
        self._repeats = metrics.subscriber_repeats.labels(**labels)
        self._passed_over = metrics.subscriber_passed_over.labels(**labels)
        self._cut = metrics.subscriber_window_cuts.labels(**labels)
        self._window = gates.window()
        self._cuts = 0
        metrics.subscriber_window_ids.labels(**labels, partition=str(partition)).set_function(_size_of(self))

    @property
    def remembered(self) -> int:
        """How many ids the window holds."""
        return len(self._window)

    async def open(self, first: Record) -> None:
        """See Gate."""
        async with self._gates.reading:
            began = time.perf_counter()
            window = self._gates.window()
            read = 0
            async for record in self._gates.read_back(first):
                ident, _ = _named(record)
                if ident and is_for(record, self._gates.group):
                    window.repeats(ident, record.offset, record.timestamp_ms)
                read += 1
        self._window, self._cuts = window, window.cuts
        seconds = time.perf_counter() - began
        self._gates.metrics.subscriber_window_seconds.labels(stage=self._gates.group).observe(seconds)
        log.info(
            "window_read",
            topic=first.topic,
            partition=first.partition,
            before=first.offset,
            records=read,
            seconds=round(seconds, 3),
        )

    def admit(self, record: Record) -> bool:
        """See Gate."""
        ident, event_type = _named(record)
        if not ident:
            return True  # not an event: HandlerCall dead-letters it
        repeats = self._window.repeats(ident, record.offset, record.timestamp_ms)
        if self._window.cuts > self._cuts:
            self._cut.inc(self._window.cuts - self._cuts)
            self._cuts = self._window.cuts
        if repeats:
            self._repeats.inc()
            return False
        if event_type and not self._gates.wanted.handles(event_type.decode("utf-8", "replace")):
            self._passed_over.inc()
            return False
        return True


def _size_of(gate: RepeatGate) -> Callable[[], float]:
    """Return a function that counts the ids when the metric is read; 0 after the member lost the partition."""
    found = weakref.ref(gate)

    def size() -> float:
        gate = found()
        return 0 if gate is None else gate.remembered

    return size


def _named(record: Record) -> tuple[bytes, bytes]:
    """Return the record's id in the window, and its first ``ce_type``; empty if it has none."""
    named = record.named
    ident, kind = named.get("ce_id", b""), named.get("ce_type", b"")
    if REPLAYED_FROM_HEADER in named:  # one header for each replay; the last one names the dead letter that was copied
        replays = [value for name, value in record.headers if name == REPLAYED_FROM_HEADER]
        ident = replays[-1] or ident
    return ident, kind

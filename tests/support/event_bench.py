"""An event consumer on a fake group, with a gate that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from support.bus_bench import KAFKA, NOON, QUICK, until
from support.fake_group import FakeGroup

from pipeline.bus import DeadLetters, EventConsumer, Record
from pipeline.bus.testing import MemoryPublisher
from pipeline.contracts import Topic
from pipeline.observability import Metrics

TOPIC = Topic.EVENTS_FEES


class ListedGate:
    """Admits all but the listed values."""

    def __init__(self, bench: EventBench) -> None:
        self._bench = bench
        self.opened: list[int] = []
        self.seen: list[int] = []

    async def open(self, first: Record) -> None:
        self.opened.append(first.offset)
        await self._bench.on_open(first)

    def admit(self, record: Record) -> bool:
        self.seen.append(record.offset)
        return record.value not in self._bench.refused


class EventBench:
    """All that a test may want to look at or to turn.

    Attributes:
        gates: One per time that a partition was given to the member.
        refused: Values that no gate admits.
    """

    def __init__(self) -> None:
        self.group = FakeGroup(TOPIC)
        self.gates: list[ListedGate] = []
        self.refused: set[bytes] = set()
        self.publisher = MemoryPublisher()
        self.metrics = Metrics()
        self.settings = QUICK
        self.begun: list[Record] = []
        self.done: list[bytes] = []
        self.on_handle: Callable[[Record], Awaitable[None]] | None = None
        self.on_open: Callable[[Record], Awaitable[None]] = _at_once
        self.task: asyncio.Task[None] | None = None
        self._error_taken = False

    def set(self, **changes: object) -> None:
        """Change settings, before the consumer starts."""
        self.settings = self.settings.model_copy(update=changes)

    def count(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(f"pipeline_consumer_{name}", {"stage": "fraud", **labels})
        return found or 0.0

    async def handle(self, record: Record) -> None:
        self.begun.append(record)
        if self.on_handle:
            await self.on_handle(record)
        self.done.append(record.value)

    def gate(self, _topic: str, _partition: int) -> ListedGate:
        made = ListedGate(self)
        self.gates.append(made)
        return made

    @asynccontextmanager
    async def running(self, *partitions: int) -> AsyncIterator[EventConsumer]:
        """Run it with these partitions; stop it at the end, and let out an error that no test asked for."""

        async def connect() -> FakeGroup:
            return self.group

        consumer = EventConsumer(
            self.handle,
            gate=self.gate,
            dead_letters=DeadLetters(
                self.publisher,
                group="fraud",
                metrics=self.metrics,
                clock=lambda: NOON,
                address=lambda topic: f"fraud.of.{topic}.dead-letter",
            ),
            group="fraud",
            topics=[TOPIC],
            kafka=KAFKA,
            settings=self.settings,
            metrics=self.metrics,
            connect=connect,
        )
        task = self.task = asyncio.create_task(consumer.run())
        try:
            await self.group.assign(*partitions)
            yield consumer
            consumer.stop()
            if not self._error_taken:
                await task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def raised(self) -> BaseException | None:
        """Wait for the end of the consumer and return its error."""
        assert self.task
        await asyncio.wait([self.task], timeout=2)
        assert self.task.done()
        self._error_taken = True
        return self.task.exception()


async def _at_once(_first: Record) -> None:
    """Open the gate."""


__all__ = ["EventBench", "until"]

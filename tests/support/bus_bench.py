"""Members that react at once, on a fake group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from support.fake_group import FakeGroup

from pipeline.bus import Consumer, ConsumerSettings, KafkaSettings, OnDeadLetter, Record
from pipeline.bus.protocols import Lease
from pipeline.bus.testing import MemoryPublisher
from pipeline.contracts import Topic
from pipeline.observability import Metrics

QUICK = ConsumerSettings(
    backoff_min=0.001,
    backoff_max=0.004,
    commit_interval=0.005,
    commit_timeout=0.1,
    poll_interval=0.005,
    stop_grace=0.5,
    batch_linger=0.01,
)
KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1")
NOON = datetime(2026, 1, 22, 12, tzinfo=UTC)

Act = Callable[[Record, Lease], Awaitable[None]]


class Acting:
    """A handler made of two functions; remembers what was called and what returned."""

    def __init__(self) -> None:
        self.on_arrive: Callable[[Record], Awaitable[None]] | None = None
        self.on_handle: Act | None = None
        self.arrived: list[Record] = []
        self.begun: list[Record] = []
        self.done: list[bytes] = []

    async def arrive(self, record: Record) -> None:
        self.arrived.append(record)
        if self.on_arrive:
            await self.on_arrive(record)

    async def handle(self, record: Record, lease: Lease) -> None:
        self.begun.append(record)
        if self.on_handle:
            await self.on_handle(record, lease)
        self.done.append(record.value)


class Bench:
    """A consumer on a fake group, with all that a test may want to look at or to turn."""

    def __init__(self) -> None:
        self.group = FakeGroup()
        self.handler = Acting()
        self.publisher = MemoryPublisher()
        self.metrics = Metrics()
        self.settings = QUICK
        self.on_dead_letter: OnDeadLetter | None = None
        self.task: asyncio.Task[None] | None = None
        self.consumer: Consumer | None = None
        self._error_taken = False

    def set(self, **changes: object) -> None:
        """Change settings, before the consumer starts."""
        self.settings = self.settings.model_copy(update=changes)

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a metric of this stage."""
        found = self.metrics.registry.get_sample_value(f"pipeline_consumer_{name}", {"stage": "process", **labels})
        return found or 0.0

    @asynccontextmanager
    async def running(self, *partitions: int) -> AsyncIterator[Consumer]:
        """Run the consumer with these partitions; stop it at the end, and let out an error that no test asked for."""

        async def connect() -> FakeGroup:
            return self.group

        consumer = self.consumer = Consumer(
            self.handler,
            group="process",
            topics=[Topic.BATCH_REQUESTED],
            kafka=KAFKA,
            settings=self.settings,
            publisher=self.publisher,
            metrics=self.metrics,
            on_dead_letter=self.on_dead_letter,
            clock=lambda: NOON,
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


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something has become true; fail after two seconds."""
    async with asyncio.timeout(2):
        while not condition():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.001)

"""Members that react at once, on a fake group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Generic, TypeVar

import pytest
from support.fake_group import FakeGroup

from pipeline.contracts import Record, Topic
from pipeline.kafka import (
    ConsumerSettings,
    DeadLetters,
    GateFactory,
    GroupClientFactory,
    KafkaSettings,
    KeyedConsumer,
    OnDeadLetter,
)
from pipeline.kafka.member import GroupMember
from pipeline.kafka.protocols import Lease
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics

QUICK = ConsumerSettings(
    retry={"first_seconds": 0.001, "max_seconds": 0.004},
    commit_interval_seconds=0.005,
    commit_timeout_seconds=0.1,
    poll_interval_seconds=0.005,
    stop_grace_seconds=0.5,
    batch_linger_seconds=0.01,
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


M = TypeVar("M", bound=GroupMember)


class MemberBench(Generic[M]):
    """A member on a fake group, with all that a test may want to look at or to turn.

    Attributes:
        stage: Its group.
    """

    stage: str

    def __init__(self, group: FakeGroup) -> None:
        self.group = group
        self.publisher = MemoryPublisher()
        self.metrics = Metrics()
        self.settings = QUICK
        self.task: asyncio.Task[None] | None = None
        self._error_taken = False

    def make(self, connect: GroupClientFactory) -> M:
        """Return the member."""
        raise NotImplementedError

    def set(self, **changes: object) -> None:
        """Change settings, before the member starts."""
        self.settings = self.settings.model_copy(update=changes)

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a metric of this stage."""
        found = self.metrics.registry.get_sample_value(f"pipeline_consumer_{name}", {"stage": self.stage, **labels})
        return found or 0.0

    @asynccontextmanager
    async def running(self, *partitions: int) -> AsyncIterator[M]:
        """Run the member with these partitions; stop it at the end, and let out an error that no test asked for."""

        async def connect() -> FakeGroup:
            return self.group

        member = self.make(connect)
        task = self.task = asyncio.create_task(member.run())
        try:
            await self.group.assign(*partitions)
            yield member
            member.stop()
            if not self._error_taken:
                await task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def raised(self) -> BaseException | None:
        """Wait for the end of the member and return its error."""
        assert self.task
        await asyncio.wait([self.task], timeout=2)
        assert self.task.done()
        self._error_taken = True
        return self.task.exception()


class Bench(MemberBench[KeyedConsumer]):
    """A consumer on a fake group."""

    stage = "process"

    def __init__(self) -> None:
        super().__init__(FakeGroup())
        self.handler = Acting()
        self.on_dead_letter: OnDeadLetter | None = None
        self.gate: GateFactory | None = None
        self.consumer: KeyedConsumer | None = None

    def make(self, connect: GroupClientFactory) -> KeyedConsumer:
        self.consumer = KeyedConsumer(
            self.handler.handle,
            on_arrival=self.handler.arrive,
            gate=self.gate,
            dead_letters=DeadLetters(
                self.publisher,
                group=self.stage,
                metrics=self.metrics,
                on_dead_letter=self.on_dead_letter,
                clock=lambda: NOON,
            ),
            group=self.stage,
            topics=[Topic.BATCH_REQUESTED],
            kafka=KAFKA,
            settings=self.settings,
            metrics=self.metrics,
            connect=connect,
        )
        return self.consumer


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something has become true; fail after two seconds."""
    async with asyncio.timeout(2):
        while not condition():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.001)

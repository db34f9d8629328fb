"""Consuming record by record: concurrently, in order per key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

from pipeline.contracts import Record, TopicName
from pipeline.errors import LeaseLost, PermanentError
from pipeline.kafka._attempts import Attempts
from pipeline.kafka._group import GroupFactory, Partition
from pipeline.kafka._held import PartitionWork
from pipeline.kafka._lease import Tenure
from pipeline.kafka._member import GroupMember
from pipeline.kafka._offsets import OffsetTracker
from pipeline.kafka.dead_letters import DeadLetters, OnDeadLetter, dead_letter_topic
from pipeline.kafka.protocols import Handler, Publisher
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings
from pipeline.observability import Metrics

Slot = Callable[[], AbstractAsyncContextManager[None]]


class Consumer(GroupMember):
    """A group member that hands records to a :class:`~pipeline.kafka.protocols.Handler`, one at a time per key.

    Memory: at most ``max_span`` records and ``max_span_bytes`` of each partition, plus one fetch. A record that waits
    for its repetition holds up its key only.

    Args:
        handler: Does the work.
        group: Logical name of the group, e.g. ``process``; also the stage in metrics.
        topics: What to read; each must have a dead-letter topic.
        publisher: For dead letters.
        on_dead_letter: Told about each dead letter, e.g. to write it into the audit log.
        clock: Time for ``dlq_at``.
        connect: Makes a client; tests give their own.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        group: str,
        topics: Sequence[TopicName],
        kafka: KafkaSettings,
        settings: ConsumerSettings,
        publisher: Publisher,
        metrics: Metrics | None = None,
        on_dead_letter: OnDeadLetter | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        connect: GroupFactory | None = None,
    ) -> None:
        for topic in topics:
            dead_letter_topic(topic)
        super().__init__(group=group, topics=topics, kafka=kafka, settings=settings, metrics=metrics, connect=connect)
        self._handler = handler
        self._slots = asyncio.Semaphore(settings.slots)
        self._arrivals = asyncio.Semaphore(settings.arrivals)
        self._dead_letters = DeadLetters(
            publisher, group=group, metrics=self._metrics, on_dead_letter=on_dead_letter, clock=clock
        )

    def _open(self, partition: Partition, lease: Tenure) -> PartitionWork:
        own = asyncio.Semaphore(self._settings.concurrency)

        @asynccontextmanager
        async def slot() -> AsyncIterator[None]:
            async with own, self._slots:
                yield

        @asynccontextmanager
        async def arrival() -> AsyncIterator[None]:
            async with self._arrivals:
                yield

        attempts = Attempts(
            group=self._group,
            settings=self._settings,
            metrics=self._metrics,
            lease=lease,
            changed=lambda: self._progressed(partition),
        )
        return _KeyedWork(self, partition=partition, lease=lease, attempts=attempts, slot=slot, arrival=arrival)


class _KeyedWork:
    """One task per record: arrive, wait for the turn of its key, handle, finish."""

    def __init__(
        self,
        consumer: Consumer,
        *,
        partition: Partition,
        lease: Tenure,
        attempts: Attempts,
        slot: Slot,
        arrival: Slot,
    ) -> None:
        self.offsets = OffsetTracker()
        self._consumer = consumer
        self._partition = partition
        self._lease = lease
        self._attempts = attempts
        self._slot = slot
        self._arrival = arrival
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_of_key: dict[str, asyncio.Event] = {}

    @property
    def busy(self) -> int:
        return len(self._attempts.running)

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            if self.offsets.take(record.offset, len(record.value)):
                before = self._last_of_key.get(record.key)
                finished = self._last_of_key[record.key] = asyncio.Event()
                task = self._consumer._start(self._work(record, before, finished))  # noqa: SLF001 - one module
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def wind_down(self) -> None:
        self._attempts.close()
        for task in self._tasks - self._attempts.running:
            task.cancel()

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _work(self, record: Record, before: asyncio.Event | None, finished: asyncio.Event) -> None:
        try:
            await self._done_or_buried(record, before)
        except LeaseLost:
            return  # whoever has the partition now begins with it anew
        self.offsets.finish(record.offset)
        finished.set()
        if self._last_of_key.get(record.key) is finished:
            del self._last_of_key[record.key]
        self._consumer._progressed(self._partition)  # noqa: SLF001 - one module

    async def _done_or_buried(self, record: Record, before: asyncio.Event | None) -> None:
        handler = self._consumer._handler  # noqa: SLF001 - one module
        tried = record

        async def arrive(attempt: int) -> None:
            nonlocal tried
            tried = replace(record, attempt=attempt)
            await handler.arrive(tried)

        async def handle(attempt: int) -> None:
            nonlocal tried
            tried = replace(record, attempt=attempt)
            await handler.handle(tried, self._lease)

        try:
            await self._attempts.until_done(arrive, self._arrival, record)
            await _turn(before)
            await self._attempts.until_done(handle, self._slot, record)
        except PermanentError as error:
            await _turn(before)
            await self._bury(tried, error)

    async def _bury(self, record: Record, error: PermanentError) -> None:
        async def bury(_attempt: int) -> None:
            await self._consumer._dead_letters.bury(record, error)  # noqa: SLF001 - one module

        await self._attempts.until_done(bury, self._slot, record)


async def _turn(before: asyncio.Event | None) -> None:
    if before:
        await before.wait()

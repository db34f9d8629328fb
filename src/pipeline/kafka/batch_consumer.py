"""Consuming runs of consecutive records, partition by partition."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
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
from pipeline.kafka.protocols import BatchHandler, Publisher
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings
from pipeline.observability import Metrics


class BatchConsumer(GroupMember):
    """A group member that hands batches of one partition to a :class:`~pipeline.kafka.protocols.BatchHandler`, in turn.

    A PermanentError of a batch is tracked down: each of its records is handled alone, and those that still fail go to
    the dead-letter topic. Arguments as those of :class:`~pipeline.kafka.consumer.Consumer`.
    """

    def __init__(
        self,
        handler: BatchHandler,
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
        self._dead_letters = DeadLetters(
            publisher, group=group, metrics=self._metrics, on_dead_letter=on_dead_letter, clock=clock
        )

    def _open(self, partition: Partition, lease: Tenure) -> PartitionWork:
        attempts = Attempts(
            group=self._group,
            settings=self._settings,
            metrics=self._metrics,
            lease=lease,
            changed=lambda: self._progressed(partition),
        )
        return _BatchWork(self, partition=partition, lease=lease, attempts=attempts)


class _BatchWork:
    """One task per partition: prepare, then collect, handle, finish, again and again."""

    def __init__(self, consumer: BatchConsumer, *, partition: Partition, lease: Tenure, attempts: Attempts) -> None:
        self.offsets = OffsetTracker()
        self._consumer = consumer
        self._settings = consumer._settings  # noqa: SLF001 - one module
        self._partition = partition
        self._lease = lease
        self._attempts = attempts
        self._waiting: deque[Record] = deque()
        self._more = asyncio.Event()
        self._task = consumer._start(self._work())  # noqa: SLF001 - one module

    @property
    def busy(self) -> int:
        return len(self._attempts.running)

    def take(self, records: Sequence[Record]) -> None:
        self._waiting.extend(record for record in records if self.offsets.take(record.offset, len(record.value)))
        self._more.set()

    def wind_down(self) -> None:
        self._attempts.close()
        if not self._attempts.running:
            self._task.cancel()

    def cancel(self) -> None:
        self._task.cancel()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        async with self._consumer._slots:  # noqa: SLF001 - one module
            yield

    async def _work(self) -> None:
        async def prepare(_attempt: int) -> None:
            await self._consumer._handler.assigned(*self._partition)  # noqa: SLF001 - one module

        try:
            await self._attempts.until_done(prepare, self._slot)
            while True:
                batch = await self._batch()
                await self._handled(batch)
                for record in batch:
                    self.offsets.finish(record.offset)
                self._consumer._progressed(self._partition)  # noqa: SLF001 - one module
        except LeaseLost:
            return  # whoever has the partition now begins with it anew

    async def _batch(self) -> list[Record]:
        limit = self._settings.batch_records
        await self._until_waiting(1)
        try:
            async with asyncio.timeout(self._settings.batch_linger_seconds):
                await self._until_waiting(limit)
        except TimeoutError:
            pass  # no more came: go on with what is here
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    async def _until_waiting(self, count: int) -> None:
        while len(self._waiting) < count:
            self._more.clear()
            await self._more.wait()

    async def _handled(self, batch: Sequence[Record]) -> None:
        async def handle(attempt: int) -> None:
            tried = [replace(record, attempt=attempt) for record in batch]
            await self._consumer._handler.handle_batch(tried, self._lease)  # noqa: SLF001 - one module

        try:
            await self._attempts.until_done(handle, self._slot, batch[0])
        except PermanentError as error:
            if len(batch) == 1:
                await self._bury(batch[0], error)
                return
            for record in batch:
                await self._handled([record])

    async def _bury(self, record: Record, error: PermanentError) -> None:
        async def bury(_attempt: int) -> None:
            await self._consumer._dead_letters.bury(record, error)  # noqa: SLF001 - one module

        await self._attempts.until_done(bury, self._slot, record)

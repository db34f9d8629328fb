"""Consumes batches of consecutive records, one partition at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.contracts import Record, TopicName, is_for
from pipeline.errors import FatalError, LeaseLost, Overloaded, PermanentError, PipelineError, TransientError
from pipeline.kafka.dead_letters import DeadLetters
from pipeline.kafka.member import GroupMember
from pipeline.kafka.partition import OffsetTracker, PartitionLease, PartitionWork, report_retry
from pipeline.kafka.protocols import BatchHandler, GroupClientFactory, Partition
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings
from pipeline.observability import KafkaMetrics


class BatchConsumer(GroupMember):
    """A group member that hands batches of one partition to a :class:`~pipeline.kafka.protocols.BatchHandler`, in turn.

    After a PermanentError of a batch, each of its records is handled alone, and those that still fail go to the
    dead-letter topic. If the topic has none, a PermanentError ends the member. The arguments are those of
    :class:`~pipeline.kafka.keyed.KeyedConsumer`.
    """

    def __init__(
        self,
        handler: BatchHandler,
        *,
        dead_letters: DeadLetters,
        group: str,
        topics: Sequence[TopicName],
        kafka: KafkaSettings,
        settings: ConsumerSettings,
        metrics: KafkaMetrics | None = None,
        connect: GroupClientFactory | None = None,
    ) -> None:
        super().__init__(group=group, topics=topics, kafka=kafka, settings=settings, metrics=metrics, connect=connect)
        self._shared = _Shared(
            group=group,
            handler=handler,
            settings=settings,
            slots=asyncio.Semaphore(settings.slots),
            dead_letters=dead_letters,
            metrics=self._metrics,
            start=self._start,
        )

    def _open(self, partition: Partition, lease: PartitionLease) -> PartitionWork:
        return _BatchWork(self._shared, partition, lease, progressed=lambda: self._progressed(partition))


@dataclass(frozen=True, slots=True)
class _Shared:
    """The objects that the partitions of a member share.

    Attributes:
        start: Runs a coroutine that may fail the whole member.
    """

    group: str
    handler: BatchHandler
    settings: ConsumerSettings
    slots: asyncio.Semaphore
    dead_letters: DeadLetters
    metrics: KafkaMetrics
    start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class _BatchWork:
    """One task per partition: it prepares once, then repeats: collect, handle, finish.

    Args:
        progressed: Called whenever records were finished or a call ended.
    """

    def __init__(
        self, shared: _Shared, partition: Partition, lease: PartitionLease, progressed: Callable[[], None]
    ) -> None:
        self.offsets = OffsetTracker()
        self._shared = shared
        self._partition = partition
        self._lease = lease
        self._progressed = progressed
        self._waiting: deque[Record] = deque()
        self._more = asyncio.Event()
        self._calling = False
        self._closed = False
        self._task = shared.start(self._work())

    # what the member calls

    @property
    def busy(self) -> int:
        """See PartitionWork."""
        return int(self._calling)

    @property
    def full(self) -> bool:
        """See PartitionWork."""
        settings = self._shared.settings
        return self.offsets.span >= settings.max_span or self.offsets.held_bytes >= settings.max_span_bytes

    @property
    def has_room(self) -> bool:
        """See PartitionWork."""
        return not self.full

    def take(self, records: Sequence[Record]) -> None:
        """See PartitionWork."""
        self._waiting.extend(record for record in records if self.offsets.take(record.offset, len(record.value)))
        self._more.set()

    def note_commit(self, offset: int) -> None:
        """See PartitionWork. It does nothing, because the whole batch is repeated after a failure."""

    def wind_down(self) -> None:
        """See PartitionWork."""
        self._closed = True
        if not self._calling:
            self._task.cancel()

    def cancel(self) -> None:
        """See PartitionWork."""
        self._task.cancel()

    # the task

    async def _work(self) -> None:
        async def prepare(_attempt: int) -> None:
            await self._shared.handler.assigned(*self._partition)

        try:
            await self._until_done(prepare)
            while True:
                batch = await self._batch()
                mine = [record for record in batch if is_for(record, self._shared.group)]
                if mine:
                    await self._handled(mine)
                for record in batch:
                    self.offsets.finish(record.offset)
                self._progressed()
        except LeaseLost:
            return  # the partition's next member begins it again

    async def _batch(self) -> list[Record]:
        limit = self._shared.settings.batch_records
        await self._until_waiting(1)
        try:
            async with asyncio.timeout(self._shared.settings.batch_linger_seconds):
                await self._until_waiting(limit)
        except TimeoutError:
            pass  # no more records arrived: continue with these
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    async def _until_waiting(self, count: int) -> None:
        while len(self._waiting) < count:
            self._more.clear()
            await self._more.wait()

    async def _handled(self, batch: Sequence[Record]) -> None:
        async def handle(attempt: int) -> None:
            tried = [replace(record, attempt=attempt) for record in batch]
            await self._shared.handler.handle_batch(tried, self._lease)

        try:
            await self._until_done(handle, batch[0])
        except PermanentError as error:
            if len(batch) == 1:
                await self._dead_letter(batch[0], error)
                return
            for record in batch:
                await self._handled([record])

    async def _dead_letter(self, record: Record, error: PermanentError) -> None:
        try:
            self._shared.dead_letters.topic_for(record.topic)
        except ValueError:
            raise FatalError(
                "dead_letters_missing",
                f"{record.topic}, partition {record.partition}, offset {record.offset} cannot be handled "
                f"({error.code}), and the topic has no dead-letter topic",
            ) from error

        async def write(_attempt: int) -> None:
            await self._shared.dead_letters.write(record, error)

        await self._until_done(write, record)

    # calls

    async def _until_done(self, call: Callable[[int], Awaitable[None]], record: Record | None = None) -> None:
        """Repeat ``call(attempt)`` until it returns. Hold a slot during each call, but not during the pauses.

        Args:
            call: What to do.
            record: The first record of the call, for the log.

        Raises:
            LeaseLost: The partition is lost, or the process stops.
            PermanentError, FatalError, and any error that is not a PipelineError.
        """
        attempt = 1
        while True:
            try:
                await self._ensure()
                async with self._shared.slots:
                    await self._ensure()
                    await self._called(call, attempt)
            except TransientError as error:
                attempt += 1
                pause = self._pause(error, attempt, error.retry_after, record)
            except Overloaded as error:
                pause = self._pause(error, attempt, None, record)
            except LeaseLost as error:
                if self._lease.lost or self._closed:
                    raise
                # another worker decided first, but this member still has the partition: the next call sees the outcome
                pause = self._pause(error, attempt, None, record)
            else:
                return
            await self._ensure()  # otherwise this task would outlive the partition
            await asyncio.sleep(pause)

    async def _ensure(self) -> None:
        await self._lease.ensure()
        if self._closed:
            raise LeaseLost("stopping", "The process stops; the record will be handled after its next start.")

    async def _called(self, call: Callable[[int], Awaitable[None]], attempt: int) -> None:
        self._calling = True
        started = time.perf_counter()
        try:
            await call(attempt)
        finally:
            self._calling = False
            seconds = self._shared.metrics.consumer_handle_seconds.labels(stage=self._shared.group)
            seconds.observe(time.perf_counter() - started)
            self._progressed()

    def _pause(self, error: PipelineError, attempt: int, retry_after: float | None, record: Record | None) -> float:
        shared = self._shared
        pause = shared.settings.retry.policy.pause(max(1, attempt - 1), retry_after)
        report_retry(shared.metrics, shared.group, error, attempt=attempt, pause=pause, record=record)
        return pause

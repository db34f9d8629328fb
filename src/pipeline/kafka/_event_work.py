"""The records of one partition in the work of an :class:`~pipeline.kafka.event_consumer.EventConsumer`."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.contracts import Record
from pipeline.errors import LeaseLost, Overloaded, PermanentError, PipelineError, TransientError
from pipeline.kafka._attempts import note_put_off
from pipeline.kafka._lease import Tenure
from pipeline.kafka._offsets import OffsetTracker
from pipeline.kafka.dead_letters import DeadLetters
from pipeline.kafka.protocols import Gate, Handle
from pipeline.kafka.settings import ConsumerSettings
from pipeline.observability import Metrics

_CALLS_BETWEEN_YIELDS: Final = 32
"""A handler that never waits must not keep the loop from sending heartbeats."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the works of all partitions of a member share.

    Attributes:
        start: Runs a coroutine that may fail the whole member.
        want_commit: Asks for a commit before its time.
    """

    group: str
    handle: Handle
    settings: ConsumerSettings
    slots: asyncio.Semaphore
    dead_letters: DeadLetters
    metrics: Metrics
    start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    want_commit: Callable[[], None]


class EventWork:
    """A gate, a queue per key, and up to ``concurrency`` workers.

    No record is begun that lies ``max_span`` offsets or more behind the committed offset: after a crash no other can
    be handled again. Where that bound is met, a commit is asked for.

    Args:
        progressed: Called whenever records were finished or a call ended.
    """

    def __init__(self, around: Surroundings, *, gate: Gate, lease: Tenure, progressed: Callable[[], None]) -> None:
        self.offsets = OffsetTracker()
        self._around = around
        self._gate = gate
        self._lease = lease
        self._progressed = progressed
        self._seconds = around.metrics.consumer_handle_seconds.labels(stage=around.group)
        self._waiting: deque[Record] = deque()
        self._ready: deque[Record] = deque()
        self._followers: dict[str, deque[Record] | None] = {}
        self._poison: dict[int, PermanentError] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._calling: set[asyncio.Task[None] | None] = set()
        self._workers = 0
        self._committed: int | None = None
        self._begun = -1
        self._gate_open = False
        self._closed = False

    # what the member calls

    @property
    def busy(self) -> int:
        """See PartitionWork."""
        return len(self._calling)

    @property
    def full(self) -> bool:
        """Whether enough is fetched."""
        settings = self._around.settings
        return len(self._waiting) >= 2 * settings.max_span or self.offsets.held_bytes >= settings.max_span_bytes

    @property
    def roomy(self) -> bool:
        """Whether to fetch again. A pause costs what the client has fetched ahead: half must be gone first."""
        settings = self._around.settings
        return len(self._waiting) <= settings.max_span // 2 and self.offsets.held_bytes <= settings.max_span_bytes // 2

    def take(self, records: Sequence[Record]) -> None:
        """See PartitionWork."""
        self._waiting.extend(record for record in records if self.offsets.take(record.offset, len(record.value)))
        if self._committed is None and self._waiting:
            first = self._waiting[0]
            self._committed = first.offset
            self._run(self._open(first))
        self._advance()

    def note_commit(self, offset: int) -> None:
        """The committed offset has moved: more may be begun."""
        self._committed = offset
        self._advance()

    def wind_down(self) -> None:
        """See PartitionWork."""
        self._closed = True
        for task in self._tasks - self._calling:
            task.cancel()

    def cancel(self) -> None:
        """See PartitionWork."""
        # after wind_down what is finished will still be committed
        left = len(self._calling) if self._closed else self._begun + 1 - (self._committed or 0)
        if left > 0:
            self._around.metrics.consumer_left_uncommitted.labels(stage=self._around.group).inc(left)
        self._closed = True
        for task in self._tasks:
            task.cancel()

    # from the fetch to the queues

    async def _open(self, first: Record) -> None:
        attempt = 1
        while True:
            try:
                await self._lease.ensure()
                await self._gate.open(first)
            except LeaseLost:
                return
            except TransientError as error:
                attempt += 1
                pause = self._put_off(error, attempt, error.retry_after, first)
            else:
                break
            await asyncio.sleep(pause)
        self._gate_open = True
        self._advance()

    def _advance(self) -> None:
        if not self._gate_open or self._closed or self._committed is None:
            return
        end = self._committed + self._around.settings.max_span
        passed_over = False
        while self._waiting and self._waiting[0].offset < end:
            record = self._waiting.popleft()
            if self._gate.admit(record):
                self._begin(record)
            else:
                self.offsets.finish(record.offset)
                passed_over = True
        if passed_over:
            self._progressed()
        self._ask_for_commit()

    def _begin(self, record: Record) -> None:
        self._begun = record.offset
        key = record.key
        if key and key in self._followers:
            queue = self._followers[key]
            if queue is None:
                queue = self._followers[key] = deque()
            queue.append(record)
            return
        if key:
            self._followers[key] = None
        self._ready.append(record)
        self._employ()

    def _ask_for_commit(self) -> None:
        if not self._waiting or self._committed is None:
            return
        finished = (self.offsets.to_commit or 0) - self._committed
        stuck = not self._ready and not self._calling
        if finished > 0 and (stuck or 2 * finished >= self._around.settings.max_span):
            self._around.want_commit()

    # workers

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._around.start(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _employ(self) -> None:
        if self._workers < self._around.settings.concurrency:
            self._workers += 1
            self._run(self._work())

    async def _work(self) -> None:
        calls = 0
        try:
            while self._ready and not self._closed:
                async with self._around.slots:
                    await self._lease.ensure()
                    if self._ready and not self._closed:
                        await self._call(self._ready.popleft())
                calls += 1
                if calls % _CALLS_BETWEEN_YIELDS == 0:
                    await asyncio.sleep(0)
        except LeaseLost:
            return  # whoever has the partition now begins with it anew
        finally:
            self._workers -= 1

    async def _call(self, record: Record) -> None:
        task = asyncio.current_task()
        self._calling.add(task)
        began = time.perf_counter()
        try:
            await self._handled_or_buried(record)
        finally:
            self._calling.discard(task)
            self._seconds.observe(time.perf_counter() - began)
            self._ask_for_commit()
            self._progressed()

    async def _handled_or_buried(self, record: Record) -> None:
        verdict = self._poison.get(record.offset)
        try:
            if verdict is None:
                await self._around.handle(record)
            else:
                await self._around.dead_letters.bury(record, verdict)
        except TransientError as error:
            again = record if verdict else replace(record, attempt=record.attempt + 1)
            self._run(self._later(again, self._put_off(error, again.attempt, error.retry_after, again)))
        except Overloaded as error:
            self._run(self._later(record, self._put_off(error, record.attempt, None, record)))
        except PermanentError as error:
            self._poison[record.offset] = error
            self._ready.appendleft(record)
        else:
            self._finish(record)

    def _put_off(self, error: PipelineError, attempt: int, retry_after: float | None, record: Record) -> float:
        around = self._around
        pause = around.settings.retry.policy.pause(max(1, attempt - 1), retry_after)
        note_put_off(around.metrics, around.group, error, attempt=attempt, pause=pause, record=record)
        return pause

    async def _later(self, record: Record, pause: float) -> None:
        await asyncio.sleep(pause)
        self._ready.append(record)
        self._employ()

    def _finish(self, record: Record) -> None:
        self.offsets.finish(record.offset)
        self._poison.pop(record.offset, None)
        if not record.key:
            return
        queue = self._followers[record.key]
        if queue:
            self._ready.append(queue.popleft())
            self._employ()
        else:
            del self._followers[record.key]

"""Consumes records one by one: concurrently, in order per key, with a hard limit on what a crash repeats."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.contracts import Record, TopicName, is_for
from pipeline.errors import LeaseLost, Overloaded, PermanentError, PipelineError, TransientError
from pipeline.kafka.dead_letters import DeadLetters
from pipeline.kafka.member import GroupMember
from pipeline.kafka.partition import Calls, FlowQueues, OffsetTracker, PartitionLease, PartitionWork, report_retry
from pipeline.kafka.protocols import FlowOf, Gate, GateFactory, GroupClientFactory, Handle, OnArrival, Partition
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings
from pipeline.kafka.slots import SharedSlots
from pipeline.observability import Durations, KafkaMetrics

_RECOVERABLE: Final = (TransientError, Overloaded, LeaseLost, PermanentError)
"""Errors of a call that do not end the member by themselves."""


class KeyedConsumer(GroupMember):
    """A group member that passes records to a handler: one at a time per key, and in any order without a key.

    The consumer begins no record at or beyond the committed offset plus ``max_span``, so a crash repeats only records
    before that limit. When it reaches the limit, it commits early. A record that waits for a retry delays only its key.

    Records may belong to flows, e.g. integrations. The flows share the slots so that none takes them all, and a
    partition has ``concurrency`` workers per flow. So a slow or stuck flow never delays another.

    It keeps in memory, per partition, the records of ``max_span`` plus ``fetch_ahead`` offsets, at most
    ``max_span_bytes`` bytes, plus one fetch.

    Args:
        handle: Does the work of one record.
        on_arrival: Called with each record that may begin, without waiting for its turn. None: no call.
        gate: Makes a gate whenever the member gets a partition. None: every record is handled.
        flow_of: Returns the flow of a record; by default all records are one flow.
        flows: Maximum number of flows. A single flow may take every slot.
        dead_letters: Stores the records that can never be handled.
        group: Logical name of the group, e.g. ``process``; also the stage in metrics.
        topics: The topics to read; each must have a dead-letter topic.
        fetch_ahead: How many offsets are fetched beyond ``max_span``. The client drops fetched records when it pauses a
            partition. So with some offsets ahead, a quick handler is several times faster.
        connect: Makes a client; tests pass their own.
    """

    def __init__(
        self,
        handle: Handle,
        *,
        dead_letters: DeadLetters,
        group: str,
        topics: Sequence[TopicName],
        kafka: KafkaSettings,
        settings: ConsumerSettings,
        on_arrival: OnArrival | None = None,
        gate: GateFactory | None = None,
        flow_of: FlowOf = lambda _: "",
        flows: int = 1,
        fetch_ahead: int = 0,
        metrics: KafkaMetrics | None = None,
        connect: GroupClientFactory | None = None,
    ) -> None:
        for topic in topics:
            dead_letters.topic_for(topic)
        super().__init__(group=group, topics=topics, kafka=kafka, settings=settings, metrics=metrics, connect=connect)
        self._gate = gate
        self._shared = _Shared(
            group=group,
            handle=handle,
            on_arrival=on_arrival,
            settings=settings,
            fetch_ahead=fetch_ahead,
            flow_of=flow_of,
            slots=SharedSlots(settings.slots, flows=flows),
            arrival_slots=SharedSlots(settings.arrivals, flows=flows),
            dead_letters=dead_letters,
            metrics=self._metrics,
            start=self._start,
            want_commit=self._commit_wanted.set,
            stopping=self._stopping.is_set,
        )

    def _open(self, partition: Partition, lease: PartitionLease) -> PartitionWork:
        gate = self._gate(partition.topic, partition.number) if self._gate else None
        return _KeyedWork(self._shared, gate=gate, lease=lease, progressed=lambda: self._progressed(partition))


@dataclass(frozen=True, slots=True)
class _Shared:
    """The objects that the partitions of a member share.

    Attributes:
        start: Runs a coroutine that may fail the whole member.
        want_commit: Asks for an early commit.
        stopping: Whether the member is about to stop.
    """

    group: str
    handle: Handle
    on_arrival: OnArrival | None
    settings: ConsumerSettings
    fetch_ahead: int
    flow_of: FlowOf
    slots: SharedSlots
    arrival_slots: SharedSlots
    dead_letters: DeadLetters
    metrics: KafkaMetrics
    start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    want_commit: Callable[[], None]
    stopping: Callable[[], bool]


@dataclass(slots=True)
class _Begun:
    """A record that was begun.

    Attributes:
        record: With the number of its current attempt.
        flow: The flow whose slots its calls use.
        arrived: Whether the arrival callback has returned, or there is none.
        first_of_key: Whether every earlier record of its key is finished.
        poison: The error for which it is dead-lettered, or None.
        tries: Number of the next call, counted from 1 for each of arrival, handler and dead letter.
    """

    record: Record
    flow: str
    arrived: bool
    first_of_key: bool
    poison: PermanentError | None = None
    tries: int = 1


class _KeyedWork:
    """The work on one partition: a gate, a queue per key, and per flow the workers for arrivals and for the handler.

    Args:
        progressed: Called whenever records are finished or a call has ended.
    """

    def __init__(
        self, shared: _Shared, *, gate: Gate | None, lease: PartitionLease, progressed: Callable[[], None]
    ) -> None:
        settings = shared.settings
        self.offsets = OffsetTracker()
        self._shared = shared
        self._gate = gate
        self._gate_open = gate is None
        self._lease = lease
        self._progressed = progressed
        self._seconds = Durations(shared.metrics.consumer_handle_seconds.labels(stage=shared.group))
        self._waiting: deque[Record] = deque()
        self._calling: set[asyncio.Task[None] | None] = set()
        calls = Calls(
            self._calling, self._allowed, self._ensure, self._call_ended, idle=self._seconds.flush, run=self._run
        )
        self._arrivals = FlowQueues(self._arrive, slots=shared.arrival_slots, workers=settings.arrivals, calls=calls)
        self._turns = FlowQueues(self._handle, slots=shared.slots, workers=settings.concurrency, calls=calls)
        self._followers: dict[str, deque[_Begun] | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._committed: int | None = None
        self._last_begun = -1
        self._closed = False

    # called by the member

    @property
    def busy(self) -> int:
        """See PartitionWork."""
        return len(self._calling)

    @property
    def full(self) -> bool:
        """See PartitionWork."""
        settings = self._shared.settings
        most = settings.max_span + self._shared.fetch_ahead
        return self.offsets.span >= most or self.offsets.held_bytes >= settings.max_span_bytes

    @property
    def has_room(self) -> bool:
        """See PartitionWork. A pause makes the client drop fetched records, so it must not be short."""
        settings = self._shared.settings
        most = settings.max_span + self._shared.fetch_ahead // 4
        return self.offsets.span < most and self.offsets.held_bytes <= settings.max_span_bytes // 2

    def take(self, records: Sequence[Record]) -> None:
        """See PartitionWork."""
        self._waiting.extend(record for record in records if self.offsets.take(record.offset, len(record.value)))
        if self._committed is None and self._waiting:
            first = self._waiting[0]
            self._committed = first.offset
            if self._gate:
                self._run(self._open_gate(self._gate, first))
        self._advance()

    def note_commit(self, offset: int) -> None:
        """See PartitionWork. More records may be begun."""
        if self._committed is not None:
            self._committed = offset
        self._advance()

    def wind_down(self) -> None:
        """See PartitionWork."""
        self._closed = True
        for task in self._tasks - self._calling:
            task.cancel()

    def cancel(self) -> None:
        """See PartitionWork."""
        # after wind_down the finished records are still committed
        left = len(self._calling) if self._closed else self._last_begun + 1 - (self._committed or 0)
        if left > 0:
            self._shared.metrics.consumer_left_uncommitted.labels(stage=self._shared.group).inc(left)
        self._closed = True
        for task in self._tasks:
            task.cancel()

    # from the fetch to the queues

    async def _open_gate(self, gate: Gate, first: Record) -> None:
        tries = 1
        while True:
            try:
                await self._ensure()
            except LeaseLost:
                return
            try:
                await gate.open(first)
            except TransientError as error:
                tries += 1
                pause = self._pause(error, tries, error.retry_after, first)
            else:
                break
            await asyncio.sleep(pause)
        self._gate_open = True
        self._advance()

    def _advance(self) -> None:
        """Begin the records that the gate admits, up to the limit."""
        if not self._gate_open or self._closed or self._committed is None:
            return
        end = self._committed + self._shared.settings.max_span
        refused = False
        while self._waiting and self._waiting[0].offset < end:
            record = self._waiting.popleft()
            if is_for(record, self._shared.group) and (self._gate is None or self._gate.admit(record)):
                self._begin(record)
            else:
                self.offsets.finish(record.offset)
                refused = True
        if refused:
            self._progressed()
        self._ask_for_commit()

    def _begin(self, record: Record) -> None:
        self._last_begun = record.offset
        key = record.key
        first_of_key = not key or key not in self._followers
        flow = self._shared.flow_of(record)
        begun = _Begun(record, flow, arrived=self._shared.on_arrival is None, first_of_key=first_of_key)
        if not first_of_key:
            queue = self._followers[key]
            if queue is None:
                queue = self._followers[key] = deque()
            queue.append(begun)
        elif key:
            self._followers[key] = None
        if not begun.arrived:
            self._arrivals.put(flow, begun)
        elif first_of_key:
            self._turns.put(flow, begun)

    def _ask_for_commit(self) -> None:
        if not self._waiting or self._committed is None:
            return
        finished = (self.offsets.to_commit or 0) - self._committed
        if finished <= 0:
            return
        if 2 * finished >= self._shared.settings.max_span or not (self._calling or self._turns or self._arrivals):
            self._shared.want_commit()

    # done by the workers

    async def _arrive(self, begun: _Begun) -> None:
        on_arrival = self._shared.on_arrival
        if on_arrival is None:
            return
        try:
            await on_arrival(begun.record)
        except _RECOVERABLE as error:
            if not self._is_over(begun, self._arrivals, error):
                return
        begun.arrived = True
        begun.tries = 1
        if begun.poison is None and begun.record.attempt > 1:
            begun.record = replace(begun.record, attempt=1)
        if begun.first_of_key:
            self._turns.put(begun.flow, begun)

    async def _handle(self, begun: _Begun) -> None:
        poison = begun.poison
        try:
            if poison is None:
                await self._shared.handle(begun.record, self._lease)
            else:
                await self._shared.dead_letters.write(begun.record, poison)
        except _RECOVERABLE as error:
            if not self._is_over(begun, self._turns, error):
                return
        if begun.poison is poison:
            self._finish(begun.record)
        else:
            begun.tries = 1
            self._turns.put_first(begun.flow, begun)  # write its dead letter next

    def _is_over(self, begun: _Begun, queues: FlowQueues[_Begun], error: PipelineError) -> bool:
        """Return whether a failed call is the last one for its record, which is now poison.

        Otherwise it schedules another call.

        Raises:
            PipelineError: The error ends the work on the partition, or stops the member.
        """
        if isinstance(error, PermanentError):
            if begun.poison is not None:
                raise error  # its dead letter cannot be written either
            begun.poison = error
            return True
        if isinstance(error, LeaseLost) and (self._lease.lost or self._closed or self._shared.stopping()):
            raise error  # else another worker has decided first, and the next call sees that decision
        if isinstance(error, TransientError):
            begun.tries += 1
            if begun.poison is None:
                begun.record = replace(begun.record, attempt=begun.tries)
            self._retry(begun, queues, error, error.retry_after)
        else:
            self._retry(begun, queues, error, None)
        return False

    def _finish(self, record: Record) -> None:
        self.offsets.finish(record.offset)
        queue = self._followers.get(record.key)
        if queue:
            following = queue.popleft()
            following.first_of_key = True
            if following.arrived:
                self._turns.put(following.flow, following)
        elif record.key:
            del self._followers[record.key]

    def _retry(
        self, begun: _Begun, queues: FlowQueues[_Begun], error: PipelineError, retry_after: float | None
    ) -> None:
        if self._closed:
            return  # a new task would outlive the partition's work
        pause = self._pause(error, begun.tries, retry_after, begun.record)

        async def later() -> None:
            await asyncio.sleep(pause)
            queues.put(begun.flow, begun)

        self._run(later())

    def _pause(self, error: PipelineError, tries: int, retry_after: float | None, record: Record) -> float:
        shared = self._shared
        pause = shared.settings.retry.policy.pause(max(1, tries - 1), retry_after)
        report_retry(shared.metrics, shared.group, error, attempt=tries, pause=pause, record=record)
        return pause

    # called by the queues

    def _allowed(self) -> bool:
        return not self._closed and self._lease.allows()

    async def _ensure(self) -> None:
        await self._lease.ensure()
        if self._closed:
            raise LeaseLost("stopping", "The process stops; the record will be handled after its next start.")

    def _call_ended(self, seconds: float) -> None:
        self._seconds.add(seconds)
        self._ask_for_commit()
        self._progressed()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._shared.start(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

"""The parts of a group member's work on one partition: offsets, lease, workers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Generic, Protocol, TypeVar

from pipeline.contracts import Record
from pipeline.errors import LeaseLost, PipelineError
from pipeline.kafka.slots import Share, SharedSlots
from pipeline.observability import KafkaMetrics, get_logger, record_fields

log = get_logger(__name__)

T = TypeVar("T")

_CALLS_BETWEEN_YIELDS: Final = 8
"""A worker yields after this many calls: a handler that never waits must not delay the heartbeats."""


class PartitionWork(Protocol):
    """The work on the records of one partition."""

    @property
    def offsets(self) -> OffsetTracker:
        """The offsets of fetched and of finished records."""
        ...

    @property
    def busy(self) -> int:
        """How many calls of the handler are running."""
        ...

    @property
    def full(self) -> bool:
        """Whether the member should stop fetching records of it for now."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether a paused partition may be fetched again."""
        ...

    def take(self, records: Sequence[Record]) -> None:
        """Take these records, and ignore those taken before."""
        ...

    def note_commit(self, offset: int) -> None:
        """Note that the committed offset has moved."""
        ...

    def wind_down(self) -> None:
        """Begin no further record; running calls may finish."""
        ...

    def cancel(self) -> None:
        """End everything at once."""
        ...


class HeldPartition:
    """A partition of this member.

    Attributes:
        committed: The offset that this member committed last; -1 before the first commit.
        paused: Whether the client has paused it.
    """

    def __init__(self, work: PartitionWork, lease: PartitionLease) -> None:
        self.work = work
        self.lease = lease
        self.committed = -1
        self.paused = False


class OffsetTracker:
    """The records of one partition between the lowest unfinished one and the highest fetched one.

    Offsets come in ascending order and may have gaps (transaction markers). Records finish in any order.
    """

    def __init__(self) -> None:
        self._next: int | None = None
        self._unfinished: dict[int, int] = {}
        self._taken: deque[int] = deque()
        self._bytes = 0

    def take(self, offset: int, size: int) -> bool:
        """Note a fetched record of ``size`` bytes; return False if it was taken before."""
        if self._next is not None and offset < self._next:
            return False
        self._next = offset + 1
        self._unfinished[offset] = size
        self._taken.append(offset)
        self._bytes += size
        return True

    def finish(self, offset: int) -> None:
        """Note that this record is finished. Raises KeyError unless it was in work."""
        self._bytes -= self._unfinished.pop(offset)
        # to find the first key of a dict is slow after its first keys were removed
        while self._taken and self._taken[0] not in self._unfinished:
            self._taken.popleft()

    def skip_to(self, offset: int) -> None:
        """Continue at this offset, because no records are left before it. Call this only while no record is in work."""
        self._next = offset

    @property
    def next_offset(self) -> int | None:
        """The offset to fetch next, or None before the first record."""
        return self._next

    @property
    def to_commit(self) -> int | None:
        """The lowest offset that is still needed: every record below it is finished. None before the first record."""
        return self._taken[0] if self._taken else self._next

    @property
    def span(self) -> int:
        """Number of offsets from the lowest unfinished one to the next one to fetch."""
        if self._next is None or self.to_commit is None:
            return 0
        return self._next - self.to_commit

    @property
    def held_bytes(self) -> int:
        """Bytes of the records in work."""
        return self._bytes


class _State(Enum):
    HELD = auto()
    LIMBO = auto()
    LOST = auto()


class PartitionLease:
    """The :class:`~pipeline.kafka.protocols.Lease` of all records of a partition, from its assignment to its loss.

    It is held, in limbo during a rebalance, or lost for good.

    Args:
        fresh: Returns whether the last heartbeat is recent enough. Its clock must keep running while the process is
            frozen.
    """

    def __init__(self, fresh: Callable[[], bool]) -> None:
        self._fresh = fresh
        self._state = _State.HELD
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def lost(self) -> bool:
        """Whether the lease is lost for good."""
        return self._state is _State.LOST

    def suspend(self) -> None:
        """Note that a rebalance has begun, so that the next owner of the partition is unknown."""
        if self._state is _State.HELD:
            self._state = _State.LIMBO
            self._settled.clear()

    def hold(self) -> None:
        """Note that the partition came back, and that no other member had it in between."""
        if self._state is _State.LIMBO:
            self._state = _State.HELD
            self._settled.set()

    def lose(self) -> None:
        """Note that another member may have the partition."""
        self._state = _State.LOST
        self._settled.set()

    def allows(self) -> bool:
        """Return whether an effect is allowed at once. If not, :meth:`ensure` waits or raises."""
        return self._state is _State.HELD and self._fresh()

    async def ensure(self) -> None:
        """See :meth:`pipeline.kafka.protocols.Lease.ensure`."""
        while self._state is _State.LIMBO:  # the next rebalance may begin before this task runs
            await self._settled.wait()
        if self._state is _State.HELD and not self._fresh():
            # for good: after a gap, another member may have had the partition, even if heartbeats succeed again
            self.lose()
        if self._state is _State.LOST:
            raise LeaseLost(
                "lease_lost", "The partition went to another member, or this member has no fresh heartbeat."
            )


@dataclass(frozen=True, slots=True)
class Calls:
    """Functions and state that the calls of one partition share.

    Attributes:
        running: The tasks of the workers that are in a call.
        allowed: Returns whether a call may begin at once. It is checked first, so that most calls need not wait.
        ensure: Waits until a call may begin; raises LeaseLost if no further call may.
        ended: Called after each call with the seconds that it took.
        idle: Called whenever a worker has no more items.
        run: Runs a worker.
    """

    running: set[asyncio.Task[None] | None]
    allowed: Callable[[], bool]
    ensure: Callable[[], Awaitable[None]]
    ended: Callable[[float], None]
    idle: Callable[[], None]
    run: Callable[[Coroutine[Any, Any, None]], None]


class WorkerQueue(Generic[T]):
    """Items that are ready for a call, and the workers that make the calls. A worker without items ends.

    Args:
        call: Makes the call.
        share: A worker holds one of its slots during each call, but none while it waits.
        workers: Maximum number of calls at the same time.
        calls: The shared functions and state of the partition's calls.
    """

    def __init__(self, call: Callable[[T], Awaitable[None]], *, share: Share, workers: int, calls: Calls) -> None:
        self._call = call
        self._share = share
        self._free_workers = workers
        self._calls = calls
        self._ready: deque[T] = deque()

    def __bool__(self) -> bool:
        return bool(self._ready)

    def put(self, item: T) -> None:
        """Add an item after those that are ready already."""
        self._ready.append(item)
        if self._free_workers:
            self._employ()

    def put_first(self, item: T) -> None:
        """Add an item before those that are ready already."""
        self._ready.appendleft(item)
        if self._free_workers:
            self._employ()

    def _employ(self) -> None:
        self._free_workers -= 1
        self._calls.run(self._work())

    async def _work(self) -> None:
        calls, share, done = self._calls, self._share, 0
        task = asyncio.current_task()
        try:
            while self._ready:
                if not calls.allowed():
                    await calls.ensure()
                at_once = share.take()
                if not at_once:
                    await share.wait()
                try:
                    if not (at_once or calls.allowed()):
                        await calls.ensure()
                    if self._ready:
                        await self._one(self._ready.popleft(), task)
                finally:
                    share.give_back()
                done += 1
                if done % _CALLS_BETWEEN_YIELDS == 0:
                    await asyncio.sleep(0)
        except LeaseLost:
            return  # the partition's next member, or this one after a restart, begins these items again
        finally:
            self._free_workers += 1
            calls.idle()

    async def _one(self, item: T, task: asyncio.Task[None] | None) -> None:
        calls = self._calls
        calls.running.add(task)
        began = time.perf_counter()
        try:
            await self._call(item)
        finally:
            calls.running.discard(task)
            calls.ended(time.perf_counter() - began)


class FlowQueues(Generic[T]):
    """The worker queues of a partition, one per flow. A queue is created when its flow first appears.

    Args:
        slots: The flows of all partitions share them.
        workers: Maximum number of calls of one flow at the same time.

    The other arguments are those of :class:`WorkerQueue`.
    """

    def __init__(self, call: Callable[[T], Awaitable[None]], *, slots: SharedSlots, workers: int, calls: Calls) -> None:
        def make(flow: str) -> WorkerQueue[T]:
            return WorkerQueue(call, share=slots.share(flow), workers=workers, calls=calls)

        self._make = make
        self._queues: dict[str, WorkerQueue[T]] = {}

    def __bool__(self) -> bool:
        return any(self._queues.values())

    def put(self, flow: str, item: T) -> None:
        """Add an item after those of its flow that are ready already."""
        self._of(flow).put(item)

    def put_first(self, flow: str, item: T) -> None:
        """Add an item before those of its flow that are ready already."""
        self._of(flow).put_first(item)

    def _of(self, flow: str) -> WorkerQueue[T]:
        queue = self._queues.get(flow)
        if queue is None:
            queue = self._queues[flow] = self._make(flow)
        return queue


def report_retry(
    metrics: KafkaMetrics, group: str, error: PipelineError, *, attempt: int, pause: float, record: Record | None
) -> None:
    """Count and log that work will be retried."""
    metrics.consumer_retries.labels(stage=group, code=error.code).inc()
    position = {}
    if record is not None:
        # the key names the job, and operators search the log for it
        position = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": record.key,
            **record_fields(record),
        }
    log.warning(
        "work_retried",
        group=group,
        code=error.code,
        message=error.message,
        try_number=attempt,
        seconds=round(pause, 3),
        **position,
    )


def continues(before: tuple[str, int] | None, after: tuple[str, int] | None) -> bool:
    """Return whether no other member can have had the partitions: same member, and no generation in between."""
    return before is not None and after is not None and before[0] == after[0] and before[1] + 1 == after[1]

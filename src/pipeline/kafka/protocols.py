"""The interfaces through which the rest of the code uses Kafka. This module imports no Kafka client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from pipeline.contracts import OutgoingRecord, Record, RecordPosition, TopicName


class Partition(NamedTuple):
    """One partition of a logical topic."""

    topic: TopicName
    number: int


class Bounds(NamedTuple):
    """The offsets in one partition: from ``first`` up to, but not including, ``end``."""

    first: int
    end: int


Point = datetime | Literal["earliest", "latest"]
"""A point in a topic: the first record at or after a time (by records' timestamps), the first record, or the end."""


# implemented or called by the rest of the code


class Publisher(Protocol):
    """Appends records to topics."""

    async def publish(self, record: OutgoingRecord) -> RecordPosition:
        """Append one record and wait until every in-sync replica has it.

        After a lost acknowledgement the topic may hold the record twice; readers de-duplicate by ``ce_id``.

        Raises:
            BrokerUnavailable: No acknowledgement within ``settings.ack_timeout_seconds`` (TransientError). Repeating
                is safe.
            RecordTooLarge: The record exceeds ``settings.max_record_bytes`` (PermanentError). Raised before sending.
            Overloaded: The maximum number of sends is waiting already. Nothing was sent.
        """
        ...


class Lease(Protocol):
    """The right to cause effects outside for one record. A member loses it together with the partition."""

    @property
    def lost(self) -> bool:
        """Whether this member has lost the partition for good; another member handles the record then."""
        ...

    async def ensure(self) -> None:
        """Check that effects are allowed now; call this right before each effect.

        During a rebalance, it waits until the owner of the partition is known.

        Raises:
            LeaseLost: The partition went to another member, or this member had no successful heartbeat for 0.8 of the
                session timeout.
        """
        ...


Handle = Callable[[Record, Lease], Awaitable[None]]
"""Does the work of one record. The offset may be committed once it returns, so by then its results must be durable.

Records with the same key are handled one after another, in offset order. It may raise:
    TransientError: It is called again later with ``attempt + 1``. Later records of this key wait; other keys continue.
    PermanentError: The record is dead-lettered with the reason.
    Overloaded: It is called again later. This is not counted as an attempt.
    LeaseLost: It is called again later if this member still has the partition; otherwise the record is dropped. This is
        not counted as an attempt.
    FatalError: The process stops. So it does after any other exception.
"""

FlowOf = Callable[[Record], str]
"""Returns the flow of a record, e.g. its integration. It returns one of a few names, and never raises."""

OnArrival = Callable[[Record], Awaitable[None]]
"""Called with a record as soon as it is fetched, while earlier records of its key are still being handled.

Must be idempotent. It returns before the record itself is handled. The errors are those of :data:`Handle`.
"""


class BatchHandler(Protocol):
    """Does one stage's work for batches of consecutive records of one partition."""

    async def assigned(self, topic: TopicName, partition: int) -> None:
        """Prepare for a partition that this member has just got: load the state that its work needs."""
        ...

    async def handle_batch(self, records: Sequence[Record], lease: Lease) -> None:
        """Do the work for records of one partition, in offset order. The errors are those of :data:`Handle`.

        A TransientError repeats the whole batch.
        """
        ...


class Gate(Protocol):
    """Decides which records of one partition are handled. It lives as long as the member has the partition."""

    async def open(self, first: Record) -> None:
        """Prepare, given the first fetched record. No record is handled before this returns.

        It may take long; other partitions continue meanwhile.

        Raises:
            TransientError: Called again later.
            FatalError: The process stops. So does any other exception.
        """
        ...

    def admit(self, record: Record) -> bool:
        """Return whether to handle a record; otherwise it is finished at once.

        Called exactly once per record that is for the group, in offset order. It must not fail.
        """
        ...


GateFactory = Callable[[TopicName, int], Gate]
"""Makes the gate of a partition that the member has just got."""


class Runner(Protocol):
    """A consumer group member: runs one handler until it is stopped."""

    async def run(self) -> None:
        """Consume until :meth:`stop`; returns after the last commit.

        Raises FatalError, or any other exception of a handler, after everything was stopped.
        """
        ...

    def stop(self) -> None:
        """Fetch no more; give running work ``settings.stop_grace_seconds``, cancel it, commit, leave the group."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the member has joined its group and its heartbeat is fresh."""
        ...

    @property
    def condition(self) -> str:
        """The state of the member, as text for people; the reason if it is not ready."""
        ...

    @property
    def alive(self) -> bool:
        """Whether the poll loop has run within the last ``settings.liveness_timeout_seconds``."""
        ...


# implemented by pipeline.kafka.client; tests have their own implementations


class RebalanceListener(Protocol):
    """Called at rebalances. The client's coordination task waits for each call, so return quickly."""

    async def on_revoked(self) -> None:
        """All partitions were revoked, and the member has not joined the group again yet."""
        ...

    async def on_assigned(self, partitions: frozenset[Partition]) -> None:
        """These partitions belong to this member now, including those that it had before."""
        ...


class GroupClient(Protocol):
    """A Kafka client that is one member of a consumer group."""

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the last successful heartbeat was sent."""
        ...

    @property
    def membership(self) -> tuple[str, int] | None:
        """Member id and generation, or None when the group does not know this member."""
        ...

    def subscribe(self, listener: RebalanceListener) -> None:
        """Join the group, now and whenever it must be joined again."""
        ...

    async def fetch(self, max_records: int, wait: float) -> Mapping[Partition, Sequence[Record]]:
        """Return fetched records, at the latest after ``wait`` seconds (later during a rebalance).

        Raises:
            BatchUndecodable: Every record before the batch was returned before.
        """
        ...

    async def commit(self, offsets: Mapping[Partition, int]) -> bool:
        """Commit; return False if this member may not commit any more, or no coordinator answers."""
        ...

    async def start_offset(self, partition: Partition) -> int | None:
        """Return the committed offset, or the earliest if there is none; None if neither can be read now."""
        ...

    def assignment(self) -> frozenset[Partition]:
        """The partitions assigned last, even if the group has forgotten this member meanwhile."""
        ...

    def pause(self, partition: Partition) -> None:
        """Stop fetching this partition until it is resumed or assigned again."""
        ...

    def resume(self, partition: Partition) -> None:
        """Fetch it again."""
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Fetch from this offset."""
        ...

    def end(self, partition: Partition) -> int | None:
        """The offset after the partition's last record, as of the last fetch or :meth:`refresh_ends`."""
        ...

    async def refresh_ends(self, partitions: Sequence[Partition]) -> None:
        """Query the ends of partitions that are not fetched now. It never fails, and gives up after a few seconds."""
        ...

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - never hangs, never raises
        """Leave the group and release everything."""
        ...


GroupClientFactory = Callable[[], Awaitable[GroupClient]]
"""Makes a connected client that has not joined its group yet."""


class PartitionReader(Protocol):
    """A Kafka client that reads partitions without a group: it joins nothing, and commits nothing."""

    async def partitions(self, topics: Iterable[TopicName]) -> list[Partition]:
        """Return the partitions of the topics, except those that do not exist. This creates no topic."""
        ...

    async def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Bounds]:
        """Return the offsets that the partitions hold now."""
        ...

    async def offsets(self, bounds: Mapping[Partition, Bounds], point: Point) -> dict[Partition, int]:
        """Return the offset of a point in each partition; the end if every record is earlier."""
        ...

    def start(self, offsets: Mapping[Partition, int]) -> None:
        """Fetch these partitions, and no others, from these offsets on."""
        ...

    async def fetch(self, partitions: Sequence[Partition], wait: float) -> dict[Partition, list[Record]]:
        """Return fetched records of these partitions, in offset order, at the latest after ``wait`` seconds.

        Raises:
            BatchUndecodable: Every record before the batch was returned before.
        """
        ...

    async def position(self, partition: Partition) -> int:
        """Return the offset that is fetched next."""
        ...

    def pause(self, partition: Partition) -> None:
        """Stop fetching this partition."""
        ...

    def resume(self, partition: Partition) -> None:
        """Fetch it again."""
        ...


class GroupAdmin(Protocol):
    """A Kafka client that reads and sets a consumer group's offsets from outside."""

    @property
    def reader(self) -> PartitionReader:
        """Reads the group's topics."""
        ...

    async def members(self) -> int:
        """Return how many members the group has now."""
        ...

    async def committed(self) -> dict[Partition, int]:
        """Return every offset that the group has committed in the topics of the pipeline."""
        ...

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Set offsets of a group without members.

        Raises:
            GroupBusy: A member has joined meanwhile; nothing was changed.
        """
        ...

"""What the rest of the code knows of Kafka. Nothing here imports a Kafka client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pipeline.contracts import OutgoingRecord, Record, RecordPosition, TopicName


class Publisher(Protocol):
    """Appends records to topics."""

    async def publish(self, record: OutgoingRecord) -> RecordPosition:
        """Append one record and wait until every in-sync replica has it.

        At least once: after a lost acknowledgement the record may stand twice; readers de-duplicate by ``ce_id``.

        Raises:
            BrokerUnavailable: No acknowledgement within ``settings.ack_timeout_seconds`` (TransientError). Repeating
                is safe.
            RecordTooLarge: The record exceeds ``settings.max_record_bytes`` (PermanentError). Raised before sending.
            Overloaded: ``settings.max_sends_in_flight`` sends are waiting already. Nothing was sent.
        """
        ...


class Lease(Protocol):
    """The right to do effects for one record; lost with its partition."""

    @property
    def lost(self) -> bool:
        """Whether it is known to be lost for good; the record is somebody else's then."""
        ...

    async def ensure(self) -> None:
        """Return if effects are allowed now; call it right before each effect.

        Waits while a rebalance is under way and the fate of the partition is not known.

        Raises:
            LeaseLost: The partition went to another member, or this member had no successful heartbeat for 0.8 of the
                session timeout.
        """
        ...


class Handler(Protocol):
    """Does one stage's work for one record at a time; records of equal key never overlap."""

    async def arrive(self, record: Record) -> None:
        """Take note of a record as soon as it was fetched, before those ahead of it in its key's queue are handled.

        Must be idempotent. It runs before :meth:`handle` of the same record is called. Errors are treated as those of
        ``handle``.
        """
        ...

    async def handle(self, record: Record, lease: Lease) -> None:
        """Do the work; return when everything that must precede the commit of the offset is durable.

        Raises:
            TransientError: Called again later with ``attempt + 1``; other keys go on, later records of this key wait.
            PermanentError: The record goes to the topic's dead-letter topic with the reason.
            Overloaded: Called again later, not counted as an attempt.
            LeaseLost: The work is dropped without a trace.
            FatalError: The process stops. So does any other exception.
        """
        ...


class BatchHandler(Protocol):
    """Does one stage's work for runs of consecutive records of one partition."""

    async def assigned(self, topic: TopicName, partition: int) -> None:
        """Prepare for a partition that this member has just been given: load what its work needs."""
        ...

    async def handle_batch(self, records: Sequence[Record], lease: Lease) -> None:
        """Do the work for records of one partition, in offset order; same errors as :meth:`Handler.handle`.

        A TransientError repeats the whole batch.
        """
        ...


Handle = Callable[[Record], Awaitable[None]]
"""Does the work of one record; errors as :meth:`Handler.handle`."""


class Gate(Protocol):
    """Decides which records of one partition are handed on. It lives as long as the member has the partition."""

    async def open(self, first: Record) -> None:
        """Prepare, knowing the first record that was fetched; none is handed on before this returns.

        May take long: other partitions go on meanwhile.

        Raises:
            TransientError: Called again later.
            FatalError: The process stops. So does any other exception.
        """
        ...

    def admit(self, record: Record) -> bool:
        """Return whether a record is to be handled; if not, it counts as finished.

        Called exactly once per record, in offset order, beginning with the first. Must not fail.
        """
        ...


GateFactory = Callable[[TopicName, int], Gate]
"""Makes the gate of a partition that the member was just given."""


class Runner(Protocol):
    """A consumer group member: runs one handler until told to stop."""

    async def run(self) -> None:
        """Consume until :meth:`stop`; returns after the last commit.

        Raises FatalError, or whatever a handler did not expect, after everything was stopped.
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
    def alive(self) -> bool:
        """Whether the poll loop turned within the last ``settings.liveness_timeout_seconds``."""
        ...

"""The queue from which aiokafka's sender takes its batches. A batch is made when a request can carry it, not before.

aiokafka's own queue (``MessageAccumulator``) holds batches that are already made. So a record that arrives while the
broker works on a request waits for another whole request if its partition has a batch in the queue.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any, Final

from aiokafka import errors as kafka
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import RecordMetadata, TopicPartition

Ended = Callable[[RecordMetadata | Exception], object]
Take = Callable[[], "Batch | None"]

_MAGIC: Final = 2
_NO_LEADER: Final = -1


class Batch:
    """Records of one partition on their way. aiokafka's handler of a produce request ends it.

    Args:
        builder: aiokafka's builder, with at least one record.
        at: The partition.
        records: Number of its records.
        ended: Called once, with the position of the first record or the error.
    """

    __slots__ = ("_buffer", "_builder", "_ended", "at", "numbered", "records", "since")

    def __init__(self, builder: Any, at: TopicPartition, records: int, ended: Ended) -> None:
        self._builder = builder
        self._buffer: bytearray | None = None
        self._ended: Ended | None = ended
        self.at = at
        self.records = records
        self.numbered = False
        """Whether its records have their sequence numbers."""
        self.since = 0.0
        """Time of the event loop since which it could be sent."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._ended is None

    def number(self, producer_id: int, epoch: int, first: int) -> None:
        """Set the producer and the sequence number of the first record. They stay if the batch is sent again."""
        self._builder.set_producer_state(producer_id, epoch, first)
        self.numbered = True

    def get_data_buffer(self) -> bytearray:
        """Return its bytes."""
        if self._buffer is None:
            self._buffer, self._builder = self._builder.build(), None
        return self._buffer

    def done(self, base_offset: int, timestamp: int | None = None, log_start_offset: int | None = None) -> None:
        """End it: every in-sync replica has it."""
        at, kind = self.at, 0 if timestamp == -1 else 1
        self._end(RecordMetadata(at.topic, at.partition, at, base_offset, timestamp, kind, log_start_offset))

    def failure(self, exception: Exception) -> None:
        """End it with an error."""
        self._end(exception)

    def _end(self, outcome: RecordMetadata | Exception) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self._buffer = None
            ended(outcome)


class SendQueue:
    """Takes the place of aiokafka's ``MessageAccumulator`` in an idempotent producer without transactions.

    Args:
        producer: aiokafka's producer, which is not started yet.
    """

    def __init__(self, producer: Any) -> None:
        self._sender = producer._sender  # noqa: SLF001
        self._sequence = producer._txn_manager  # noqa: SLF001
        self._cluster = producer.client.cluster
        replaced = producer._message_accumulator  # noqa: SLF001
        self._codec = replaced._compression_type  # noqa: SLF001
        self._most_bytes = replaced._batch_size  # noqa: SLF001
        self._seconds: float = replaced._batch_ttl  # noqa: SLF001
        self._loop = asyncio.get_running_loop()
        self._offers: dict[TopicPartition, tuple[float, Take]] = {}
        self._last: dict[TopicPartition, Batch] = {}
        self._waiter: asyncio.Future[None] = self._loop.create_future()
        producer._message_accumulator = self._sender._message_accumulator = self  # noqa: SLF001
        self._cluster.add_listener(lambda _: self._wake())

    def new_builder(self) -> Any:
        """Return an empty builder (aiokafka's ``DefaultRecordBatchBuilder``)."""
        return DefaultRecordBatchBuilder(_MAGIC, self._codec, 0, -1, -1, 0, self._most_bytes)

    def offer(self, at: TopicPartition, take: Take) -> None:
        """Let the sender take a batch of a partition. It does so once, when a request can carry it."""
        self._offers[at] = self._loop.time(), take
        # at the end of each request the sender looks for batches anyway
        if self._cluster.leader_for_partition(at) not in self._sender._in_flight:  # noqa: SLF001
            self._wake()

    def take_back(self, at: TopicPartition, records: int) -> None:
        """Take back the sequence numbers of a partition's last batch, because a broker has refused it."""
        self._sequence.increment_sequence_number(at, -records)

    def _wake(self) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)

    # aiokafka's sender and producer call the methods that follow

    def waiter(self) -> asyncio.Future[None]:
        """Return a future that is done when the sender should look for batches."""
        return self._waiter

    def drain_by_nodes(
        self, ignore_nodes: Collection[int], muted_partitions: Collection[TopicPartition] = frozenset()
    ) -> tuple[dict[int, dict[TopicPartition, Batch]], bool]:
        """Return the batches to send now by node and partition, and whether a partition has no known leader."""
        nodes: dict[int, dict[TopicPartition, Batch]] = defaultdict(dict)
        leaderless = False
        self._waiter = self._loop.create_future()
        for at, (since, _) in list(self._offers.items()):
            if at in muted_partitions:
                continue
            leader = self._cluster.leader_for_partition(at)
            if leader is None or leader == _NO_LEADER:
                leaderless = True
                if self._loop.time() - since > self._seconds:
                    self._give_up(at, kafka.LeaderNotAvailableError() if leader else kafka.NotLeaderForPartitionError())
            elif leader not in ignore_nodes:
                batch = self._taken(at)
                if batch is not None:
                    nodes[leader][at] = batch
        return nodes, leaderless

    def _taken(self, at: TopicPartition) -> Batch | None:
        since, take = self._offers.pop(at)
        batch = take()
        if batch is None or batch.over:
            return None
        if not batch.numbered:
            batch.since = since
            numbers = self._sequence
            batch.number(numbers.producer_id, numbers.producer_epoch, numbers.sequence_number(at))
            numbers.increment_sequence_number(at, batch.records)
            self._last[at] = batch
        return batch

    def _give_up(self, at: TopicPartition, error: Exception) -> None:
        batch = self._offers.pop(at)[1]()
        if batch is not None:
            batch.failure(error)

    def reenqueue(self, batch: Batch) -> None:
        """Take a batch that has to be sent again."""
        self._offers[batch.at] = batch.since, lambda: batch

    def fail_all(self, exception: Exception) -> None:
        """End all batches with an error."""
        for at in list(self._offers):
            self._give_up(at, exception)
        for batch in list(self._last.values()):
            batch.failure(exception)

    async def close(self) -> None:
        """Do nothing: the producer is closed when every record has its answer."""

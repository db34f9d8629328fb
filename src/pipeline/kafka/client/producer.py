"""Wraps aiokafka's producer: connects, sends, and ends in an orderly way in any state."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError as ClientError
from aiokafka.errors import KafkaTimeoutError, ProducerClosed
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.structs import TopicPartition

from pipeline.contracts import OutgoingRecord, TopicName
from pipeline.kafka.client.causes import CLIENT_ERRORS, unavailable
from pipeline.kafka.client.connection import connection_options, create_no_topics
from pipeline.kafka.client.gathering import TOO_LARGE, Gathering
from pipeline.kafka.client.produce_requests import QuickProduceHandler
from pipeline.kafka.client.send_queue import SendQueue, Take
from pipeline.kafka.settings import KafkaSettings, Names

__all__ = [
    "DEAD_LETTER_ROOM",
    "SEQUENCE_LOST",
    "TOO_LARGE",
    "AioProducer",
    "Appended",
    "ClientError",
    "Producer",
    "ProducerClosed",
    "ProducerFactory",
    "record_size",
]

SEQUENCE_LOST: Final = (
    kafka.OutOfOrderSequenceNumber,
    kafka.ProducerFenced,
    kafka.InvalidProducerEpoch,
    kafka.InvalidProducerIdMapping,
    kafka.UnknownProducerId,
)
"""After these errors, an idempotent producer fails every later batch of the partition. Only a new producer id helps."""

DEAD_LETTER_ROOM: Final = 16_384
"""A dead letter may exceed ``max_record_bytes`` by this many bytes, for the headers with the reason."""

_BROKERS_ASKED: Final = 3
"""Number of brokers that are probed. One that answers is enough."""
_BATCH_OVERHEAD: Final = 61 + 21
"""Bytes of a record batch's header and of the largest record header (Kafka message format v2)."""
_HEADER_OVERHEAD: Final = 10
"""Bytes of the two length prefixes of one header, at most."""


def record_size(record: OutgoingRecord) -> int:
    """Return an upper bound of a record's size on the wire if it is alone in its batch."""
    names = "".join([name for name, _ in record.headers])
    headers = len(names.encode()) + sum([len(value) for _, value in record.headers])
    overhead = _BATCH_OVERHEAD + _HEADER_OVERHEAD * len(record.headers)
    return overhead + len(record.key.encode()) + len(record.value) + headers


class Appended(Protocol):
    """The position of an appended record within its topic."""

    @property
    def partition(self) -> int:
        """Its partition."""
        ...

    @property
    def offset(self) -> int:
        """Its offset."""
        ...

    @property
    def timestamp(self) -> int | None:
        """Its time, epoch milliseconds."""
        ...

    @property
    def timestamp_type(self) -> int:
        """1 if its time is that of the broker's append; 0 if it is the producer's."""
        ...


class Producer(Protocol):
    """A connected producer. Errors are :class:`ClientError`."""

    def send(self, record: OutgoingRecord, settled: Callable[[], object]) -> asyncio.Future[Appended]:
        """Hand one record over; the future is done when every in-sync replica has it, or never.

        The caller may end the future earlier. ``settled`` is called when the producer has let go of the record.
        """
        ...

    def drop_abandoned(self) -> None:
        """Let go of the records whose callers have ended the future with an error, unless they are being sent."""
        ...

    def held_up(self, topic: TopicName) -> int:
        """Return how many records of a topic it holds, if it is sending one whose caller has given up; else 0."""
        ...

    @property
    def broken(self) -> bool:
        """Whether it can never send again."""
        ...

    async def reachable(self, within: float) -> bool:
        """Return whether a broker answers within so many seconds."""
        ...

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - two phases share the time
        """Send pending records if that works within ``timeout`` seconds; then release everything."""
        ...


ProducerFactory = Callable[[], Awaitable[Producer]]


class AioProducer:
    """Wraps AIOKafkaProducer: idempotent, acks=all.

    Batches may grow to the size of the largest record, since brokers must take that anyway: a full small batch would
    wake every waiting sender (measured: five times slower at 1,000 concurrent sends).
    """

    def __init__(self, settings: KafkaSettings, options: dict[str, Any]) -> None:
        self._names = Names(settings)
        limit = settings.max_record_bytes + DEAD_LETTER_ROOM
        self._producer: Any = AIOKafkaProducer(
            **options,
            enable_idempotence=True,
            acks="all",
            linger_ms=0,
            compression_type=None if settings.compression == "none" else settings.compression,
            max_batch_size=limit,
            max_request_size=limit,
        )
        self._queue = SendQueue(self._producer)
        self._gathering = Gathering(self, self._names.topic)
        self._sending: set[asyncio.Task[Any]] = set()

    @classmethod
    async def connect(cls, settings: KafkaSettings, client_id: str, *, within: float) -> AioProducer:
        """Return a producer that has its producer id.

        Raises:
            BrokerUnavailable: It is not possible now; the code says why.
            FatalError: A certificate file cannot be used.
        """
        made = cls(settings, await asyncio.to_thread(connection_options, settings, client_id=client_id))
        try:
            await made._start(within)
        except CLIENT_ERRORS as error:
            raise await unavailable(error, settings, "The producer") from error
        return made

    async def _start(self, within: float) -> None:
        create_no_topics(self._producer.client)
        try:
            async with asyncio.timeout(within):
                await self._producer.start()
        except BaseException:
            await self._drop()
            raise
        self._watch_sending()

    def _watch_sending(self) -> None:
        # the sender keeps its request tasks in a local variable; without them an orderly end is not possible
        sender = self._producer._sender  # noqa: SLF001

        async def watched(node_id: Any, batches: Any) -> None:
            task = asyncio.current_task()
            if task:
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
            # as the sender's own method, which it replaces
            await QuickProduceHandler(sender, batches).do(node_id)
            sender._in_flight.remove(node_id)  # noqa: SLF001
            sender._muted_partitions.difference_update(batches)  # noqa: SLF001

        sender._send_produce_req = watched  # noqa: SLF001

    def send(self, record: OutgoingRecord, settled: Callable[[], object]) -> asyncio.Future[Appended]:
        """See Producer. Records of one partition that arrive at the same moment share a batch."""
        return self._gathering.send(record, settled)

    def drop_abandoned(self) -> None:
        """See Producer."""
        self._gathering.drop_abandoned()

    def held_up(self, topic: TopicName) -> int:
        """See Producer."""
        return self._gathering.held_up(topic)

    async def partitions(self, topic: str) -> Sequence[int]:
        """See BatchSender."""
        await self._ensure_topic(topic)
        return sorted(await self._producer.partitions_for(topic))

    def known_partitions(self, topic: str) -> Sequence[int]:
        """See BatchSender."""
        return sorted(self._producer.client.cluster.partitions_for_topic(topic) or ())

    def new_builder(self) -> Any:
        """See BatchSender."""
        return self._queue.new_builder()

    def offer(self, at: TopicPartition, take: Take) -> None:
        """See BatchSender."""
        if self.broken:
            raise ProducerClosed
        self._queue.offer(at, take)

    def take_back(self, at: TopicPartition, records: int) -> None:
        """See BatchSender. The client counts a refused batch, and the broker would miss its sequence numbers."""
        self._queue.take_back(at, records)

    async def _ensure_topic(self, name: str) -> None:
        """Raise at once for a topic that a broker does not know: the client would ask for it until its timeout."""
        client = self._producer.client
        if client.cluster.partitions_for_topic(name) is not None or client.cluster.controller is None:
            return
        client.add_topic(name)
        answered = True
        for _ in range(2):  # an update that was under way already did not ask for this topic
            answered = await client.force_metadata_update()
            if client.cluster.partitions_for_topic(name) is not None:
                return
        if name in client.cluster.unauthorized_topics:
            raise kafka.TopicAuthorizationFailedError(name)
        if answered:
            raise kafka.UnknownTopicOrPartitionError(name)

    async def reachable(self, within: float) -> bool:
        """See Producer. It has connections of its own: a broker answers one request of a connection after the other."""
        client = self._producer.client
        nodes = [broker.nodeId for broker in client.cluster.brokers()]
        asked = random.sample(nodes, min(len(nodes), _BROKERS_ASKED))
        asking = [asyncio.create_task(self._ask(node)) for node in asked]
        try:
            async with asyncio.timeout(within):
                for answer in asyncio.as_completed(asking):
                    if await answer:
                        return True
        except TimeoutError:
            pass
        finally:
            for task in asking:
                task.cancel()
        return False

    async def _ask(self, node: int) -> bool:
        try:
            await self._producer.client.send(node, ApiVersionRequest(), group=ConnectionGroup.COORDINATION)
        except CLIENT_ERRORS:
            return False
        return True

    @property
    def broken(self) -> bool:
        """Whether the sending task has ended."""
        task: asyncio.Task[Any] | None = self._producer._sender.sender_task  # noqa: SLF001 - no public method says so
        return task is None or task.done()

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - see Producer
        """Flush for half of the time; then fail the remaining records and end every task."""
        if not self.broken:
            try:
                async with asyncio.timeout(timeout / 2):
                    await self._gathering.flush()
                    await self._producer.stop()
            except (ClientError, TimeoutError):
                pass  # _drop reports unsent records to their senders
        await self._drop()

    async def _drop(self) -> None:
        """End without hanging in any state of the client: its ``stop`` waits for ever if a broker is gone."""
        producer, closed = self._producer, KafkaTimeoutError("the producer was closed")
        self._gathering.close(closed)
        self._queue.fail_all(closed)
        sender_task: asyncio.Task[Any] | None = producer._sender.sender_task  # noqa: SLF001
        tasks = {*self._sending, *((sender_task,) if sender_task else ())}
        for _ in range(5):  # the sender swallows the first cancellation to wait for its requests
            for task in tasks:
                task.cancel()
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=0.2)
            if not tasks:
                break
        producer._closed = True  # noqa: SLF001 - or its finalizer warns
        try:
            async with asyncio.timeout(1.0):
                await producer.client.close()
        except (ClientError, OSError, TimeoutError):
            pass  # the operating system closes the connections when the process ends

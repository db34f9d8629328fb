"""Publishes records with a hard deadline."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from types import TracebackType
from typing import Final, Self

from pipeline.contracts import DEAD_LETTER_ENDING, OutgoingRecord, RecordPosition, TopicName
from pipeline.errors import FatalError, Overloaded, PipelineError
from pipeline.kafka.client.causes import find_cause, refusal
from pipeline.kafka.client.connection import connection_options
from pipeline.kafka.client.producer import (
    DEAD_LETTER_ROOM,
    SEQUENCE_LOST,
    TOO_LARGE,
    AioProducer,
    Appended,
    ClientError,
    Producer,
    ProducerClosed,
    ProducerFactory,
    record_size,
)
from pipeline.kafka.deadlines import Deadlines
from pipeline.kafka.errors import BrokerUnavailable, RecordTooLarge
from pipeline.kafka.settings import KafkaSettings
from pipeline.observability import KafkaMetrics, get_logger

log = get_logger(__name__)

_RECONNECT: Final = 1.0
"""Seconds between two attempts to connect."""

_LOOK_EVERY: Final = 2.0
_ANSWER_WITHIN: Final = 4.0
"""Seconds. Both together are less than 10, the time within which readiness shows an outage of the brokers."""

_APPEND_TIME: Final = 1
"""Kafka's number for ``message.timestamp.type=LogAppendTime``."""
_FIRST_MS: Final = 946_684_800_000
"""The year 2000. The embedded broker answers with a time long before it, which is not real."""

MAX_SENDS_IN_FLIGHT: Final = 256
"""Maximum number of records that one publisher sends at the same time.

During an outage, memory holds at most this many of the largest records. It suffices for tens of thousands of records
per second.
"""

_LATE_SHARE: Final = 4
"""A topic with a record that was not confirmed in time gets one place in so many. Other topics need the rest."""


class KafkaPublisher:
    """Appends records idempotently and with acks=all. Use it as an async context manager.

    It connects in the background and keeps trying, so a process can start before its brokers. A record that was not
    confirmed in time may still be appended when the brokers are back, if the client has begun to send it. Until then
    it counts as in flight, which limits the memory during an outage. So that a partition without in-sync replicas does
    not stop all topics, its topic then gets only some of the places. A producer that can never send again is replaced.

    Args:
        settings: Cluster and limits.
        client_id: Shown in the brokers' logs and quotas.
        metrics: Counts times and failures.
        connect: Makes a connected producer; tests pass their own.
        max_in_flight: Maximum number of sent but unconfirmed records; further ones are refused.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        client_id: str = "card-pipeline",
        metrics: KafkaMetrics | None = None,
        connect: ProducerFactory | None = None,
        max_in_flight: int = MAX_SENDS_IN_FLIGHT,
    ) -> None:
        self._settings = settings
        self._metrics = metrics or KafkaMetrics()
        self._seconds = cache(lambda topic: self._metrics.publish_seconds.labels(topic=topic))
        self._connect: ProducerFactory = connect or (
            lambda: AioProducer.connect(settings, client_id, within=settings.request_timeout_seconds)
        )
        self._producer: Producer | None = None
        self._connected = asyncio.Event()
        self._problem: PipelineError | None = BrokerUnavailable("broker_unavailable", "No broker has answered yet.")
        self._metrics.kafka_connected.set_function(lambda: float(self.ready))
        self._broken = asyncio.Event()
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._metrics.sends_in_flight.set_function(lambda: float(self._in_flight))
        self._deadlines = Deadlines[asyncio.Future[Appended]](settings.ack_timeout_seconds, _expire)
        self._late: set[TopicName] = set()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to connect, without waiting for it.

        Raises:
            FatalError: A certificate file cannot be used.
        """
        await asyncio.to_thread(connection_options, self._settings, client_id="check")
        self._keeper = asyncio.create_task(self._keep_connected(), name="kafka-publisher")
        self._keeper.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for pending confirmations, at most ``ack_timeout_seconds``; then release everything."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._connected.clear()
        self._problem = BrokerUnavailable("broker_unavailable", "The publisher is closed.")
        producer, self._producer = self._producer, None
        if producer:
            await producer.close(self._settings.ack_timeout_seconds)

    @property
    def ready(self) -> bool:
        """Whether a producer is connected, and a broker answered it within the last few seconds."""
        return self.problem is None

    @property
    def problem(self) -> PipelineError | None:
        """Why no broker is connected; None if one is."""
        return self._problem

    async def publish(self, record: OutgoingRecord) -> RecordPosition:
        """Append one record, see :class:`pipeline.kafka.protocols.Publisher`."""
        try:
            self._admit(record)
            started = time.perf_counter()
            appended = await self._sent(record)
        except PipelineError as error:
            self._metrics.publish_failures.labels(topic=record.topic, code=error.code).inc()
            raise
        self._seconds(record.topic).observe(time.perf_counter() - started)
        return appended

    def _admit(self, record: OutgoingRecord) -> None:
        limit = self._settings.max_record_bytes + (DEAD_LETTER_ROOM if record.topic.endswith(DEAD_LETTER_ENDING) else 0)
        size = record_size(record)
        if size > limit:
            raise RecordTooLarge(
                "record_too_large",
                f"The record has {size} bytes, but only {limit} are allowed (kafka.max_record_bytes).",
            )
        if self._in_flight >= self._max_in_flight:
            raise Overloaded(
                "sends_in_flight", f"{self._in_flight} records wait for confirmation; no more are accepted."
            )
        if record.topic in self._late:
            self._admit_late(record.topic)

    def _admit_late(self, topic: TopicName) -> None:
        """Refuse a record of a topic that has a late record in flight, if the topic has its share of the places."""
        held = self._producer.held_up(topic) if self._producer else 0
        if not held:
            self._late.discard(topic)
        elif held >= max(self._max_in_flight // _LATE_SHARE, 1):
            raise Overloaded(
                "sends_in_flight",
                f"{held} records of {topic} wait for confirmation, some for too long; no more of them are accepted.",
            )

    async def _sent(self, record: OutgoingRecord) -> RecordPosition:
        try:
            if self._usable is not None:
                appended = await self._handed_over(self._usable, record)
            else:
                async with asyncio.timeout(self._settings.ack_timeout_seconds):
                    appended = await self._handed_over(await self._current(), record)
        except TimeoutError as error:
            self._late.add(record.topic)
            if self._producer is not None:
                self._producer.drop_abandoned()
            raise self._unavailable(record.topic, "no confirmation in time") from error
        except TOO_LARGE as error:
            raise RecordTooLarge(
                "record_too_large", f"A broker refuses the record as too large for {record.topic} (message.max.bytes)."
            ) from error
        except ClientError as error:
            refused = refusal(error, f"Writing to {record.topic}")
            if refused is not None:
                raise refused from error
            self._replace_if_broken(error)
            raise self._unavailable(record.topic, type(error).__name__) from error
        return RecordPosition(record.topic, appended.partition, appended.offset, _appended_ms(appended))

    def _handed_over(self, producer: Producer, record: OutgoingRecord) -> asyncio.Future[Appended]:
        """Send a record; return a future with its position, the client's error, or TimeoutError at the deadline."""
        sent = producer.send(record, self._settled)
        self._in_flight += 1
        self._deadlines.add(sent)
        return sent

    def _settled(self) -> None:
        self._in_flight -= 1

    @property
    def _usable(self) -> Producer | None:
        """The producer if it is connected and its keeper runs; otherwise None, and :meth:`_current` waits or raises."""
        return self._producer if self._connected.is_set() and self._keeper and not self._keeper.done() else None

    async def _current(self) -> Producer:
        if self._keeper is not None and self._keeper.done() and not self._keeper.cancelled():
            self._keeper.result()  # an unexpected error ended it, so nothing would ever connect again
        await self._connected.wait()
        if self._producer is None:
            raise ProducerClosed
        return self._producer

    def _replace_if_broken(self, error: ClientError) -> None:
        if isinstance(error, SEQUENCE_LOST) or (self._producer and self._producer.broken):
            self._connected.clear()
            self._problem = BrokerUnavailable("broker_unavailable", "The producer is broken and is being replaced.")
            self._broken.set()

    def _unavailable(self, topic: TopicName, why: str) -> BrokerUnavailable:
        seconds = self._settings.ack_timeout_seconds
        message = f"{topic}: {why}; the record may or may not have been written (within {seconds:g} s)."
        if self._problem is None:
            return BrokerUnavailable("broker_unavailable", message)
        return BrokerUnavailable(self._problem.code, f"{message} {self._problem.message}")

    async def _keep_connected(self) -> None:
        while True:
            try:
                self._producer = await self._connect()
            except (BrokerUnavailable, FatalError) as error:
                # an unusable certificate may be in the middle of its rotation
                self._problem = error
                log.warning("connection_failed", component="publisher", code=error.code, message=error.message)
                await asyncio.sleep(_RECONNECT)
                continue
            self._problem = None
            self._broken.clear()
            self._connected.set()
            await self._until_broken(self._producer)
            log.error("producer_replaced")
            producer, self._producer = self._producer, None
            await producer.close(0)

    def _ended(self, keeper: asyncio.Task[None]) -> None:
        """Record why the publisher no longer connects: only an unexpected error ends the task that connects."""
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None:
            name = type(error).__name__
            self._problem = FatalError("publisher_failed", f"The publisher ended by {name}; restart this process.")
            log.error("publisher_failed", error=name, exc_info=error)

    async def _until_broken(self, producer: Producer) -> None:
        watch = asyncio.create_task(self._watch(producer))
        watch.add_done_callback(lambda _: self._broken.set())
        try:
            await self._broken.wait()
        finally:
            watch.cancel()
            await asyncio.wait([watch])
        if not watch.cancelled():
            watch.result()  # it never returns, so this raises an unexpected error

    async def _watch(self, producer: Producer) -> None:
        """Check every few seconds whether a broker answers. Publications do not wait for it."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if await producer.reachable(_ANSWER_WITHIN):
                if self._problem is not None:
                    log.info("connection_restored", component="publisher")
                self._problem = None
                continue
            if self._problem is None:
                self._problem = BrokerUnavailable("broker_unavailable", "No broker answers any more.")
            cause = await find_cause(self._settings)
            if cause is not None and (cause.code, cause.message) != (self._problem.code, self._problem.message):
                self._problem = cause
                log.warning("connection_lost", component="publisher", code=cause.code, message=cause.message)


def _appended_ms(appended: Appended) -> int | None:
    """Return the broker's time of an append, or None if the broker does not return it."""
    timestamp = appended.timestamp
    known = appended.timestamp_type == _APPEND_TIME and timestamp is not None and timestamp >= _FIRST_MS
    return timestamp if known else None


def _expire(waiter: asyncio.Future[Appended]) -> None:
    waiter.set_exception(TimeoutError())

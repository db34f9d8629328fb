"""What tests of group members need: topics of their own, a handler that takes notes, a member that runs a while."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

from support.brokers import Broker, make_topics

from pipeline.contracts import TOPICS, OutgoingRecord, Record, Topic
from pipeline.kafka import (
    ConsumerSettings,
    DeadLetters,
    GroupClientFactory,
    KafkaSettings,
    KeyedConsumer,
    Publisher,
    Runner,
)
from pipeline.kafka.protocols import Lease
from pipeline.observability import Metrics

TOPIC = Topic.BATCH_REQUESTED


async def fresh_settings(broker: Broker, **changes: Any) -> KafkaSettings:
    prefix = f"t-{uuid.uuid4().hex[:12]}."
    settings = KafkaSettings(
        bootstrap_servers=broker.bootstrap_servers,
        topic_prefix=prefix,
        group_prefix=prefix,
        replication_factor=1,
        ack_timeout_seconds=10.0,
        **changes,
    )
    if broker.kind == "apache":
        await make_topics(settings, [spec for spec in TOPICS if "-events." not in spec.topic])
    return settings


class Notebook:
    """A handler that records its calls, and behaves as the test says."""

    def __init__(self, act: Callable[[Record, Lease], Coroutine[Any, Any, None]] | None = None) -> None:
        self.arrived: list[Record] = []
        self.handled: list[Record] = []
        self.done: list[Record] = []
        self.act = act

    async def arrive(self, record: Record) -> None:
        self.arrived.append(record)

    async def handle(self, record: Record, lease: Lease) -> None:
        self.handled.append(record)
        await lease.ensure()
        if self.act:
            await self.act(record, lease)
        self.done.append(record)

    def values(self) -> list[bytes]:
        return [record.value for record in self.done]


class Arriving(Protocol):
    """A handler with both callbacks."""

    async def arrive(self, record: Record) -> None: ...

    async def handle(self, record: Record, lease: Lease) -> None: ...


def keyed_consumer(
    handler: Arriving,
    kafka: KafkaSettings,
    settings: ConsumerSettings,
    publisher: Publisher,
    connect: GroupClientFactory | None = None,
) -> KeyedConsumer:
    """A member of the group ``process`` that reads announcements."""
    return KeyedConsumer(
        handler.handle,
        on_arrival=handler.arrive,
        dead_letters=DeadLetters(publisher, group="process", metrics=Metrics()),
        group="process",
        topics=[TOPIC],
        kafka=kafka,
        settings=settings,
        connect=connect,
    )


def outgoing(key: str, value: bytes, topic: Topic = TOPIC) -> OutgoingRecord:
    return OutgoingRecord(topic, key, value, (("ce_id", value),))


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until something has become true; fail after so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(runner: Runner) -> AsyncIterator[asyncio.Task[None]]:
    """Run a member; stop it at the end and let its error out."""
    task = asyncio.create_task(runner.run())
    try:
        yield task
        runner.stop()
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])

"""A subscriber with typed events, beside the loop that one writes with aiokafka alone.

Both read the same topic of Apache Kafka from its beginning, each time in a fresh group, until the last event was
handled; the handler counts. Ours decodes each body into its model, leaves repeats out, keeps the order per key, commits
what is finished. The peer fetches, reads JSON and commits after each fetch. What one event costs is measured, not how
long it takes to join a group.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer

from pipeline.contracts import SPECS, EventHeaders, OutgoingRecord, Topic
from pipeline.contracts.weavr import BY_PATH
from pipeline.kafka import KafkaPublisher, KafkaSettings
from pipeline.kafka.admin import create_topics
from pipeline.sandbox.weavr import SendPlan, SigningKeys, mix
from pipeline.subscriber import Event, Subscriber, SubscriberSettings

EVENTS = 40_000
_TOPIC = Topic.EVENTS_MANAGED_CARDS
_AT_ONCE = 200


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return one row of (ours, peer): events per second."""
    from support.brokers import running_apache_kafka  # noqa: PLC0415 - found once the tests' folder is on the path

    with running_apache_kafka() as broker:
        kafka = KafkaSettings(
            bootstrap_servers=broker.bootstrap_servers, replication_factor=1, ack_timeout_seconds=30.0
        )
        return {
            "subscriber, typed: events/s, peer bare aiokafka loop": asyncio.run(
                _measure(kafka, rounds, int(EVENTS * scale))
            )
        }


async def _measure(kafka: KafkaSettings, rounds: int, events: int) -> list[tuple[float, float]]:
    await create_topics(kafka, [SPECS[_TOPIC]])
    await _fill(kafka, events)
    await _ours(kafka, events)
    return [(await _ours(kafka, events), await _peer(kafka, events)) for _ in range(rounds)]


async def _fill(kafka: KafkaSettings, events: int) -> None:
    now_ms = time.time_ns() // 1_000_000
    plan = SendPlan(count=events, weights=mix({"managed_cards/*": 1}))
    waiting: list[OutgoingRecord] = []
    async with KafkaPublisher(kafka) as publisher:
        for event in plan.events("bench", SigningKeys(b"key"), now_ms=now_ms):
            kind, body = BY_PATH[event.path], json.loads(event.body)
            key = kind.key("bench", body)
            headers = EventHeaders(
                id=event.ce_id,
                source="/webhooks/weavr/bench",
                type=kind.type,
                subject=kind.subject(body),
                time=datetime.now(UTC),
                partition_key=key,
                dataschema=kind.dataschema,
            )
            waiting.append(OutgoingRecord(_TOPIC, key, event.body, headers.encode(_stored(event.headers))))
            if len(waiting) == _AT_ONCE:
                await asyncio.gather(*map(publisher.publish, waiting))
                waiting.clear()
        await asyncio.gather(*map(publisher.publish, waiting))


def _stored(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    return ((name, value.encode()) for name, value in headers if name != "content-type")


class _Count:
    """Counts events; times from the first to the last."""

    def __init__(self, events: int) -> None:
        self.events = events
        self.seen = 0
        self.began = 0.0

    def one(self) -> bool:
        """Count one; return whether it was the last."""
        if not self.seen:
            self.began = time.perf_counter()
        self.seen += 1
        return self.seen == self.events

    def per_second(self) -> float:
        """Return events per second."""
        return self.events / (time.perf_counter() - self.began)


async def _ours(kafka: KafkaSettings, events: int) -> float:
    group = f"bench-{uuid.uuid4().hex}"
    settings = SubscriberSettings(signals=False)
    subscriber = Subscriber(kafka=kafka, group=group, topics=["managed-cards"], settings=settings)
    await create_topics(kafka, subscriber.topics_needed())
    count = _Count(events)
    reached = 0.0

    @subscriber.on_any
    async def handle(_event: Event[Any]) -> None:
        nonlocal reached
        if count.one():
            reached = count.per_second()
            subscriber.stop()

    async with asyncio.timeout(120):
        await subscriber.run()
    return reached


async def _peer(kafka: KafkaSettings, events: int) -> float:
    consumer = AIOKafkaConsumer(
        _TOPIC.value,
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=f"bench-{uuid.uuid4().hex}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    count = _Count(events)
    try:
        async with asyncio.timeout(120):
            while True:
                for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
                    for record in records:
                        json.loads(record.value)
                        if count.one():
                            return count.per_second()
                await consumer.commit()
    finally:
        await consumer.stop()

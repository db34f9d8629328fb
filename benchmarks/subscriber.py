"""A subscriber and ``events verify``, compared with loops that use only aiokafka.

All read the same topic of Apache Kafka from its beginning until the last event, the subscriber and its peer each time
in a fresh group. The subscriber's handler counts. It leaves repeats out, keeps the order per key and commits what is
finished; typed, it reads each body into its model, raw, into plain JSON. Its peer fetches, reads JSON and commits after
each fetch. Both are measured from the moment when they are in their group: how long it takes to join is left out, what
they fetch before the first event is not. ``events verify`` verifies what is stored as the command does; its peer
computes one HMAC for each record and compares it.

The cost growth is the CPU time of one event of this topic, beside that of one event of a topic with a tenth of them.

The objects of the benchmark itself are kept out of the garbage collection, which both sides share with it.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import hmac
import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from pipeline.cli.event_verification import EventVerifier, Result, verify_all
from pipeline.cli.source_view import configured
from pipeline.contracts import INTEGRATION_HEADER, PATH_HEADER, SPECS, EventHeaders, OutgoingRecord, Topic
from pipeline.contracts.weavr import BY_PATH
from pipeline.kafka import KafkaPublisher, KafkaSettings, tail
from pipeline.kafka.admin import create_topics
from pipeline.sandbox.weavr import SendPlan, SigningKeys, mix
from pipeline.settings import load_settings
from pipeline.subscriber import Event, Subscriber, SubscriberSettings

EVENTS: Final = 40_000
TYPED: Final = "subscriber, typed: events/s / bare loop that parses JSON"
RAW: Final = "subscriber, raw JSON: events/s / bare loop that parses JSON"
VERIFY: Final = "events verify: records/s / bare loop with one HMAC"
GROWTH: Final = "cost growth: CPU per event at 10 x load"
FLOORS: Final[dict[str, float]] = {TYPED: 0.35, RAW: 0.45, VERIFY: 0.4}
CEILINGS: Final[dict[str, float]] = {GROWTH: 1.3}
TARGETS: Final[dict[str, float]] = {TYPED: 0.6, RAW: 0.8, VERIFY: 0.5, GROWTH: 1.1}

_TOPIC: Final = Topic.EVENTS_MANAGED_CARDS
_SMALL_TOPIC: Final = Topic.EVENTS_MANAGED_ACCOUNTS
"""Has a tenth of the events. It has half as many partitions."""
_AT_ONCE: Final = 200
_KEY: Final = b"a-key-of-the-benchmark"

Rows = dict[str, list[tuple[float, float]]]


def measure(rounds: int, scale: float = 1.0) -> Rows:
    """Return rows of (ours, peer): events or records per second; of the growth, CPU seconds per event."""
    from support.brokers import running_apache_kafka  # noqa: PLC0415 - found once the tests' folder is on the path

    with running_apache_kafka() as broker, tempfile.TemporaryDirectory() as folder:
        kafka = KafkaSettings(
            bootstrap_servers=broker.bootstrap_servers, replication_factor=1, ack_timeout_seconds=30.0
        )
        return asyncio.run(_measure(kafka, Path(folder), rounds, max(100, int(EVENTS * scale))))


async def _measure(kafka: KafkaSettings, folder: Path, rounds: int, events: int) -> Rows:
    await create_topics(kafka, [SPECS[_TOPIC], SPECS[_SMALL_TOPIC]])
    await _fill(kafka, _TOPIC, events)
    await _fill(kafka, _SMALL_TOPIC, events // 10)
    verifier = _verifier(folder)
    await _ours(kafka, events, raw=False)
    gc.collect()
    gc.freeze()
    rows: Rows = {TYPED: [], RAW: [], VERIFY: [], GROWTH: []}
    for _ in range(rounds):
        typed = await _ours(kafka, events, raw=False)
        peer = await _peer(kafka, events)
        raw = await _ours(kafka, events, raw=True)
        tenth = await _ours(kafka, events // 10, raw=False, topic=_SMALL_TOPIC)
        rows[TYPED].append((typed.per_second, peer.per_second))
        rows[RAW].append((raw.per_second, peer.per_second))
        rows[GROWTH].append((typed.cost, tenth.cost))
        rows[VERIFY].append((await _verify(kafka, verifier, events), await _hmac_peer(kafka, events)))
    return rows


async def _fill(kafka: KafkaSettings, topic: Topic, events: int) -> None:
    now_ms = time.time_ns() // 1_000_000
    plan = SendPlan(count=events, weights=mix({"managed_cards/*": 1}))
    waiting: list[OutgoingRecord] = []
    async with KafkaPublisher(kafka) as publisher:
        for event in plan.events("bench", SigningKeys(_KEY), now_ms=now_ms):
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
            ours = ((INTEGRATION_HEADER, b"bench"), (PATH_HEADER, event.path.encode()))
            waiting.append(OutgoingRecord(topic, key, event.body, headers.encode((*ours, *_stored(event.headers)))))
            if len(waiting) == _AT_ONCE:
                await asyncio.gather(*map(publisher.publish, waiting))
                waiting.clear()
        await asyncio.gather(*map(publisher.publish, waiting))


def _stored(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    return ((name, value.encode()) for name, value in headers if name != "content-type")


def _verifier(folder: Path) -> EventVerifier:
    (folder / "key").write_bytes(_KEY)
    (folder / "key").chmod(0o600)
    (folder / "pipeline.toml").write_text('[weavr.bench]\nsecrets = [{ file = "key" }]\n')
    return EventVerifier(configured(load_settings(folder / "pipeline.toml", {}), secrets=True))


class _Count:
    """Counts events; times from the beginning to the last."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._seen = 0
        self._began = self._cpu_began = 0.0
        self.per_second = self.cost = 0.0

    def begin(self) -> None:
        """Begin to time."""
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    def one(self) -> bool:
        """Count an event; return whether it was the last."""
        self._seen += 1
        if self._seen < self._events:
            return False
        self.per_second = self._events / (time.perf_counter() - self._began)
        self.cost = (time.process_time() - self._cpu_began) / self._events
        return True


async def _ours(kafka: KafkaSettings, events: int, *, raw: bool, topic: Topic = _TOPIC) -> _Count:
    settings = SubscriberSettings(signals=False)
    subscriber = Subscriber(kafka=kafka, group=_group(), topics=[topic.value], settings=settings)
    await create_topics(kafka, subscriber.topics_needed())
    count = _Count(events)

    @subscriber.on_any(raw=raw)
    async def handle(_event: Event[Any]) -> None:
        if count.one():
            subscriber.stop()

    async def begin() -> None:
        while not subscriber.ready:  # noqa: ASYNC110 - a subscriber has no event for it
            await asyncio.sleep(0.001)
        count.begin()

    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        group.create_task(begin())
        await subscriber.run()
    return count


async def _peer(kafka: KafkaSettings, events: int) -> _Count:
    count = _Count(events)
    async with _consumer(kafka, _TOPIC.value, group_id=_group()) as consumer, asyncio.timeout(300):
        count.begin()
        await _until_the_last(consumer, lambda record: json.loads(record.value), count, commit=True)
    return count


async def _verify(kafka: KafkaSettings, verifier: EventVerifier, events: int) -> float:
    began = time.perf_counter()
    records = tail(kafka, [_TOPIC], since="earliest", follow=False, missing=print)
    async with asyncio.timeout(300):
        report = await verify_all(records, verifier)
    if report.counts[Result.VERIFIED] != events:
        raise SystemExit(f"not every event was verified: {report.document()['failures']}")
    return events / (time.perf_counter() - began)


async def _hmac_peer(kafka: KafkaSettings, events: int) -> float:
    def check(record: Any) -> None:
        headers = dict(record.headers)
        message = headers.get("call-ref", b"") + record.value + headers["published-timestamp"]
        digest = base64.b64encode(hmac.digest(_KEY, message, "sha256"))
        if not hmac.compare_digest(digest, headers["signature-v2"]):
            raise SystemExit("not every event was verified by the peer")

    began = time.perf_counter()
    async with _consumer(kafka) as consumer, asyncio.timeout(300):
        partitions = [TopicPartition(_TOPIC.value, number) for number in range(SPECS[_TOPIC].partitions)]
        consumer.assign(partitions)
        await _until_the_last(consumer, check, _Count(events), commit=False)
    return events / (time.perf_counter() - began)


async def _until_the_last(consumer: Any, work: Callable[[Any], object], count: _Count, *, commit: bool) -> None:
    while True:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
            for record in records:
                work(record)
                if count.one():
                    return
        if commit:
            await consumer.commit()


@asynccontextmanager
async def _consumer(kafka: KafkaSettings, *topics: str, **options: Any) -> Any:
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=kafka.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **options,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def _group() -> str:
    return f"bench-{uuid.uuid4().hex}"

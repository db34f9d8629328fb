"""100,000 events through two ingress processes on Apache Kafka, while a broker and an ingress are killed."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
from support.brokers import Broker, make_topics
from support.flow_process import FlowProcess
from support.members import until

from pipeline.contracts import TOPICS, Record, first_values
from pipeline.kafka import KafkaSettings, read_topic
from pipeline.sandbox import weavr_snippet
from pipeline.sandbox.weavr import (
    Entry,
    Event,
    Pace,
    Sender,
    SendPlan,
    SigningKeys,
    expected_id,
    order_findings,
)
from pipeline.sandbox.weavr.sending import poster, wall_clock

EVENTS: Final = 100_000
PLAN: Final = SendPlan(count=EVENTS, repeats=0.05, out_of_order=0.01, new_fields=0.05, broken=0.002, entities=2000)
PACE: Final = Pace(connections=64, compress_retries=1000)
"""Weavr's last repetition comes 13 seconds after the one before it: an outage of some seconds loses nothing."""
SPECS: Final = [spec for spec in TOPICS if spec.topic.startswith("card-events.") or spec.topic == "audit.events"]
QUARANTINES: Final = ("card-events.quarantine", "card-events.stepup.quarantine")

_SETTINGS: Final = """\
[kafka]
bootstrap_servers = "{servers}"
topic_prefix = "{prefix}"
replication_factor = 1
[ingress]
port = 0
drain_seconds = 0
[management]
port = 0
[logging]
level = "warning"
"""


@dataclass
class Delivered:
    """What the topics hold.

    Attributes:
        topics: Topic of each ``ce_id``.
        offsets: Offset of its first record.
        quarantined: Ids of what quarantine holds.
    """

    topics: dict[str, str] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    quarantined: set[str] = field(default_factory=set)

    def add(self, record: Record) -> None:
        """Count a record, and check that it has the sender's id."""
        headers = first_values(record.headers)
        ident = headers["ce_id"]
        if record.topic in QUARANTINES:
            self.quarantined.add(ident)
        else:
            reference = headers.get("call-ref", headers.get("request-ref", ""))
            told = expected_id(
                "acme", headers["pipeline_path"], reference, record.value, headers["published-timestamp"]
            )
            assert ident == told
            assert self.topics.setdefault(ident, record.topic) == record.topic
            self.offsets.setdefault(ident, record.offset)


@dataclass
class Ingresses:
    """Two ingress processes without a proxy: the sender tries one and the other in turn."""

    config: Path
    running: list[FlowProcess] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    async def start(self, number: int) -> None:
        """Start one, on the port that it had before."""
        port = self.urls[number].rpartition(":")[2] if number < len(self.urls) else "0"
        base = self.config.parent / f"ingress-{number}-{uuid.uuid4().hex[:6]}"
        process = FlowProcess(
            "ingress", ["--config", str(self.config), "ingress"], base, {"PIPELINE_INGRESS__PORT": port}
        )
        ready = await process.ready()
        if number < len(self.urls):
            self.running[number] = process
        else:
            self.running.append(process)
            self.urls.append(ready["url"])

    def kill(self, number: int) -> None:
        """Kill one."""
        self.running[number].kill()


@asynccontextmanager
async def ingresses(config: Path) -> AsyncIterator[Ingresses]:
    """Run two."""
    both = Ingresses(config)
    try:
        for number in (0, 1):
            await both.start(number)
        yield both
        assert await asyncio.gather(*(one.stop() for one in both.running)) == [0, 0]
    finally:
        for one in both.running:
            one.kill()


async def test_what_was_answered_2xx_is_there_and_in_order(apache_kafka: Broker, tmp_path: Path) -> None:
    """An answer is a promise, whatever dies: 2xx is in its topic, 4xx is not, 503 may be under its repeat's id."""
    kafka = KafkaSettings(
        bootstrap_servers=apache_kafka.bootstrap_servers,
        topic_prefix=f"t-{uuid.uuid4().hex[:12]}.",
        replication_factor=1,
    )
    await make_topics(kafka, SPECS)
    snippet = weavr_snippet("acme", folder=tmp_path / "secrets")
    config = tmp_path / "pipeline.toml"
    general = _SETTINGS.format(servers=kafka.bootstrap_servers, prefix=kafka.topic_prefix)
    config.write_text(general + snippet.toml)
    keys = SigningKeys(snippet.key_file.read_bytes(), snippet.next_key_file.read_bytes(), EVENTS // 2)

    entries: list[Entry] = []
    async with ingresses(config) as both, aiohttp.ClientSession() as session:
        sender = Sender(_alternating(session, both.urls), PACE, entries.append, clock=wall_clock())
        disturbing = asyncio.create_task(_disturb(sender, apache_kafka, both))
        events = PLAN.events("acme", keys, now_ms=round(wall_clock()() * 1000))
        totals = await sender.send(events)
        await disturbing

    assert len(entries) == EVENTS
    assert totals.findings == [] or {entry.outcomes[-1] for entry in entries if entry.finding()} == {"given up"}
    delivered = Delivered()
    for spec in SPECS[:-1]:
        async for record in read_topic(kafka, spec.topic):
            delivered.add(record)
    _check(entries, delivered)


def _check(entries: list[Entry], delivered: Delivered) -> None:
    by_id = {entry.ce_id: entry for entry in entries}
    known = {ident for ident, entry in by_id.items() if entry.expected == "accepted"}
    assert set(delivered.topics) <= known, "no record but of what was sent rightly"
    accepted = [entry for entry in entries if entry.expected == "accepted" and entry.accepted]
    assert len(accepted) > EVENTS * 0.95
    wrong_partition = {
        entry.ce_id: entry.category
        for entry in accepted
        if delivered.topics.get(entry.ce_id) != f"card-events.{entry.category}"
    }
    assert wrong_partition == {}
    kept = [entry for entry in entries if entry.expected == "quarantined" and entry.accepted]
    assert len(delivered.quarantined) == len(kept) > 0
    refused = {entry.ce_id for entry in entries if "refused" in entry.outcomes}
    assert refused
    assert refused & set(delivered.topics) == set()
    assert order_findings(accepted, delivered.offsets) == []
    # the disturbances happened: some were answered 503 or not at all, and came again
    statuses = [attempt.status for entry in accepted for tries in entry.deliveries for attempt in tries]
    assert 503 in statuses
    assert None in statuses


def _alternating(session: aiohttp.ClientSession, urls: list[str]) -> Callable[[Event], Awaitable[int | None]]:
    posts = [poster(session, f"{url}/webhooks/weavr/acme", timeout_seconds=30) for url in urls]
    turns = itertools.count()

    async def post(event: Event) -> int | None:
        return await posts[next(turns) % len(posts)](event)

    return post


async def _disturb(sender: Sender, broker: Broker, both: Ingresses) -> None:
    """Kill the broker after a third of the events, and an ingress after two thirds; each comes back."""
    await until(lambda: sender.totals.events >= EVENTS // 3, 600)
    await asyncio.to_thread(broker.stop)
    await asyncio.sleep(1)
    await asyncio.to_thread(broker.start)
    await until(lambda: sender.totals.events >= 2 * EVENTS // 3, 600)
    both.kill(0)
    await asyncio.sleep(1)
    await both.start(0)


def test_the_topics_of_all_categories_are_read() -> None:
    categories: Mapping[str, float] = PLAN.weights
    assert len(categories) == 32
    assert len(SPECS) == 18 + len(QUARANTINES) + 1

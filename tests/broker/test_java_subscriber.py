"""The Java subscriber of ``examples/`` on Apache Kafka: it keeps the repeat rule, also after ``kill -9``."""

from __future__ import annotations

import asyncio
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

from support.brokers import Broker
from support.java_subscriber import java_subscriber, running
from support.members import fresh_settings

from pipeline.contracts import EventHeaders, OutgoingRecord, Record, Topic, event_id, event_topic, first_values
from pipeline.contracts.weavr import BY_PATH
from pipeline.kafka import KafkaPublisher, KafkaSettings, read_topic
from pipeline.kafka.admin import create_topics
from pipeline.sandbox.weavr.bodies import body_of
from pipeline.subscriber.window import RepeatWindow

__all__ = ["java_subscriber"]

TOPIC: Final = Topic.EVENTS_MANAGED_CARDS
KIND: Final = BY_PATH["/managed_cards/authorisations/watch"]
RECEIVED: Final = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
PARTITIONS: Final = 4
EVENTS: Final = 3000
REPEATED: Final = 150
IN_FLIGHT: Final = 100
"""As in Subscriber.java."""
BEFORE_THE_KILL: Final = 1000


async def test_each_event_is_handled_and_no_repeat_is_but_for_those_in_flight_at_a_kill(
    apache_kafka: Broker, java_subscriber: Path
) -> None:
    kafka = await fresh_settings(apache_kafka)
    await create_topics(kafka, [event_topic(TOPIC, "cards", "card", partitions=PARTITIONS)])
    await _publish(kafka)
    log = [record async for record in read_topic(kafka, TOPIC)]
    ids = [first_values(record.headers)["ce_id"] for record in log]
    assert (len(ids), len({*ids})) == (EVENTS + REPEATED, EVENTS)

    def run() -> tuple[list[str], list[str]]:
        where = {"bootstrap": kafka.bootstrap_servers, "group": f"{kafka.group_prefix}java"}
        topic = f"{kafka.topic_prefix}{TOPIC}"
        with running(java_subscriber, **where, topic=topic, idle=60) as subscriber:
            killed = subscriber.handled(BEFORE_THE_KILL) + subscriber.kill()
        with running(java_subscriber, **where, topic=topic, idle=15) as subscriber:
            after = subscriber.handled()
            assert subscriber.wait() == 0
        return killed, after

    before, after = await asyncio.to_thread(run)
    assert (len(before), len(after)) == (len({*before}), len({*after}))
    assert {*before} | {*after} == {*ids}
    assert {*before} & {*after} <= {*before[-IN_FLIGHT:]}
    assert _repeated_after(log, {*before[:-IN_FLIGHT]}, {*after}) > 0
    assert _in_order(log, before)
    assert _in_order(log, after)


def test_its_window_says_what_the_python_one_says(java_subscriber: Path) -> None:
    rng = Random(5)  # noqa: S311 - the same each time
    records, milliseconds = 50, 2000
    log = [(f"id{rng.randrange(40)}", 3 * at + rng.randrange(3), 100 * at + rng.randrange(400)) for at in range(2000)]
    window = RepeatWindow(milliseconds / 1000, records)
    expected = [str(window.repeats(name.encode(), offset, time)).lower() for name, offset, time in log]

    classpath = f"{java_subscriber}/classes:{java_subscriber}/test-classes"
    command = ["java", "-cp", classpath, "example.subscriber.RepeatWindowLines", str(records), str(milliseconds)]
    lines = "".join(f"{name} {offset} {time}\n" for name, offset, time in log)
    told = subprocess.run(command, check=True, input=lines, stdout=subprocess.PIPE, text=True).stdout.split()
    assert told == expected
    assert {*told} == {"true", "false"}


async def _publish(kafka: KafkaSettings) -> None:
    """Events of 60 cards; some are repeated many records later, or at the very end."""
    rng = Random(1)  # noqa: S311 - the same each time
    events = [_event(rng, number) for number in range(EVENTS)]
    log = list(events)
    for number in rng.sample(range(EVENTS), REPEATED):
        log.insert(log.index(events[number]) + rng.choice((rng.randrange(200, 400), EVENTS)), events[number])
    async with KafkaPublisher(kafka) as publisher:
        for at in range(0, len(log), 100):
            await asyncio.gather(*map(publisher.publish, log[at : at + 100]))


def _event(rng: Random, number: int) -> OutgoingRecord:
    body = body_of(KIND.path, rng, fields="required", entity=str(10**18 + number % 60))
    value = json.dumps(body).encode()
    key = KIND.key("acme", body)
    headers = EventHeaders(
        id=event_id("acme", KIND.path, f"call-{number}", value),
        source="/webhooks/weavr/acme",
        type=KIND.type,
        subject=KIND.subject(body),
        time=RECEIVED,
        partition_key=key,
        dataschema=KIND.dataschema,
    )
    return OutgoingRecord(TOPIC, key, value, headers.encode())


def _repeated_after(log: list[Record], before: set[str], after: set[str]) -> int:
    """Return how many ids that were handled before the kill appear again after a newly handled one."""
    reached: set[int] = set()
    found = 0
    for record in log:
        name = first_values(record.headers)["ce_id"]
        if name in after:
            reached.add(record.partition)
        found += name in before and record.partition in reached
    return found


def _in_order(log: list[Record], handled: list[str]) -> bool:
    """Whether the events of each partition were handled in the order of their first occurrences."""
    position: dict[str, tuple[int, int]] = {}
    for record in log:
        position.setdefault(first_values(record.headers)["ce_id"], (record.partition, record.offset))
    positions = [position[name] for name in handled]
    return all(
        [off for at, off in positions if at == partition] == sorted(off for at, off in positions if at == partition)
        for partition in range(PARTITIONS)
    )

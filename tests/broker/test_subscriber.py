"""What a subscriber promises, on real brokers and with real ends of processes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from support.brokers import Broker
from support.flow_process import run_cli
from support.members import fresh_settings, running, until
from support.subscriber_bench import Notes, count
from support.subscriber_process import subscriber_process

from pipeline.contracts import SPECS, EventHeaders, OutgoingRecord, Record, Topic, event_id
from pipeline.errors import FatalError
from pipeline.kafka import KafkaPublisher, KafkaSettings, read_back, read_topic, topic_bounds
from pipeline.kafka.admin import create_topics
from pipeline.settings.refusals import toml_value
from pipeline.subscriber import Event, Poison, Subscriber, SubscriberSettings, dead_letter_topics

TOPIC: Final = Topic.EVENTS_FEES
SPAN: Final = 20
SETTINGS: Final = SubscriberSettings(
    session_timeout_seconds=6.0,
    commit_interval_seconds=0.2,
    retry={"first_seconds": 0.05, "max_seconds": 0.1},
    fetch_wait_seconds=0.05,
    max_span=SPAN,
    concurrency=4,
    stop_grace_seconds=2.0,
    signals=False,
)
IN_PROCESS: Final = SETTINGS.model_copy(update={"signals": True})
Position = tuple[int, int]


@pytest.fixture
async def kafka(broker: Broker) -> KafkaSettings:
    """Settings with topics that no other test has; the group's name is the topic prefix and ``fraud``."""
    return await _prepared(broker)


@pytest.fixture
async def apache(apache_kafka: Broker) -> KafkaSettings:
    """The same on Apache Kafka alone: the embedded broker allows one member per group."""
    return await _prepared(apache_kafka)


async def test_after_kill_9_every_event_is_handled_and_only_what_was_in_flight_twice(kafka: KafkaSettings) -> None:
    """The log holds repeats before and behind the position of the crash."""
    events = await _publish(kafka, _with_repeats(400))
    group = _group(kafka)
    with subscriber_process(kafka, group, TOPIC, IN_PROCESS) as first:
        await until(lambda: len(first.handled()) >= 150, 60)
        first.process.kill()
        first.process.wait()
        before = first.handled()
    committed = await _committed(kafka, group)
    with subscriber_process(kafka, group, TOPIC, IN_PROCESS) as second:
        expected = {ident for _, ident in _firsts(events)}
        await until(lambda: {ident for *_, ident in before + second.handled()} == expected, 90)
        second.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(second.process.wait, 20) == 0
        after = second.handled()
    assert await _committed(kafka, group) == _ends(events)
    handled = Counter((partition, offset) for partition, offset, _ in before + after)
    assert set(handled) == {position for position, _ in _firsts(events)}  # no repeat was handled
    again = [position for position, times in handled.items() if times > 1]
    assert max(handled.values()) <= 2
    assert [
        (partition, offset) for partition, offset in again if not _in_flight(offset, committed.get(partition, 0))
    ] == []
    _assert_in_order(events, [(partition, offset) for partition, offset, _ in before + after])


async def test_members_that_join_and_leave_handle_every_event_and_no_repeat(apache: KafkaSettings) -> None:
    """Rebalances: twice at most what was in flight of a partition that moved; a kept partition forgets nothing."""
    group = _group(apache)
    handled: list[tuple[int, int, str]] = []

    async def act(event: Event[Any]) -> None:
        await asyncio.sleep(0.005)
        handled.append((event.partition, event.offset, event.id))

    events = _with_repeats(900)
    published = asyncio.create_task(_publish(apache, events, pause=0.05))
    first, second = _subscriber(apache, Notes(act)), _subscriber(apache, Notes(act))
    async with running(first):
        await until(lambda: len(handled) > 100, 60)
        async with running(second):
            await until(lambda: second.ready and len(handled) > 400, 60)
        log = await published
        await until(lambda: {ident for *_, ident in handled} == {ident for _, ident in _firsts(log)}, 60)
    times = Counter((partition, offset) for partition, offset, _ in handled)
    assert set(times) == {position for position, _ in _firsts(log)}
    left = count(first, "consumer_left_uncommitted_total") + count(second, "consumer_left_uncommitted_total")
    assert sum(times.values()) - len(times) <= left
    assert await _committed(apache, group) == _ends(log)


async def test_poison_goes_to_the_groups_dead_letters_and_the_rest_goes_on(kafka: KafkaSettings) -> None:
    async def act(event: Event[Any]) -> None:
        if event.id == "id-3":
            raise ValueError("what the event holds")

    notes = Notes(act)
    await _publish(kafka, [(f"id-{number}", "card/1") for number in range(6)])
    async with running(_subscriber(kafka, notes)):
        await until(lambda: len(notes.done) == 5, 60)
    letters = [letter async for letter in read_topic(kafka, f"{_group(kafka)}.dead-letter")]
    headers = dict(letters[0].headers)
    assert len(letters) == 1
    assert (headers["ce_id"], headers["dlq_code"], headers["dlq_attempts"]) == (b"id-3", b"attempts_exhausted", b"5")
    assert (headers["dlq_topic"], headers["dlq_group"]) == (TOPIC.encode(), _group(kafka).encode())
    assert notes.ids() == ["id-0", "id-1", "id-2", "id-4", "id-5"]
    assert sum((await _committed(kafka, _group(kafka))).values()) == 6


async def test_a_loop_that_is_stopped_has_committed_what_it_finished(kafka: KafkaSettings) -> None:
    await _publish(kafka, [(f"id-{number}", "card/1") for number in range(5)])
    seen = []
    for last in ("id-1", "id-4"):
        subscriber = Subscriber(kafka=kafka, group=_group(kafka), topics=[TOPIC], settings=SETTINGS)
        async for event in subscriber:
            seen.append(event.id)
            if event.id == last:
                subscriber.stop()
    assert seen == [f"id-{number}" for number in range(5)]


async def test_a_replayed_dead_letter_is_handled_by_its_group_alone(kafka: KafkaSettings, tmp_path: Path) -> None:
    """By the command, while both groups run: once, although the group had the event, and however often it is given."""
    fixed = asyncio.Event()

    async def act(event: Event[Any]) -> None:
        if event.id == "id-3" and not fixed.is_set():
            raise Poison("no such account")

    notes, others = Notes(act), Notes()
    config = tmp_path / "pipeline.toml"
    written = "\n".join(f"{name} = {toml_value(value)}" for name, value in kafka.model_dump(exclude_unset=True).items())
    config.write_text(f'[kafka]\n{written}\n[store]\nkind = "local"\npath = {toml_value(str(tmp_path / "store"))}\n')

    async def command(*arguments: str) -> list[dict[str, Any]]:
        code, said = await run_cli("--config", str(config), "dead-letters", *arguments, "--json", seconds=150)
        assert code == 0, said
        return [json.loads(line) for line in said.splitlines()]

    group, other = _group(kafka), _group(kafka) + "-2"
    await _publish(kafka, [(f"id-{number}", "card/1") for number in range(6)])
    async with (
        running(_subscriber(kafka, notes)),
        running(_subscriber(kafka, others, group=other)),
    ):
        await until(lambda: (len(notes.done), len(others.done)) == (5, 6), 60)
        (letter,) = await command("list", "--group", group)
        assert (letter["code"], letter["key"], letter["state"]) == ("handler_poison", "card/1", "open")
        fixed.set()
        replay = ("replay", "--group", group, "--yes", "--reason", "fixed")
        assert [line["replayed"] for line in await command(*replay)] == [True]
        assert await command(*replay) == []
        await _publish(kafka, [("id-6", "card/1")])
        await until(lambda: (len(notes.done), len(others.done)) == (7, 7), 60)
        assert await command("list", "--group", group) == []
    assert notes.ids() == ["id-0", "id-1", "id-2", "id-4", "id-5", "id-3", "id-6"]
    assert others.ids() == [f"id-{number}" for number in range(7)]


async def test_a_missing_dead_letter_topic_is_named_and_not_made(apache_kafka: Broker) -> None:
    """Kafka would make it on first use, with a retention that step-up challenges must not have."""
    kafka = await fresh_settings(apache_kafka)
    await create_topics(kafka, [SPECS[Topic.EVENTS_STEPUP]])
    for _ in range(2):
        subscriber = Subscriber(kafka=kafka, group="fraud", topics=["stepup", "fees"], settings=SETTINGS)
        subscriber.on_any(Notes())
        with pytest.raises(FatalError) as raised:
            await subscriber.run()
        prefix = kafka.topic_prefix
        missing = f"{prefix}card-events.fees, {prefix}fraud.dead-letter, {prefix}fraud.stepup.dead-letter"
        assert missing in raised.value.message


async def test_a_window_is_read_back_so_many_offsets_and_not_more(kafka: KafkaSettings) -> None:
    """To the beginning where there are fewer; nothing before the first record."""
    await _publish(kafka, [(f"id-{number}", "card/1") for number in range(30)])
    log = [record async for record in read_topic(kafka, TOPIC)]
    assert await _offsets_before(kafka, log[20], most=5) == [15, 16, 17, 18, 19]
    assert await _offsets_before(kafka, log[20], most=100) == list(range(20))
    assert await _offsets_before(kafka, log[0], most=100) == []
    assert await _offsets_before(kafka, log[20], most=0) == []


async def test_a_window_leaves_out_what_is_older_than_its_time(apache: KafkaSettings) -> None:
    """Only as far as the broker keeps times; the rule itself looks at each record's time."""
    await _publish(apache, [(f"id-{number}", "card/1") for number in range(5)])
    await asyncio.sleep(1.5)
    await _publish(apache, [(f"id-{number}", "card/1") for number in range(5, 10)])
    log = [record async for record in read_topic(apache, TOPIC)]
    assert await _offsets_before(apache, log[-1], most=100, milliseconds=1000) == [5, 6, 7, 8]


# what the tests publish, and what the rule makes of it


def _with_repeats(number: int) -> list[tuple[str, str]]:
    """Ids and keys of 20 cards; every eighth event is repeated up to 60 events later."""
    rng = Random(7)  # noqa: S311 - the same each time
    events = [(f"id-{one}", f"card/{one % 20}") for one in range(number)]
    for at in range(number - 8, 0, -8):
        events.insert(min(len(events), at + rng.randint(1, 60)), events[at])
    return events


async def _publish(kafka: KafkaSettings, events: Iterable[tuple[str, str]], pause: float = 0.0) -> list[Record]:
    """Publish events in order, and return the whole topic."""
    async with KafkaPublisher(kafka) as publisher:
        for number, (ident, key) in enumerate(events):
            headers = EventHeaders(
                id=ident,
                source="/webhooks/weavr/acme",
                type="acme.fee",
                subject=key,
                time=datetime(2026, 1, 22, 12, tzinfo=UTC),
                partition_key=key,
            )
            value = b'{"number": "%s"}' % event_id(ident).encode()
            await publisher.publish(OutgoingRecord(TOPIC, key, value, headers.encode()))
            if pause and number % 10 == 0:
                await asyncio.sleep(pause)
    return [record async for record in read_topic(kafka, TOPIC)]


def _firsts(log: Sequence[Record]) -> list[tuple[Position, str]]:
    """Where each event stands first. All of the test is within the window."""
    found: dict[tuple[int, bytes], Position] = {}
    for record in log:
        found.setdefault((record.partition, dict(record.headers)["ce_id"]), (record.partition, record.offset))
    return [(position, ident.decode()) for (_, ident), position in found.items()]


def _ends(log: Sequence[Record]) -> dict[int, int]:
    return {record.partition: record.offset + 1 for record in log}


def _in_flight(offset: int, committed: int) -> bool:
    return committed <= offset < committed + SPAN


def _assert_in_order(log: Sequence[Record], handled: Sequence[Position]) -> None:
    """The first handlings of each key have the order of the log."""
    keys = {(record.partition, record.offset): record.key for record in log}
    for key in set(keys.values()):
        mine = [position for position in dict.fromkeys(handled) if keys[position] == key]
        assert mine == sorted(mine)


async def _offsets_before(
    kafka: KafkaSettings, first: Record, *, most: int, milliseconds: int = 3_600_000
) -> list[int]:
    return [record.offset async for record in read_back(kafka, first, most=most, milliseconds=milliseconds)]


async def _committed(kafka: KafkaSettings, group: str) -> dict[int, int]:
    """Ask as a member would: the embedded broker answers no admin."""
    partitions = await topic_bounds(kafka, TOPIC)
    client = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, group_id=group, enable_auto_commit=False)
    await client.start()
    try:
        positions = {number: TopicPartition(kafka.topic_prefix + TOPIC, number) for number in partitions}
        found = {number: await client.committed(position) for number, position in positions.items()}
    finally:
        await client.stop()
    return {number: offset for number, offset in found.items() if offset}


def _group(kafka: KafkaSettings) -> str:
    return kafka.topic_prefix + "fraud"


def _subscriber(kafka: KafkaSettings, notes: Notes, *, group: str | None = None) -> Subscriber:
    made = Subscriber(kafka=kafka, group=group or _group(kafka), topics=["fees"], settings=SETTINGS)
    made.on_any(notes)
    return made


async def _prepared(broker: Broker) -> KafkaSettings:
    kafka = await fresh_settings(broker)
    if broker.kind == "apache":
        groups = (_group(kafka), _group(kafka) + "-2")
        letters = [spec for group in groups for spec in dead_letter_topics(group, [TOPIC])]
        await create_topics(kafka, [SPECS[TOPIC], SPECS[Topic.AUDIT_EVENTS], *letters])
    return kafka

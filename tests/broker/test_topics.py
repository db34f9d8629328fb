from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from support.brokers import Broker
from support.members import TOPIC, Notebook, fresh_settings, keyed_consumer, outgoing, running, until

from pipeline.contracts import TOPICS, Topic
from pipeline.errors import FatalError
from pipeline.kafka import (
    Bounds,
    BrokerUnavailable,
    ConsumerSettings,
    KafkaPublisher,
    KafkaSettings,
    Names,
    TopicMissing,
    read_topic,
    topic_bounds,
)
from pipeline.kafka.admin import check_topics, create_topics, topic_table


async def test_topics_are_created_once_and_pass_the_check(apache_kafka: Broker) -> None:
    """The check finds no difference in created topics, and a second run changes nothing."""
    settings = await fresh_settings(apache_kafka)
    await create_topics(settings)
    assert [result.created for result in await create_topics(settings)] == [False] * len(TOPICS)
    assert await check_topics(settings) == []


async def test_missing_topics_are_found_and_created(apache_kafka: Broker) -> None:
    settings = (await fresh_settings(apache_kafka)).model_copy(update={"topic_prefix": "other.", "topics": {}})
    assert {(finding.rule, finding.breaks) for finding in await check_topics(settings)} == {("missing", True)}
    try:
        assert all(result.created for result in await create_topics(settings))
        assert await check_topics(settings) == []
    finally:
        await _delete(settings)


async def test_differences_from_the_table_are_named(apache_kafka: Broker) -> None:
    """Fewer partitions, shorter retention, compaction break a promise; more of something is only reported."""
    settings = (await fresh_settings(apache_kafka)).model_copy(update={"topic_prefix": "wrong."})
    names = Names(settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    configs = {"retention.ms": "1000", "cleanup.policy": "compact", "max.message.bytes": "20000000"}
    answer = await admin.create_topics(
        [
            NewTopic(names.topic(Topic.AUDIT_EVENTS), 2, 1, topic_configs=configs),
            NewTopic(names.topic(Topic.AUDIT_DEAD_LETTER), 3, 1, topic_configs={"retention.ms": "-1"}),
        ]
    )
    assert [code for _, code, _ in answer.topic_errors] == [0, 0], answer.topic_errors
    made = {names.topic(Topic.AUDIT_EVENTS), names.topic(Topic.AUDIT_DEAD_LETTER)}
    while not made <= set(await admin.list_topics()):  # noqa: ASYNC110 - creation is acknowledged before all brokers know
        await asyncio.sleep(0.1)
    await admin.close()
    strict = settings.model_copy(update={"replication_factor": 3})
    try:
        found = {(one.name, one.rule): (one.expected, one.found, one.breaks) for one in await check_topics(strict)}
    finally:
        await _delete(settings)
    events, letters = names.topic(Topic.AUDIT_EVENTS), names.topic(Topic.AUDIT_DEAD_LETTER)
    assert {key: value for key, value in found.items() if key[1] != "missing"} == {
        (events, "partitions"): ("6", "2", True),
        (events, "replication"): ("3", "1", True),
        (events, "min.insync.replicas"): ("2", "1", True),
        (events, "retention.ms"): (str(7 * 86_400_000), "1000", True),
        (events, "cleanup.policy"): ("delete", "compact", True),
        (events, "max.message.bytes"): ("1016384", "20000000", False),
        (events, "compression.type"): ("uncompressed", "producer", True),
        (events, "message.timestamp.type"): ("LogAppendTime", "CreateTime", False),
        (letters, "partitions"): ("1", "3", False),
        (letters, "replication"): ("3", "1", True),
        (letters, "min.insync.replicas"): ("2", "1", True),
        (letters, "retention.ms"): (str(30 * 86_400_000), "-1", False),
        (letters, "max.message.bytes"): ("1016384", "1048588", False),
        (letters, "compression.type"): ("uncompressed", "producer", True),
    }


async def test_topics_that_the_broker_made_by_itself_are_found(apache_kafka: Broker) -> None:
    """Another program's client asked for one before `topics create`: 4 partitions, other settings, and exit 1."""
    settings = (await fresh_settings(apache_kafka)).model_copy(update={"topic_prefix": "auto."})
    name = Names(settings).topic(Topic.BATCH_REQUESTED)
    foreign = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await foreign.start()
    await foreign.send_and_wait(name, b"v")
    await foreign.stop()
    try:
        results = {one.name: one for one in await create_topics(settings)}
        found = {one.rule: (one.expected, one.found, one.breaks) for one in results[name].findings}
        assert not results[name].created
        assert found["partitions"] == ("12", "4", True)
        assert found["retention.ms"] == (str(3 * 86_400_000), str(7 * 86_400_000), False)
        assert found["compression.type"] == ("uncompressed", "producer", True)
        others = [one for one in results.values() if one.name != name]
        assert all(one.created for one in others)
        assert [one.findings for one in others] == [()] * len(others)
    finally:
        await _delete(settings)


async def test_a_member_that_starts_before_its_topics_waits_and_makes_none(apache_kafka: Broker) -> None:
    """The broker would create them on first use; the member names what is missing, and begins when it is there."""
    settings = (await fresh_settings(apache_kafka)).model_copy(update={"topic_prefix": "late."})
    book = Notebook()
    async with KafkaPublisher(settings) as publisher:
        member = keyed_consumer(book, settings, ConsumerSettings(session_timeout_seconds=6.0), publisher)
        async with running(member):
            await until(lambda: "kafka_topic_missing" in member.condition)
            assert "late.card-batch.requested" in member.condition
            assert not member.ready
            with pytest.raises(TopicMissing):
                await publisher.publish(outgoing("k", b"early"))
            assert {one.rule for one in await check_topics(settings)} == {"missing"}
            try:
                await create_topics(settings)
                await until(lambda: member.ready)
                await publisher.publish(outgoing("k", b"v"))
                await until(lambda: book.values() == [b"v"])
                assert await check_topics(settings) == []
            finally:
                member.stop()
                await _delete(settings)


async def test_a_cluster_that_refuses_is_quoted(apache_kafka: Broker) -> None:
    """The test asks for more replicas than there are brokers."""
    settings = (await fresh_settings(apache_kafka)).model_copy(
        update={"topic_prefix": "refused.", "replication_factor": 3}
    )
    with pytest.raises(FatalError, match="replication"):
        await create_topics(settings)


async def _delete(settings: KafkaSettings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    await admin.delete_topics([Names(settings).topic(topic) for topic in Topic])
    await admin.close()


async def test_admin_calls_end_where_they_cannot_succeed(embedded_broker: Broker) -> None:
    """The embedded broker has no admin calls; a missing broker is unavailable."""
    with pytest.raises(FatalError, match="admin_unsupported"):
        await create_topics(
            KafkaSettings(bootstrap_servers=embedded_broker.bootstrap_servers, request_timeout_seconds=1.0)
        )
    with pytest.raises(BrokerUnavailable):
        await check_topics(KafkaSettings(bootstrap_servers="127.0.0.1:1"))


def test_the_table_is_exported_for_other_tools() -> None:
    """As JSON, with real names."""
    table = json.loads(json.dumps(topic_table(KafkaSettings(bootstrap_servers="b:9092", topic_prefix="prod."))))
    assert [row["name"] for row in table] == ["prod." + spec.topic for spec in TOPICS]
    assert table[0]["configs"] == {
        "cleanup.policy": "delete",
        "retention.ms": str(3 * 86_400_000),
        "min.insync.replicas": "2",
        "max.message.bytes": "1016384",
        "compression.type": "uncompressed",
        "message.timestamp.type": "LogAppendTime",
    }
    assert (table[0]["partitions"], table[0]["replication_factor"], table[0]["sensitive"]) == (12, 3, True)


async def test_a_topic_is_read_in_ranges(kafka: KafkaSettings, publisher: KafkaPublisher) -> None:
    """The reader returns only the existing records of the given partition and offsets."""
    positions = [await publisher.publish(outgoing("k", b"%d" % number)) for number in range(10)]
    partition = positions[0].partition

    there = await topic_bounds(kafka, TOPIC)
    assert there[partition] == Bounds(0, 10)
    assert all(bounds == Bounds(0, 0) for number, bounds in there.items() if number != partition)

    asked = {partition: Bounds(3, 6), partition + 1: Bounds(0, 5), 99: Bounds(0, 5)}
    read = [record async for record in read_topic(kafka, TOPIC, ranges=asked)]
    assert [(record.offset, record.value) for record in read] == [(3, b"3"), (4, b"4"), (5, b"5")]
    assert read[0].timestamp_ms > 1_700_000_000_000


async def test_an_empty_topic_reads_as_nothing(kafka: KafkaSettings, publisher: KafkaPublisher) -> None:
    await publisher.publish(outgoing("k", b"elsewhere"))
    assert [record async for record in read_topic(kafka, Topic.BATCH_QUARANTINE)] == []


async def test_reading_ends_where_it_cannot_succeed() -> None:
    with pytest.raises(BrokerUnavailable):
        await topic_bounds(KafkaSettings(bootstrap_servers="127.0.0.1:1"), TOPIC)


def test_the_embedded_broker_as_a_process_prints_its_address_and_stops_on_a_signal() -> None:
    """One JSON line on stdout, exit 0 on SIGTERM, also without a standard input."""
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.kafka.embedded_process"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["ready"] == "embedded-broker"
        assert ready["bootstrap_servers"].startswith("127.0.0.1:")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_the_embedded_broker_does_not_outlive_its_parent() -> None:
    """With --until-eof, it ends together with its standard input."""
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline.kafka.embedded_process", "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(timeout=10) == 0

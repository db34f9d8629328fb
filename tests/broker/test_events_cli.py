"""`pipeline events` on Apache Kafka, because the embedded broker has no real times and describes no groups."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.brokers import Broker
from support.logging_state import logging_restored
from support.members import TOPIC, Notebook, fresh_settings, keyed_consumer, outgoing, running, until

from pipeline.cli.root import cli
from pipeline.contracts import INTEGRATION_HEADER, PATH_HEADER, TOPICS, EventHeaders, OutgoingRecord, Topic, TopicName
from pipeline.errors import FatalError
from pipeline.kafka import (
    ConsumerSettings,
    GroupBusy,
    GroupUnknown,
    KafkaPublisher,
    KafkaSettings,
    Names,
    TopicUnknown,
)
from pipeline.kafka.admin import create_topics
from pipeline.kafka.groups import plan_rewind, rewind
from pipeline.kafka.reader import tail

__all__ = ["logging_restored"]


@pytest.fixture
async def kafka(apache_kafka: Broker) -> KafkaSettings:
    """Topics and groups of this test's own, on Apache Kafka alone."""
    return await fresh_settings(apache_kafka)


def _fail(topic: TopicName) -> None:
    raise AssertionError(topic)


async def _handled(kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher, count: int) -> list[bytes]:
    """Run a member of the group until it has handled so many."""
    notebook = Notebook()
    consumer = keyed_consumer(notebook, kafka, quick, publisher)
    async with running(consumer):
        await until(lambda: len(notebook.done) >= count)
    return notebook.values()


async def test_topics_are_read_in_the_order_of_arrival(kafka: KafkaSettings, publisher: KafkaPublisher) -> None:
    """Across topics and partitions, from a time in the middle, without making the topics that are not there."""
    values = []
    half = datetime.now(UTC)
    for number in range(40):
        if number == 20:
            await asyncio.sleep(0.01)
            half = datetime.now(UTC)
        topic = Topic.BATCH_COMPLETED if number % 3 else Topic.BATCH_FAILED
        await publisher.publish(outgoing(f"k{number}", b"%d" % number, topic))
        values.append(b"%d" % number)
        await asyncio.sleep(0.002)
    topics = [Topic.BATCH_COMPLETED, Topic.BATCH_FAILED]

    everything = tail(kafka, topics, since="earliest", follow=False, missing=_fail)
    assert [record.value async for record in everything] == values
    later = tail(kafka, topics, since=half, follow=False, missing=_fail)
    assert [record.value async for record in later] == values[20:]
    missing: list[TopicName] = []
    nothing = tail(kafka, ["webhook-events.none"], since="earliest", follow=False, missing=missing.append)
    assert [record.value async for record in nothing] == []
    assert missing == ["webhook-events.none"]


async def test_the_embedded_broker_is_read_from_a_time_on_too(embedded_broker: Broker) -> None:
    """It cannot look up times, so its partitions are searched: neither too much nor nothing is read."""
    kafka = await fresh_settings(embedded_broker)
    times = []
    async with KafkaPublisher(kafka) as publisher:
        for number in range(40):
            times.append(datetime.now(UTC))
            topic = Topic.BATCH_COMPLETED if number % 3 else Topic.BATCH_FAILED
            await publisher.publish(outgoing(f"k{number}", b"%d" % number, topic))
            await asyncio.sleep(0.002)
    topics = [Topic.BATCH_COMPLETED, Topic.BATCH_FAILED]
    for first in (0, 20, 39):
        records = tail(kafka, topics, since=times[first], follow=False, missing=_fail)
        assert [record.value async for record in records] == [b"%d" % number for number in range(first, 40)]
    late = tail(kafka, topics, since=datetime.now(UTC) + timedelta(hours=1), follow=False, missing=_fail)
    assert [record.value async for record in late] == []


def test_events_since_a_time_are_verified_on_the_embedded_broker(
    embedded_broker: Broker, tmp_path: Path, logging_restored: None
) -> None:
    """`events tail` and `verify` show what is there, instead of nothing with exit 0."""
    del logging_restored
    kafka = asyncio.run(fresh_settings(embedded_broker))
    file = tmp_path / "pipeline.toml"
    file.write_text(
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\ntopic_prefix = "{kafka.topic_prefix}"\n'
    )

    async def publish() -> None:
        async with KafkaPublisher(kafka) as publisher:
            await publisher.publish(outgoing("k", b"{}", Topic.EVENTS_FEES))

    def run(command: str, since: str, *more: str) -> Result:
        options = ["--topic", "fees", "--since", since, "--json", *more]
        return CliRunner().invoke(cli, ["--config", str(file), "events", command, *options])

    asyncio.run(publish())
    assert json.loads(run("tail", "1h", "--no-follow").stdout)["topic"] == Topic.EVENTS_FEES
    assert json.loads(run("verify", "1h").stdout)["checked"] == 1
    later = datetime.now(UTC).isoformat()
    assert run("tail", later, "--no-follow").stdout == ""
    assert json.loads(run("verify", later).stdout)["checked"] == 0


async def test_following_brings_what_comes(kafka: KafkaSettings, publisher: KafkaPublisher) -> None:
    await publisher.publish(outgoing("k", b"before"))
    records = tail(kafka, [TOPIC, Topic.BATCH_FAILED], since="latest", follow=True, missing=_fail)
    async with aclosing(records):
        first = asyncio.ensure_future(anext(records))
        while not first.done():  # the reader begins at some moment that only it knows
            await publisher.publish(outgoing("k", b"after"))
            await asyncio.sleep(0.1)
        assert first.result().value == b"after"


async def test_a_stopped_group_goes_on_from_where_it_was_put(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """By a time, then to the beginning, then to the end; the plan changes nothing."""
    for number in range(3):
        await publisher.publish(outgoing("k", b"%d" % number))
    await asyncio.sleep(0.01)
    moment = datetime.now(UTC)
    for number in range(3, 6):
        await publisher.publish(outgoing("k", b"%d" % number))
    assert len(await _handled(kafka, quick, publisher, 6)) == 6

    plan = await plan_rewind(kafka, "process", moment)
    assert {(move.committed, move.becomes, move.again) for move in plan.moves if move.again} == {(6, 3, 3)}
    assert (plan.group, len(plan.moves)) == (Names(kafka).group("process"), 12)
    assert await plan_rewind(kafka, "process", moment) == plan
    assert await rewind(kafka, "process", moment) == plan
    assert await _handled(kafka, quick, publisher, 3) == [b"3", b"4", b"5"]

    await rewind(kafka, "process", "earliest", topics=[TOPIC])
    assert await _handled(kafka, quick, publisher, 6) == [b"%d" % number for number in range(6)]

    await rewind(kafka, "process", "earliest")
    await rewind(kafka, "process", "latest")
    await publisher.publish(outgoing("k", b"new"))
    assert await _handled(kafka, quick, publisher, 1) == [b"new"]


async def test_the_embedded_broker_knows_no_group(embedded_broker: Broker) -> None:
    with pytest.raises(FatalError, match="admin_unsupported"):
        await plan_rewind(await fresh_settings(embedded_broker), "process", "earliest")


async def test_a_group_at_work_is_not_moved(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    await publisher.publish(outgoing("k", b"0"))
    await _handled(kafka, quick, publisher, 1)
    consumer = keyed_consumer(Notebook(), kafka, quick, publisher)
    async with running(consumer):
        await until(lambda: consumer.ready)
        with pytest.raises(GroupBusy, match="1 live member"):
            await rewind(kafka, "process", "earliest")


async def test_what_is_not_there_is_named(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    await publisher.publish(outgoing("k", b"0"))
    await _handled(kafka, quick, publisher, 1)
    with pytest.raises(GroupUnknown):
        await plan_rewind(kafka, "nobody", "earliest")
    with pytest.raises(TopicUnknown):
        await plan_rewind(kafka, "process", datetime.now(UTC) - timedelta(days=1), topics=["webhook-events.none"])


SETTINGS = """
[kafka]
bootstrap_servers = "{servers}"
topic_prefix = "{prefix}"
group_prefix = "{prefix}"
replication_factor = 1

[weavr.acme]
secrets = [{{ file = "key" }}]
"""
KEY = b"synthetic-api-key"
LOGIN = (
    b'{"credential": {"id": "1", "type": "root_users"}, "type": "LOGIN", "status": "VERIFIED", '
    b'"publishedTimestamp": "1769121839000"}'
)


@pytest.fixture
def home(apache_kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KafkaSettings:
    """A working directory whose settings lead to topics of this test's own."""
    settings = asyncio.run(fresh_settings(apache_kafka))
    asyncio.run(create_topics(settings, [spec for spec in TOPICS if spec.topic == Topic.EVENTS_LOGIN]))
    text = SETTINGS.format(servers=settings.bootstrap_servers, prefix=settings.topic_prefix)
    (tmp_path / "pipeline.toml").write_text(text)
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    return settings


def _login(call_ref: bytes) -> OutgoingRecord:
    """Return the record of a signed login that has just been received."""
    at = datetime.now(UTC)
    published = b"%d" % round(at.timestamp() * 1000)
    signature = base64.b64encode(hmac.digest(KEY, call_ref + LOGIN + published, hashlib.sha256))
    headers = EventHeaders(
        id=call_ref.decode(),
        source="/webhooks/weavr/acme",
        type="weavr.login",
        subject="credential/1",
        time=at,
        partition_key="acme/credential/1",
    ).encode(
        (
            (INTEGRATION_HEADER, b"acme"),
            (PATH_HEADER, b"/login/watch"),
            ("call-ref", call_ref),
            ("published-timestamp", published),
            ("signature-v2", signature),
        )
    )
    return OutgoingRecord(Topic.EVENTS_LOGIN, "acme/credential/1", LOGIN, headers)


async def _publish(settings: KafkaSettings, *records: OutgoingRecord) -> None:
    async with KafkaPublisher(settings) as publisher:
        for one in records:
            await publisher.publish(one)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["events", *arguments], prog_name="pipeline")


@pytest.mark.usefixtures("logging_restored")
def test_the_commands_on_a_cluster(home: KafkaSettings) -> None:
    """`tail` shows the published events, and `verify` proves all but the changed one."""
    good, bad = _login(b"ref-1"), replace(_login(b"ref-2"), value=LOGIN + b" ")
    asyncio.run(_publish(home, good))
    told = _run("tail", "--topic", "login", "--no-follow", "--json")
    assert [json.loads(line)["ce_id"] for line in told.stdout.splitlines()] == ["ref-1"]
    assert _run("verify", "--topic", "login").exit_code == 0

    asyncio.run(_publish(home, bad))
    proved = _run("verify", "--topic", "login", "--json")
    report = json.loads(proved.stdout)
    assert (proved.exit_code, report["checked"], report["verified"]) == (1, 2, 1)
    assert [(one["topic"], one["offset"], one["reason"]) for one in report["failures"]] == [
        ("card-events.login", 1, "not_verified")
    ]
    missing = _run("tail", "--no-follow", "--json")
    assert (missing.exit_code, len(missing.stdout.splitlines())) == (0, 2)
    assert "this cluster has no topic card-events.fees" in missing.stderr
    assert _run("rewind", "--group", "nobody", "--to", "earliest").exit_code == 1

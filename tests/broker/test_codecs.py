"""Records in every codec are read; a batch that cannot be decoded stops its reader until it is skipped on purpose."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from support.brokers import Broker
from support.members import TOPIC, Notebook, keyed_consumer, outgoing, running, until

from pipeline.contracts import OutgoingRecord, Topic
from pipeline.kafka import (
    BatchUndecodable,
    ConsumerSettings,
    KafkaPublisher,
    KafkaSettings,
    Names,
    Partition,
    SkipRefused,
    read_topic,
)
from pipeline.kafka.admin import create_topics
from pipeline.kafka.client import records
from pipeline.kafka.client.admin import NewTopic, open_topics
from pipeline.kafka.groups import plan_skip, skip
from pipeline.subscriber import Event, Subscriber

EVENTS: Final = Topic.EVENTS_FEES


@pytest.fixture
async def kafka(apache_kafka: Broker) -> KafkaSettings:
    """A cluster whose topics keep batches as their producers compressed them."""
    prefix = f"t-{uuid.uuid4().hex[:12]}."
    settings = KafkaSettings(
        bootstrap_servers=apache_kafka.bootstrap_servers,
        topic_prefix=prefix,
        group_prefix=prefix,
        replication_factor=1,
        ack_timeout_seconds=10.0,
    )
    async with open_topics(settings) as cluster:
        await cluster.create_topics(
            [
                NewTopic(Names(settings).topic(topic), 2, 1, {"compression.type": "producer"})
                for topic in (TOPIC, Topic.BATCH_DEAD_LETTER, EVENTS)
            ]
        )
    return settings


@pytest.fixture
async def publisher(kafka: KafkaSettings) -> AsyncIterator[KafkaPublisher]:
    async with KafkaPublisher(kafka) as made:
        yield made


@pytest.fixture
def codecs(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The codecs of all batches that are read."""
    seen: set[int] = set()
    original = records._Batches.next_batch

    def next_batch(batches: records._Batches) -> Any:
        batch = original(batches)
        seen.add(batch.compression_type)
        return batch

    monkeypatch.setattr(records._Batches, "next_batch", next_batch)
    return seen


@pytest.mark.parametrize(("codec", "number"), [("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)])
async def test_records_in_every_codec_are_read(
    kafka: KafkaSettings, quick: ConsumerSettings, codecs: set[int], codec: str, number: int
) -> None:
    """By a reader, a member and a subscriber."""
    values = [b"%d %s" % (count, b"x" * 1000) for count in range(3)]
    compressing = kafka.model_copy(update={"compression": codec})
    async with KafkaPublisher(compressing) as publisher:
        for value in values:
            await publisher.publish(outgoing("k", value))
            await publisher.publish(_event(value))
        assert [record.value async for record in read_topic(kafka, TOPIC)] == values
        notebook = Notebook()
        async with running(keyed_consumer(notebook, kafka, quick, publisher)):
            await until(lambda: notebook.values() == values)
    assert await _subscribed(kafka, len(values)) == values
    assert codecs == {number}


async def test_a_batch_that_cannot_be_decoded_stops_its_reader_until_it_is_skipped(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """The broker accepts a header name that is not text: records before it are handled, none after it."""
    position = await publisher.publish(outgoing("k", b"before"))
    partition = Partition(TOPIC, position.partition)
    await _append_undecodable(kafka, partition)
    await publisher.publish(outgoing("k", b"behind"))
    notebook = Notebook()
    for _ in range(2):
        with pytest.raises(BatchUndecodable) as caught:
            async with asyncio.timeout(30):
                await keyed_consumer(notebook, kafka, quick, publisher).run()
        assert (caught.value.partition, caught.value.offset, caught.value.next_offset) == (partition.number, 1, 3)
        assert notebook.values() == [b"before"]
    with pytest.raises(BatchUndecodable):
        assert [record.value async for record in read_topic(kafka, TOPIC)] == [b"before"]
    with pytest.raises(SkipRefused, match="is at offset 1, past offset 0"):
        await skip(kafka, "process", partition, 0, reason="a test")

    planned = await plan_skip(kafka, "process", partition, 1)
    assert (planned.committed, planned.becomes, planned.skipped) == (1, 3, 2)
    assert await skip(kafka, "process", partition, 1, reason="a test") == planned
    async with running(keyed_consumer(notebook, kafka, quick, publisher)):
        await until(lambda: notebook.values() == [b"before", b"behind"])
    with pytest.raises(SkipRefused, match="past offset 1: there is nothing to skip"):
        await skip(kafka, "process", partition, 1, reason="a test")


async def test_a_codec_without_its_library_stops_the_reader_and_names_it(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the library is there, nothing was lost."""
    async with KafkaPublisher(kafka.model_copy(update={"compression": "zstd"})) as compressing:
        await compressing.publish(outgoing("k", b"x" * 1000))
    notebook = Notebook()
    with monkeypatch.context() as without:
        without.setattr("aiokafka.codec.has_zstd", lambda: False)
        with pytest.raises(BatchUndecodable, match="Libraries for zstd compression codec not found"):
            async with asyncio.timeout(30):
                await keyed_consumer(notebook, kafka, quick, publisher).run()
    assert notebook.done == []
    async with running(keyed_consumer(notebook, kafka, quick, publisher)):
        await until(lambda: notebook.values() == [b"x" * 1000])


async def _append_undecodable(settings: KafkaSettings, partition: Partition) -> None:
    """Append a batch of two records with a header name that is not UTF-8."""
    producer: Any = AIOKafkaProducer(bootstrap_servers=settings.bootstrap_servers)
    await producer.start()
    try:
        batch = producer.create_batch()
        for value in (b"bad", b"lost"):
            batch.append(key=b"k", value=value, timestamp=None, headers=[("name", b"")])
        build = batch._build

        def spoilt() -> bytes:
            made = bytearray(build()).replace(b"name", b"\xff\xfe\xfd\xfc", 1)
            made[17:21] = calc_crc32c(bytes(made[21:])).to_bytes(4, "big")
            return bytes(made)

        batch._build = spoilt
        sent = await producer.send_batch(batch, Names(settings).topic(partition.topic), partition=partition.number)
        await sent
    finally:
        await producer.stop()


def _event(value: bytes) -> OutgoingRecord:
    return OutgoingRecord(EVENTS, "k", value, (("ce_id", uuid.uuid4().hex.encode()), ("ce_type", b"unknown.type")))


async def _subscribed(settings: KafkaSettings, count: int) -> list[bytes]:
    subscriber = Subscriber(group=f"codecs-{uuid.uuid4().hex[:8]}", topics=[EVENTS], kafka=settings)
    await create_topics(settings, subscriber.topics_needed())
    found: list[bytes] = []

    @subscriber.on_any
    async def keep(event: Event[Any]) -> None:
        found.append(event.raw)
        if len(found) == count:
            subscriber.stop()

    async with asyncio.timeout(30):
        await subscriber.run()
    return found

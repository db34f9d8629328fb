from __future__ import annotations

import asyncio
import time

import pytest
from support.brokers import Broker, running_embedded_broker
from support.members import TOPIC, fresh_settings, outgoing

from pipeline.contracts import OutgoingRecord
from pipeline.errors import Overloaded, PipelineError
from pipeline.kafka import (
    BrokerUnavailable,
    KafkaPublisher,
    KafkaSettings,
    RecordTooLarge,
    read_topic,
    topic_bounds,
)


async def test_records_come_out_as_they_went_in(kafka: KafkaSettings, publisher: KafkaPublisher) -> None:
    """Key, value, headers and positions survive the way through a broker."""
    positions = [await publisher.publish(outgoing(f"key-{number % 3}", b"%d" % number)) for number in range(20)]

    read = [record async for record in read_topic(kafka, TOPIC)]

    assert {(at.partition, at.offset) for at in positions} == {(one.partition, one.offset) for one in read}
    assert {(one.key, one.value, one.headers) for one in read} == {
        (f"key-{number % 3}", b"%d" % number, (("ce_id", b"%d" % number),)) for number in range(20)
    }


async def test_equal_keys_stay_in_order(kafka: KafkaSettings, publisher: KafkaPublisher) -> None:
    """Sends awaited one after another keep their order within a key, others may run between."""
    await asyncio.gather(*(_one_by_one(publisher, f"k{key}") for key in range(8)))

    read = [record async for record in read_topic(kafka, TOPIC)]

    for key in range(8):
        assert [record.value for record in read if record.key == f"k{key}"] == [b"%d" % n for n in range(10)]


async def _one_by_one(publisher: KafkaPublisher, key: str) -> None:
    for number in range(10):
        await publisher.publish(outgoing(key, b"%d" % number))


async def test_the_largest_allowed_record_is_taken(kafka: KafkaSettings, publisher: KafkaPublisher) -> None:
    """max_record_bytes is what the broker really takes."""
    value = b"x" * (kafka.max_record_bytes - 100)

    position = await publisher.publish(OutgoingRecord(TOPIC, "k", value, ()))

    bounds = await topic_bounds(kafka, TOPIC)
    assert bounds[position.partition].end == position.offset + 1


async def test_a_frozen_broker_costs_the_deadline_and_no_more(apache_kafka: Broker) -> None:
    """No answer: BrokerUnavailable in time; the broker thaws: publications work again by themselves."""
    settings = (await fresh_settings(apache_kafka)).model_copy(
        update={"ack_timeout_seconds": 1.0, "request_timeout_seconds": 3.0}
    )
    async with KafkaPublisher(settings) as publisher:
        await _until_published(publisher, b"before")  # a first one has to find the broker, within a short deadline
        apache_kafka.freeze()
        try:
            started = time.monotonic()
            with pytest.raises(BrokerUnavailable):
                await publisher.publish(outgoing("k", b"during"))
            assert 0.9 < time.monotonic() - started < 2.0
        finally:
            apache_kafka.thaw()
        await _until_published(publisher)


async def test_a_killed_broker_comes_back_and_the_publisher_with_it(apache_kafka: Broker) -> None:
    """Connections refused: the deadline holds, the outage's memory is bounded, and later all works again."""
    settings = (await fresh_settings(apache_kafka)).model_copy(
        update={"ack_timeout_seconds": 0.5, "request_timeout_seconds": 3.0}
    )
    async with KafkaPublisher(settings, max_in_flight=3) as publisher:
        await _until_published(publisher, b"before")  # a first one has to find the broker, within a short deadline
        apache_kafka.stop()
        try:
            refused = [await _error(publisher) for _ in range(5)]
        finally:
            apache_kafka.start()
        assert {type(error) for error in refused} == {BrokerUnavailable, Overloaded}
        await _until_published(publisher)
    patient = settings.model_copy(update={"request_timeout_seconds": 30.0})  # other partitions get their leader later
    values = [record.value async for record in read_topic(patient, TOPIC)]
    assert values[0] == b"before"
    assert values[-1] == b"after"


async def test_stopping_without_a_broker_does_not_hang() -> None:
    """The broker never returns, with a record in flight: to leave the block takes about ack_timeout_seconds."""
    with running_embedded_broker() as broker:
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, ack_timeout_seconds=0.5)
        async with KafkaPublisher(settings) as publisher:
            await _until_published(publisher)
            broker.stop()
            with pytest.raises(BrokerUnavailable):
                await publisher.publish(outgoing("k", b"lost"))
            started = time.monotonic()
        assert time.monotonic() - started < 5.0


async def test_it_starts_before_its_broker(apache_kafka: Broker) -> None:
    """A process may come up first: not ready, refusing in time, then ready."""
    settings = (await fresh_settings(apache_kafka)).model_copy(
        update={"ack_timeout_seconds": 0.5, "request_timeout_seconds": 3.0}
    )
    apache_kafka.stop()
    try:
        async with KafkaPublisher(settings) as publisher:
            assert isinstance(await _error(publisher), BrokerUnavailable)
            assert not publisher.ready
            apache_kafka.start()
            await _until_published(publisher)
            assert publisher.ready
    finally:
        if apache_kafka.process and apache_kafka.process.poll() is not None:
            apache_kafka.start()


async def _error(publisher: KafkaPublisher) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        await publisher.publish(outgoing("k", b"during"))
    return caught.value


async def _until_published(publisher: KafkaPublisher, value: bytes = b"after") -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await publisher.publish(outgoing("k", value))
            except (BrokerUnavailable, Overloaded):
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_large_record_costs_none_of_its_neighbours(apache_kafka: Broker) -> None:
    """The topic takes less than ours: only the records that are refused alone fail, and the producer stays."""
    settings = await fresh_settings(apache_kafka, max_record_bytes=10_000)
    ours = settings.model_copy(update={"max_record_bytes": 1_000_000})
    async with KafkaPublisher(ours) as publisher:
        await _until_published(publisher, b"before")
        values = [b"%03d" % number + b"x" * (50_000 if number % 40 == 7 else 1000) for number in range(200)]
        answers = await asyncio.gather(
            *(publisher.publish(outgoing(f"k{number % 2}", value)) for number, value in enumerate(values)),
            return_exceptions=True,
        )
        for key in ("k0", "k1"):
            await publisher.publish(outgoing(key, b"after"))
    errors = {value: answer for value, answer in zip(values, answers, strict=True) if isinstance(answer, BaseException)}
    assert {type(error) for error in errors.values()} == {RecordTooLarge}
    assert list(errors) == [value for value in values if len(value) > 50_000]
    read = [record.value async for record in read_topic(settings, TOPIC)]
    assert sorted(read) == sorted([b"before", *(value for value in values if value not in errors), b"after", b"after"])

"""Records that expired before the group read them: never skipped in silence."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from structlog.testing import capture_logs
from support.brokers import Broker
from support.members import TOPIC, Notebook, fresh_settings, keyed_consumer, outgoing, running, until

from pipeline.kafka import ConsumerSettings, KafkaPublisher, KafkaSettings, KeyedConsumer, Names, RecordsLost


@pytest.fixture
async def kafka(apache_kafka: Broker) -> KafkaSettings:
    return await fresh_settings(apache_kafka)


@pytest.fixture
async def publisher(kafka: KafkaSettings) -> AsyncIterator[KafkaPublisher]:
    async with KafkaPublisher(kafka) as made:
        yield made


@pytest.fixture
async def gap(kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher) -> int:
    """Offset 0 is committed, offsets 1 to 3 are gone, offset 4 is there; the partition."""
    position = await publisher.publish(outgoing("k", b"0"))
    notebook = Notebook()
    async with running(_consumer(notebook, kafka, quick, publisher)):
        await until(lambda: len(notebook.done) == 1)
    for number in range(1, 5):
        await publisher.publish(outgoing("k", b"%d" % number))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.delete_records({TopicPartition(Names(kafka).topic(TOPIC), position.partition): RecordsToDelete(4)})
    await admin.close()
    return position.partition


async def test_lost_records_stop_the_process_by_name(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher, gap: int
) -> None:
    """The error says which offsets of which partition are gone, and nothing is handled behind the gap."""
    notebook = Notebook()
    with pytest.raises(RecordsLost, match=f"partition {gap}: offsets 1 to 3 expired before they were read") as caught:
        await _consumer(notebook, kafka, quick, publisher).run()
    assert (caught.value.first, caught.value.next_kept) == (1, 4)
    assert notebook.done == []


async def test_lost_records_are_reported_where_that_is_asked_for(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher, gap: int
) -> None:
    """With lost_records = "report", a log line names the gap, and work continues after it."""
    notebook = Notebook()
    with capture_logs() as logs:
        async with running(_consumer(notebook, kafka, quick.model_copy(update={"lost_records": "report"}), publisher)):
            await until(lambda: notebook.values() == [b"4"])
    [line] = [line for line in logs if line["event"] == "records_lost"]
    assert (line["partition"], line["first"], line["next"]) == (gap, 1, 4)


def _consumer(
    handler: Notebook, kafka: KafkaSettings, settings: ConsumerSettings, publisher: KafkaPublisher
) -> KeyedConsumer:
    return keyed_consumer(handler, kafka, settings, publisher)

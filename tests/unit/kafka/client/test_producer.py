"""The topics that a producer looks for, on a client whose metadata the test decides."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import pytest
from aiokafka import errors as kafka

from pipeline.kafka import KafkaSettings
from pipeline.kafka.client.connection import connection_options
from pipeline.kafka.client.producer import AioProducer

SETTINGS = KafkaSettings(bootstrap_servers="127.0.0.1:1")


class Client:
    """Answers each update of the metadata with the next of the given sets of topics."""

    def __init__(self, *updates: AbstractSet[str]) -> None:
        self.cluster = self
        self.controller = object()
        self.unauthorized_topics: AbstractSet[str] = frozenset()
        self.asked: set[str] = set()
        self._updates = list(updates)
        self._known: AbstractSet[str] = frozenset()

    def partitions_for_topic(self, name: str) -> set[int] | None:
        return {2, 0, 1} if name in self._known else None

    def add_topic(self, name: str) -> None:
        self.asked.add(name)

    async def force_metadata_update(self) -> bool:
        assert self.asked
        self._known = self._updates.pop(0)
        return True

    async def _wait_on_metadata(self, name: str) -> set[int] | None:
        return self.partitions_for_topic(name)


def producer(client: Client) -> AioProducer:
    made = AioProducer(SETTINGS, connection_options(SETTINGS, client_id="test"))
    made._producer._closed = True  # it was never started
    made._producer.client = client
    return made


@pytest.mark.parametrize("updates", [[{"t"}], [{"other"}, {"other", "t"}]])
async def test_a_topic_is_found_though_another_update_was_under_way(updates: list[set[str]]) -> None:
    """Many topics are looked for at once when a process starts; the client answers them all with one update."""
    made = producer(Client(*updates))
    assert made.known_partitions("t") == []
    assert await made.partitions("t") == [0, 1, 2]
    assert made.known_partitions("t") == [0, 1, 2]


async def test_a_topic_that_is_missing_is_looked_for_twice_and_then_refused() -> None:
    client = Client(set(), set())
    with pytest.raises(kafka.UnknownTopicOrPartitionError):
        await producer(client).partitions("t")
    assert client.asked == {"t"}


async def test_a_topic_without_rights_has_an_error_of_its_own() -> None:
    client = Client(set(), set())
    client.unauthorized_topics = {"t"}
    with pytest.raises(kafka.TopicAuthorizationFailedError):
        await producer(client).partitions("t")

"""What aiokafka says, translated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as kafka
from support.bus_bench import KAFKA, QUICK

from pipeline.contracts import Topic
from pipeline.errors import FatalError
from pipeline.kafka import BrokerUnavailable, RecordsLost
from pipeline.kafka.client.connection import connection_options
from pipeline.kafka.client.group import KafkaGroupClient
from pipeline.kafka.client.records import RAW_KEY, decoded
from pipeline.kafka.protocols import Partition
from pipeline.kafka.reader import missing_topics

NAME = "card-batch.requested"
RAW = TopicPartition(NAME, 3)
PARTITION = Partition(Topic.BATCH_REQUESTED, 3)


class Client:
    """A fake AIOKafkaConsumer: raises or returns what the test says."""

    def __init__(self) -> None:
        self.getmany_result: Any = {}
        self.commit_error: Exception | None = None
        self.committed_offset: int | None = 5
        self.committed_error: Exception | None = None
        self.first, self.end = 7, 9
        self.offsets_error: Exception | None = None
        self.rewound: list[TopicPartition] = []
        self.rewind_error: Exception | None = None
        self.stop_error: Exception | None = None
        self._coordinator = self._fetcher = None
        self._client = SimpleNamespace(close=self._closed_badly)

    async def _closed_badly(self) -> None:
        raise OSError

    async def getmany(self, **_options: int) -> Any:
        if isinstance(self.getmany_result, Exception):
            raise self.getmany_result
        return self.getmany_result

    async def seek_to_beginning(self, raw: TopicPartition) -> bool:
        if self.rewind_error:
            raise self.rewind_error
        self.rewound.append(raw)
        return True

    async def beginning_offsets(self, raws: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.offsets_error:
            raise self.offsets_error
        return dict.fromkeys(raws, self.first)

    async def end_offsets(self, raws: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(raws, self.end)

    async def commit(self, _offsets: Any) -> None:
        if self.commit_error:
            raise self.commit_error

    async def committed(self, _raw: TopicPartition) -> int | None:
        if self.committed_error:
            raise self.committed_error
        return self.committed_offset

    def assignment(self) -> set[TopicPartition]:
        return set()

    async def stop(self) -> None:
        if self.stop_error:
            raise self.stop_error


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
async def group(client: Client) -> KafkaGroupClient:
    return _group(client)


def _group(client: Client, **changes: object) -> KafkaGroupClient:
    settings = QUICK.model_copy(update=changes)
    options = connection_options(KAFKA, client_id="test")
    made = KafkaGroupClient("process", [Topic.BATCH_REQUESTED], KAFKA, settings, options)
    made._consumer._closed = True  # its finalizer would warn
    made._consumer = client
    return made


async def test_records_are_translated(group: KafkaGroupClient, client: Client) -> None:
    raw = SimpleNamespace(
        topic=NAME, partition=3, offset=4, key=b"k", value=None, headers=(("h", None),), timestamp=1_700_000_000_000
    )
    client.getmany_result = {RAW: [raw]}
    [(partition, [record])] = (await group.fetch(10, 0.0)).items()
    assert partition == PARTITION
    assert (record.topic, record.partition, record.offset, record.key) == (Topic.BATCH_REQUESTED, 3, 4, "k")
    assert (record.value, record.headers, record.timestamp_ms) == (b"", (("h", b""),), 1_700_000_000_000)


@pytest.mark.parametrize(
    ("raw", "key", "headers"), [(None, "", ()), (b"", "", ()), (b"\xff", "", ((RAW_KEY, b"\xff"),)), (b"a", "a", ())]
)
def test_a_key_that_is_no_text_is_kept_in_a_header(
    raw: bytes | None, key: str, headers: tuple[tuple[str, bytes], ...]
) -> None:
    assert decoded(raw, ()) == (key, headers)


async def test_a_group_without_offsets_begins_at_the_earliest_record(group: KafkaGroupClient, client: Client) -> None:
    client.getmany_result = kafka.NoOffsetForPartitionError(RAW)
    assert await group.fetch(10, 0.0) == {}
    assert client.rewound == [RAW]
    client.rewind_error = kafka.IllegalStateError("taken away meanwhile")
    assert await group.fetch(10, 0.0) == {}


@pytest.mark.parametrize(
    ("offset", "next_kept", "said"), [(5, 7, "offsets 5 to 6 expired"), (20, 9, "is at offset 20")]
)
async def test_lost_records_are_named(
    group: KafkaGroupClient, client: Client, offset: int, next_kept: int, said: str
) -> None:
    """Retention passed them, or the topic was deleted and created again."""
    client.getmany_result = kafka.OffsetOutOfRangeError({RAW: offset})
    with pytest.raises(RecordsLost, match=said) as caught:
        await group.fetch(10, 0.0)
    assert (caught.value.first, caught.value.next_kept) == (offset, next_kept)
    assert client.rewound == []


async def test_a_broker_that_cannot_say_what_was_lost_is_asked_again_by_the_next_fetch(
    group: KafkaGroupClient, client: Client
) -> None:
    client.getmany_result = kafka.OffsetOutOfRangeError({RAW: 5})
    client.offsets_error = kafka.KafkaTimeoutError("no answer")
    assert await group.fetch(10, 0.0) == {}
    client.offsets_error = None
    with pytest.raises(RecordsLost):
        await group.fetch(10, 0.0)


async def test_lost_records_may_only_be_reported(client: Client) -> None:
    group = _group(client, lost_records="report")
    client.getmany_result = kafka.OffsetOutOfRangeError({RAW: 5})
    assert await group.fetch(10, 0.0) == {}
    assert client.rewound == [RAW]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (kafka.TopicAuthorizationFailedError("t"), "kafka_not_authorized"),
        (kafka.GroupAuthorizationFailedError("g"), "kafka_not_authorized"),
        (kafka.KafkaError("broken"), "kafka_consumer_failed"),
    ],
)
async def test_what_only_a_restart_may_cure_is_fatal(
    group: KafkaGroupClient, client: Client, error: Exception, code: str
) -> None:
    client.getmany_result = error
    with pytest.raises(FatalError, match=code):
        await group.fetch(10, 0.0)


async def test_what_may_pass_is_tried_again(group: KafkaGroupClient, client: Client) -> None:
    client.getmany_result = kafka.KafkaConnectionError()
    assert await group.fetch(10, 0.0) == {}


async def test_a_commit_says_whether_it_was_accepted(group: KafkaGroupClient, client: Client) -> None:
    assert await group.commit({PARTITION: 1})
    for error in (kafka.CommitFailedError(), kafka.IllegalStateError("not assigned"), kafka.KafkaConnectionError()):
        client.commit_error = error
        assert not await group.commit({PARTITION: 1})
    client.commit_error = kafka.GroupAuthorizationFailedError("g")
    with pytest.raises(FatalError, match="commit"):
        await group.commit({PARTITION: 1})


async def test_work_begins_again_at_the_committed_offset_or_the_earliest(
    group: KafkaGroupClient, client: Client
) -> None:
    assert await group.start_offset(PARTITION) == 5
    client.committed_offset = None
    assert await group.start_offset(PARTITION) == 7
    client.committed_error = kafka.KafkaConnectionError()
    assert await group.start_offset(PARTITION) is None


async def test_a_partition_that_is_not_ours_has_no_end(group: KafkaGroupClient) -> None:
    assert group.end(PARTITION) is None
    assert group.membership is None
    assert group.heartbeat_age == float("inf")


@pytest.mark.parametrize("error", [kafka.KafkaError(), OSError(), TimeoutError()])
async def test_closing_never_raises(group: KafkaGroupClient, client: Client, error: Exception) -> None:
    client.stop_error = error
    await group.close(1.0)


async def test_connecting_where_nobody_is_leaves_nothing_behind(free_tasks: Callable[[], int]) -> None:
    before = free_tasks()
    with pytest.raises(BrokerUnavailable, match="refuses the connection"):
        await KafkaGroupClient.connect("process", [Topic.BATCH_REQUESTED], KAFKA, QUICK)
    assert free_tasks() == before


async def test_a_broker_that_names_no_broker_is_not_there_yet(
    monkeypatch: pytest.MonkeyPatch, free_tasks: Callable[[], int]
) -> None:
    """The broker is starting. The client library accepts its answer, and would fail permanently at the next call."""

    class Starting:
        async def send(self, _request: object) -> SimpleNamespace:
            return SimpleNamespace(brokers=[], topics=[])

        async def close(self, reason: object) -> None:
            assert reason

    async def create_conn(*_address: object, **_options: object) -> Starting:
        return Starting()

    monkeypatch.setattr("aiokafka.client.create_conn", create_conn)
    before = free_tasks()
    with pytest.raises(BrokerUnavailable):
        await KafkaGroupClient.connect("process", [Topic.BATCH_REQUESTED], KAFKA, QUICK)
    assert free_tasks() == before
    with pytest.raises(BrokerUnavailable):
        await missing_topics(KAFKA, [Topic.BATCH_REQUESTED])


@pytest.fixture
def free_tasks() -> Callable[[], int]:
    """Count the tasks of the running loop."""
    return lambda: len(asyncio.all_tasks())

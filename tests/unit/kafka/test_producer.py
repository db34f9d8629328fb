from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiokafka import errors as kafka
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from pipeline.contracts import OutgoingRecord, RecordPosition, Topic
from pipeline.errors import FatalError, Overloaded, PipelineError
from pipeline.kafka import BrokerUnavailable, KafkaPublisher, KafkaSettings, RecordTooLarge
from pipeline.kafka.client.producer import DEAD_LETTER_ROOM, Appended, record_size
from pipeline.kafka.settings import TlsSettings
from pipeline.observability import Metrics

SETTINGS = KafkaSettings(bootstrap_servers="127.0.0.1:1", ack_timeout_seconds=0.05)
RECORD = OutgoingRecord(Topic.BATCH_REQUESTED, "k", b"v", ())
REFUSED = BrokerUnavailable("kafka_sasl_refused", "127.0.0.1:1 refuses the credentials of kafka.sasl.")
POSITION = RecordPosition(Topic.BATCH_REQUESTED, 0, 7)


@dataclass(frozen=True)
class Confirmed:
    """The answer of a broker."""

    partition: int = 0
    offset: int = 7
    timestamp: int | None = -1
    timestamp_type: int = 0


class FakeProducer:
    """Confirms, fails or stays silent as the test says."""

    def __init__(self) -> None:
        self.answers: list[Confirmed | Exception | None] = []
        self.refuse: Exception | None = None
        self.silent: list[Callable[[], object]] = []
        self.held: dict[str, int] = {}
        self.begun = True
        self.broken = False
        self.reached = True
        self.closed_within: float | None = None

    def send(self, record: OutgoingRecord, settled: Callable[[], object]) -> asyncio.Future[Appended]:
        assert record.value
        if self.refuse:
            raise self.refuse
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        answer = self.answers.pop(0) if self.answers else Confirmed()
        if answer is None:
            self.silent.append(settled)
            return future
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        asyncio.get_running_loop().call_soon(settled)
        return future

    def drop_abandoned(self) -> None:
        if not self.begun:
            for settled in self.silent:
                settled()
            self.silent = []

    def held_up(self, topic: str) -> int:
        return self.held.get(topic, 0)

    async def reachable(self, within: float) -> bool:
        assert within > 0
        return self.reached

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - as the protocol has it
        self.closed_within = timeout


class Cluster:
    """Gives producers; may refuse."""

    def __init__(self) -> None:
        self.made: list[FakeProducer] = []
        self.errors: list[Exception] = []

    async def connect(self) -> FakeProducer:
        if self.errors:
            raise self.errors.pop(0)
        self.made.append(FakeProducer())
        return self.made[-1]


@asynccontextmanager
async def _publishing(
    cluster: Cluster, settings: KafkaSettings = SETTINGS, metrics: Metrics | None = None
) -> AsyncIterator[KafkaPublisher]:
    async with KafkaPublisher(settings, metrics=metrics, connect=cluster.connect, max_in_flight=3) as publisher:
        yield publisher


async def _error(publisher: KafkaPublisher, record: OutgoingRecord = RECORD) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        await publisher.publish(record)
    return caught.value


async def test_a_confirmed_record_has_its_position() -> None:
    cluster, metrics = Cluster(), Metrics()
    async with _publishing(cluster, metrics=metrics) as publisher:
        before = publisher.ready
        assert await publisher.publish(RECORD) == POSITION
        assert (before, publisher.ready) == (False, True)
    labels = {"topic": "card-batch.requested"}
    assert metrics.registry.get_sample_value("pipeline_publish_seconds_count", labels) == 1
    assert cluster.made[0].closed_within == SETTINGS.ack_timeout_seconds


async def test_silence_ends_at_the_deadline_and_counts_as_in_flight_until_it_is_broken() -> None:
    """An outage holds at most max_in_flight records in memory; a late confirmation frees its place."""
    cluster, metrics = Cluster(), Metrics()
    async with _publishing(cluster, metrics=metrics) as publisher:
        await publisher.publish(RECORD)
        producer = cluster.made[0]
        producer.answers = [None, None, None]
        assert {type(await _error(publisher)) for _ in range(3)} == {BrokerUnavailable}
        assert isinstance(await _error(publisher), Overloaded)
        assert metrics.registry.get_sample_value("pipeline_sends_in_flight") == 3
        producer.silent[0]()
        producer.silent[1]()
        await asyncio.sleep(0)
        assert await publisher.publish(RECORD) == POSITION
        await asyncio.sleep(0)
        assert metrics.registry.get_sample_value("pipeline_sends_in_flight") == 1
        producer.silent[2]()
        assert metrics.registry.get_sample_value("pipeline_sends_in_flight") == 0
    failures = {"topic": "card-batch.requested", "code": "broker_unavailable"}
    assert metrics.registry.get_sample_value("pipeline_publish_failures_total", failures) == 3


async def test_a_topic_that_is_not_confirmed_leaves_room_for_the_others() -> None:
    """A partition without in-sync replicas must not stop all topics."""
    cluster = Cluster()
    other = OutgoingRecord(Topic.AUDIT_EVENTS, "k", b"v", ())
    async with KafkaPublisher(SETTINGS, connect=cluster.connect, max_in_flight=8) as publisher:
        await publisher.publish(RECORD)
        cluster.made[0].answers, cluster.made[0].held = [None, None], {Topic.BATCH_REQUESTED: 2}
        errors = await asyncio.gather(*(_error(publisher) for _ in range(2)))
        assert {type(error) for error in errors} == {BrokerUnavailable}
        refused = await _error(publisher)
        assert (refused.code, type(refused)) == ("sends_in_flight", Overloaded)
        assert "2 records of card-batch.requested wait" in refused.message
        assert (await publisher.publish(other)).topic == Topic.AUDIT_EVENTS
        cluster.made[0].held = {}
        assert await publisher.publish(RECORD) == POSITION


async def test_records_that_are_not_being_sent_yet_leave_at_their_deadline() -> None:
    cluster, metrics = Cluster(), Metrics()
    async with _publishing(cluster, metrics=metrics) as publisher:
        await publisher.publish(RECORD)
        producer = cluster.made[0]
        producer.begun, producer.answers = False, [None, None, None]
        errors = await asyncio.gather(*(_error(publisher) for _ in range(3)))
        assert {type(error) for error in errors} == {BrokerUnavailable}
        assert metrics.registry.get_sample_value("pipeline_sends_in_flight") == 0
        assert await publisher.publish(RECORD) == POSITION


@pytest.mark.parametrize("error", [kafka.MessageSizeTooLargeError(), kafka.RecordListTooLargeError()])
async def test_a_broker_that_takes_less_than_configured_is_distinguished(error: Exception) -> None:
    cluster = Cluster()
    async with _publishing(cluster) as publisher:
        await publisher.publish(RECORD)
        cluster.made[0].answers = [error]
        assert isinstance(await _error(publisher), RecordTooLarge)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (kafka.TopicAuthorizationFailedError("t"), "kafka_not_authorized"),
        (kafka.ClusterAuthorizationFailedError(), "kafka_not_authorized"),
        (kafka.UnknownTopicOrPartitionError(), "kafka_topic_missing"),
        (kafka.NotEnoughReplicasError(), "broker_unavailable"),
    ],
)
async def test_any_other_refusal_is_named_and_may_be_repeated(error: Exception, code: str) -> None:
    """It is never the caller's fault; the producer stays."""
    cluster = Cluster()
    async with _publishing(cluster) as publisher:
        await publisher.publish(RECORD)
        cluster.made[0].refuse = error
        refused = await _error(publisher)
        assert isinstance(refused, BrokerUnavailable)
        assert refused.code == code
        assert "card-batch.requested" in refused.message
        cluster.made[0].refuse = None
        assert await publisher.publish(RECORD) == POSITION
    assert len(cluster.made) == 1


@pytest.mark.parametrize("broken", [False, True])
async def test_a_producer_that_can_never_send_again_is_replaced(broken: bool) -> None:  # noqa: FBT001 - a parameter
    """Its sequence numbers are lost, or its sending task died."""
    cluster = Cluster()
    async with _publishing(cluster) as publisher:
        await publisher.publish(RECORD)
        first = cluster.made[0]
        first.broken = broken
        first.answers = [kafka.KafkaError() if broken else kafka.OutOfOrderSequenceNumber()]
        assert isinstance(await _error(publisher), BrokerUnavailable)
        assert not publisher.ready
        assert await publisher.publish(RECORD) == POSITION
    assert len(cluster.made) == 2
    assert first.closed_within == 0


async def test_it_goes_on_trying_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.kafka.producer._RECONNECT", 0.001)
    cluster = Cluster()
    cluster.errors = [REFUSED, FatalError("kafka_tls_files", "half rotated")]
    async with _publishing(cluster) as publisher:
        assert await publisher.publish(RECORD) == POSITION


async def test_without_a_connection_the_deadline_holds() -> None:
    cluster = Cluster()
    cluster.errors = [REFUSED]
    async with _publishing(cluster) as publisher:
        error = await _error(publisher)
        assert isinstance(error, BrokerUnavailable)
        assert (error.code, publisher.problem) == (REFUSED.code, REFUSED)
        assert REFUSED.message in error.message
    assert isinstance(await _error(publisher), BrokerUnavailable)  # closed


async def test_readiness_follows_the_brokers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It turns when no broker answers any more, with the cause; and back when one does."""
    monkeypatch.setattr("pipeline.kafka.producer._LOOK_EVERY", 0.001)
    cluster = Cluster()
    async with _publishing(cluster) as publisher, asyncio.timeout(5):
        await publisher.publish(RECORD)
        assert _state(publisher) == (True, None)
        cluster.made[0].reached = False
        while "127.0.0.1:1 refuses the connection" not in str(publisher.problem):  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.001)
        assert not publisher.ready
        cluster.made[0].reached = True
        while _state(publisher) != (True, None):  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.001)
    assert not publisher.ready


def _state(publisher: KafkaPublisher) -> tuple[bool, PipelineError | None]:
    return publisher.ready, publisher.problem


async def test_what_ended_the_connecting_for_good_is_raised_by_the_next_publication() -> None:
    """Otherwise every publication would run into its deadline until an operator restarts the process."""
    cluster = Cluster()
    cluster.errors = [ZeroDivisionError("nobody expected it")]
    async with _publishing(cluster) as publisher:
        await asyncio.sleep(0)
        with pytest.raises(ZeroDivisionError):
            await publisher.publish(RECORD)


async def test_what_ended_the_connecting_for_good_is_logged_and_shown_by_readiness() -> None:
    """Otherwise a process would stay "not ready" without a reason."""
    cluster = Cluster()
    cluster.errors = [ZeroDivisionError("nobody expected it")]
    with capture_logs() as lines:
        async with _publishing(cluster) as publisher:
            await asyncio.sleep(0.01)
            assert publisher.problem is not None
            assert publisher.problem.code == "publisher_failed"
    assert [(line["event"], line["error"]) for line in lines] == [("publisher_failed", "ZeroDivisionError")]


async def test_a_cancelled_send_frees_its_slot() -> None:
    cluster, metrics = Cluster(), Metrics()
    cluster.errors = [REFUSED]
    async with _publishing(cluster, metrics=metrics) as publisher:
        sending = asyncio.create_task(publisher.publish(RECORD))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert metrics.registry.get_sample_value("pipeline_sends_in_flight") == 0


async def test_certificates_that_cannot_be_used_are_refused_at_the_start() -> None:
    settings = SETTINGS.model_copy(update={"tls": TlsSettings(ca_file="/nowhere/ca.pem")})
    with pytest.raises(FatalError, match="kafka_tls_files"):
        await KafkaPublisher(settings, connect=Cluster().connect).__aenter__()


async def test_size_is_checked_before_sending_and_dead_letters_have_more_room() -> None:
    cluster = Cluster()
    settings = SETTINGS.model_copy(update={"max_record_bytes": 10_000})
    async with _publishing(cluster, settings) as publisher:
        headers = (("name", b"x" * 4000),)
        fits = OutgoingRecord(Topic.BATCH_REQUESTED, "key", b"x" * (10_000 - record_size(_with(b"", headers))), headers)
        assert await publisher.publish(fits) == POSITION
        larger = _with(fits.value + b"x", headers)
        assert isinstance(await _error(publisher, larger), RecordTooLarge)
        letter = OutgoingRecord(Topic.BATCH_DEAD_LETTER, "key", larger.value, (*headers, ("dlq", b"x" * 16_000)))
        assert (await publisher.publish(letter)).topic is Topic.BATCH_DEAD_LETTER
        worse = OutgoingRecord(
            Topic.BATCH_DEAD_LETTER, "key", larger.value, (("dlq", b"x" * (DEAD_LETTER_ROOM + 6000)),)
        )
        assert isinstance(await _error(publisher, worse), RecordTooLarge)


def _with(value: bytes, headers: tuple[tuple[str, bytes], ...]) -> OutgoingRecord:
    return OutgoingRecord(Topic.BATCH_REQUESTED, "key", value, headers)


@given(st.text(max_size=50), st.binary(max_size=500), st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=50))))
def test_the_size_is_never_underestimated(key: str, value: bytes, headers: list[tuple[str, bytes]]) -> None:
    """Law: alone in its batch, the record takes no more bytes on the wire than the check assumes."""
    batch = BatchBuilder(1 << 20, 0, is_transactional=False)
    batch.append(timestamp=1_700_000_000_000, key=key.encode(), value=value, headers=headers)
    batch.close()
    assert batch.size() <= record_size(OutgoingRecord(Topic.BATCH_REQUESTED, key, value, tuple(headers)))


@pytest.mark.parametrize(
    ("kind", "timestamp", "appended"),
    [(0, 1_768_996_800_000, None), (1, 1_768_996_800_000, 1_768_996_800_000), (1, 1234, None)],
)
async def test_the_time_of_the_append_is_the_brokers_or_unknown(
    kind: int, timestamp: int, appended: int | None
) -> None:
    """The producer's own time would always agree with its clock; 1234 is the answer of the embedded broker."""
    cluster = Cluster()
    async with _publishing(cluster) as publisher:
        await publisher.publish(RECORD)
        cluster.made[0].answers = [Confirmed(timestamp=timestamp, timestamp_type=kind)]
        assert (await publisher.publish(RECORD)).appended_ms == appended

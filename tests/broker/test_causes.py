"""Each reason why Kafka cannot be used is named correctly, on real listeners with TLS, SASL and access rights."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.brokers import running_apache_kafka, skip_without_java
from support.members import outgoing
from support.secured_kafka import PASSWORD, SecuredKafka

from pipeline.contracts import TOPICS, Topic
from pipeline.errors import PipelineError
from pipeline.kafka import BrokerUnavailable, ConsumerSettings, KafkaGroupClient, KafkaPublisher, KafkaSettings
from pipeline.kafka.admin import check_topics, create_topics
from pipeline.kafka.reader import topic_bounds

ADMIN = {"mechanism": "PLAIN", "username": "admin", "password": PASSWORD}
NOBODY = ADMIN | {"username": "nobody"}

Settings = Callable[[SecuredKafka], KafkaSettings]

CAUSES: dict[str, Settings] = {
    "broker_unavailable": lambda _: KafkaSettings(bootstrap_servers="127.0.0.1:1"),
    "kafka_name_unknown": lambda _: KafkaSettings(bootstrap_servers="kafka.invalid:9092"),
    "kafka_tls_untrusted": lambda k: k.settings("TLS", tls={"ca_file": str(k.stranger.certificate)}),
    "kafka_tls_expired": lambda k: k.settings("EXPIRED", tls=k.tls()),
    "kafka_tls_wrong_name": lambda k: k.settings("OTHERNAME", tls=k.tls()),
    "kafka_tls_client_refused": lambda k: k.settings("MUTUAL", tls=k.tls()),
    "kafka_tls_expected": lambda k: k.settings("TLS"),
    "kafka_tls_unexpected": lambda k: k.settings("PLAINTEXT", tls=k.tls()),
    "kafka_sasl_refused": lambda k: k.settings("SASLTLS", tls=k.tls(), sasl=ADMIN | {"password": "wrong-password"}),
    "kafka_sasl_mechanism": lambda k: k.settings("SASLTLS", tls=k.tls(), sasl=ADMIN | {"mechanism": "SCRAM-SHA-256"}),
    "kafka_sasl_expected": lambda k: k.settings("SASLTLS", tls=k.tls()),
    "kafka_sasl_unexpected": lambda k: k.settings("TLS", tls=k.tls(), sasl=ADMIN),
}


@pytest.mark.parametrize("code", CAUSES)
async def test_every_client_names_the_cause(code: str, secured_kafka: SecuredKafka) -> None:
    """The producer, the member of a group, the reader and the admin client name one cause by one code."""
    settings = CAUSES[code](secured_kafka).model_copy(update={"request_timeout_seconds": 4.0})

    found = await asyncio.gather(
        _publishing(settings),
        _failure(_joining(settings)),
        _failure(topic_bounds(settings, Topic.BATCH_REQUESTED)),
        _failure(check_topics(settings)),
    )

    assert [error.code for error in found] == [code] * 4, [str(error) for error in found]
    for error in found:
        assert settings.bootstrap_servers in error.message
        assert PASSWORD not in error.message
        assert "wrong-password" not in error.message


@pytest.mark.parametrize("listener", ["TLS", "MUTUAL", "SASLTLS", "SASLPLAIN"])
async def test_right_settings_work_on_each_listener(listener: str, secured_kafka: SecuredKafka) -> None:
    """This shows that the test above finds a wrong setting and not a broken broker."""
    settings = _right(secured_kafka, listener)
    await create_topics(settings)
    async with KafkaPublisher(settings) as publisher:
        await publisher.publish(outgoing("k", b"v"))
        assert publisher.problem is None
    client = await KafkaGroupClient.connect("process", [Topic.BATCH_REQUESTED], settings, ConsumerSettings())
    await client.close(5.0)


async def test_missing_rights_are_named(secured_kafka: SecuredKafka) -> None:
    """For a user without rights, Kafka hides resources: they are reported as missing rights or as a missing topic."""
    await create_topics(_right(secured_kafka, "SASLTLS"))
    settings = secured_kafka.settings("SASLTLS", tls=secured_kafka.tls(), sasl=NOBODY)
    async with KafkaPublisher(settings) as publisher:
        published = await _failure(publisher.publish(outgoing("k", b"v")))
    assert published.code == "kafka_not_authorized"
    assert "card-batch.requested" in published.message
    joined = await _failure(_joining(settings))
    assert joined.code == "kafka_not_authorized"
    assert "card-pipeline.process" in joined.message
    created = await _failure(create_topics(settings, TOPICS[:1]))
    assert created.code == "kafka_not_authorized"


async def test_a_missing_topic_is_named_at_once(secured_kafka: SecuredKafka) -> None:
    """This also holds if the cluster creates topics on first use: no topic of the pipeline is created in that way."""
    settings = secured_kafka.settings("PLAINTEXT", topic_prefix="nowhere.", request_timeout_seconds=30.0)
    async with KafkaPublisher(settings) as publisher, asyncio.timeout(4):
        published = await _failure(publisher.publish(outgoing("k", b"v")))
    joined = await _failure(_joining(settings))
    read = await _failure(topic_bounds(settings, Topic.BATCH_REQUESTED))
    assert [error.code for error in (published, joined, read)] == ["kafka_topic_missing"] * 3
    assert "nowhere.card-batch.requested" in joined.message
    assert {one.rule for one in await check_topics(settings)} == {"missing"}


async def test_addresses_that_only_the_cluster_can_reach_are_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The first connection works; the brokers' own addresses, which the cluster names, do not."""
    del tmp_path_factory
    skip_without_java()
    with running_apache_kafka(properties={"advertised.listeners": "PLAINTEXT://kafka.invalid:9092"}) as broker:
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, request_timeout_seconds=4.0)
        error = await _failure(topic_bounds(settings, Topic.BATCH_REQUESTED))
    assert error.code == "kafka_name_unknown"
    assert "kafka.invalid:9092" in error.message
    assert "advertised.listeners" in error.message


async def test_a_server_that_accepts_and_stays_silent_is_named() -> None:
    with _silent_server() as address:
        settings = KafkaSettings(bootstrap_servers=address, request_timeout_seconds=1.0)
        error = await _failure(topic_bounds(settings, Topic.BATCH_REQUESTED))
    assert error.code == "broker_unavailable"
    assert f"{address} does not answer in time" in error.message


async def test_a_killed_broker_is_noticed_within_ten_seconds_and_so_is_its_return() -> None:
    """Readiness shows it as ``kafka: connected``."""
    skip_without_java()
    with running_apache_kafka() as broker:
        settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        async with KafkaPublisher(settings) as publisher:
            await _until(publisher, connected=True, seconds=20)
            broker.stop()
            await _until(publisher, connected=False, seconds=10)
            await asyncio.sleep(3)
            assert "refuses the connection" in str(publisher.problem)
            broker.start()
            await _until(publisher, connected=True, seconds=20)
            broker.freeze()
            await _until(publisher, connected=False, seconds=10)
            broker.thaw()
            await _until(publisher, connected=True, seconds=20)


async def _until(publisher: KafkaPublisher, *, connected: bool, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while publisher.ready is not connected:  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.05)


def _right(kafka: SecuredKafka, listener: str) -> KafkaSettings:
    tls = kafka.tls()
    if listener == "MUTUAL":
        certificate, key = kafka.authority.issue("client")
        tls |= {"cert_file": str(certificate), "key_file": str(key)}
    sasl = ADMIN if listener.startswith("SASL") else None
    return kafka.settings(listener, tls=None if listener == "SASLPLAIN" else tls, sasl=sasl)


async def _publishing(settings: KafkaSettings) -> PipelineError:
    async with KafkaPublisher(settings) as publisher, asyncio.timeout(15):
        while "No broker has answered yet" in str(publisher.problem or "No broker has answered yet"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        error = publisher.problem
        assert error is not None
        refused = await _failure(publisher.publish(outgoing("k", b"v")))
        assert refused.code == error.code
        return error


async def _joining(settings: KafkaSettings) -> None:
    client = await KafkaGroupClient.connect("process", [Topic.BATCH_REQUESTED], settings, ConsumerSettings())
    await client.close(1.0)


async def _failure(work: object) -> PipelineError:
    with pytest.raises(BrokerUnavailable) as raised:
        await work  # type: ignore[misc]  # each of them is a coroutine
    return raised.value


@contextmanager
def _silent_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"

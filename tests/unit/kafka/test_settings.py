from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from pipeline.contracts import Topic
from pipeline.errors import FatalError
from pipeline.kafka import ConsumerSettings, KafkaSettings, Names, SaslSettings, TlsSettings
from pipeline.kafka.client.connection import connection_options
from pipeline.kafka.client.oauth import OAuthBearer
from pipeline.kafka.errors import OAuthMissing

PLAIN = {"mechanism": "SCRAM-SHA-512", "username": "pipeline", "password": "secret-of-test"}
OAUTH = {
    "mechanism": "OAUTHBEARER",
    "token_url": "https://id.example.com/token",
    "client_id": "pipeline",
    "client_secret": "secret-of-test",
}


@pytest.mark.parametrize(
    ("tls", "sasl", "protocol"),
    [(None, None, "PLAINTEXT"), ({}, None, "SSL"), (None, PLAIN, "SASL_PLAINTEXT"), ({}, PLAIN, "SASL_SSL")],
)
def test_the_security_protocol_follows_from_the_tables(tls: object, sasl: object, protocol: str) -> None:
    settings = KafkaSettings.model_validate({"bootstrap_servers": "b:9092", "tls": tls, "sasl": sasl})
    assert settings.protocol == protocol
    options = connection_options(settings, client_id="me")
    assert options["security_protocol"] == protocol
    assert ("ssl_context" in options) == ("SSL" in protocol.removeprefix("SASL_"))
    assert options.get("sasl_plain_password") == ("secret-of-test" if sasl else None)


@pytest.mark.parametrize(
    ("tls", "sasl", "protocol"),
    [(None, None, "SASL_SSL"), ({}, None, "PLAINTEXT"), (None, PLAIN, "PLAINTEXT"), ({}, PLAIN, "SASL_PLAINTEXT")],
)
def test_an_explicit_protocol_must_not_contradict_the_tables(tls: object, sasl: object, protocol: str) -> None:
    with pytest.raises(ValidationError, match="contradict"):
        KafkaSettings.model_validate(
            {"bootstrap_servers": "b:9092", "tls": tls, "sasl": sasl, "security_protocol": protocol}
        )


def test_tls_without_a_table_uses_the_authorities_of_the_system() -> None:
    options = connection_options(KafkaSettings(bootstrap_servers="b:9092", security_protocol="SSL"), client_id="me")
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert options["ssl_context"].check_hostname


async def test_oauthbearer_gets_a_token_provider() -> None:
    settings = KafkaSettings.model_validate({"bootstrap_servers": "b:9092", "tls": {}, "sasl": OAUTH})
    options = connection_options(settings, client_id="me")
    assert isinstance(options["sasl_oauth_token_provider"], OAuthBearer)
    assert "sasl_plain_password" not in options


def test_oauthbearer_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("pipeline.kafka.client.oauth", "pipeline.outbound"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    settings = KafkaSettings.model_validate({"bootstrap_servers": "b:9092", "tls": {}, "sasl": OAUTH})
    with pytest.raises(OAuthMissing, match=r"card-pipeline\[oauth\]"):
        connection_options(settings, client_id="me")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (PLAIN | {"password": None}, "needs password"),
        (PLAIN | {"client_id": "x"}, "does not use client_id"),
        (OAUTH | {"client_secret": None, "token_url": None}, "needs token_url and client_secret"),
        (OAUTH | {"username": "x"}, "does not use username"),
        (OAUTH | {"token_url": "http://id.example.com/token"}, "token_url"),
    ],
)
def test_sasl_needs_what_its_mechanism_needs(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        SaslSettings.model_validate(given)
    assert "secret-of-test" not in str(caught.value)


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="together: key_file is missing"):
        TlsSettings(cert_file=tmp_path / "cert.pem")
    with pytest.raises(ValidationError, match="together: cert_file is missing"):
        TlsSettings(key_file=tmp_path / "key.pem")


@pytest.mark.parametrize(
    ("servers", "fault"),
    [
        ("kafka://planted:9092", "broker 1 is a URL; leave the scheme out"),
        ("https://planted", "broker 1 is a URL"),
        ("me:planted@kafka-0:9092", "broker 1 names a user"),
        ("kafka-0:9092,planted", "broker 2 has no port"),
        ("[::1]", "broker 1 has no port"),
        ("planted:kafka", "broker 1 has a port that is not a number from 1 to 65535"),
        ("planted:", "broker 1 has a port that is not a number"),
        ("planted:0", "broker 1 has a port that is not a number"),
        ("planted:65536", "broker 1 has a port that is not a number"),
        ("planted:٩٠٩٢", "broker 1 has a port that is not a number"),
        ("kafka-0:9092,", "broker 2 is empty"),
        ("kafka-0:9092 planted:9092", "broker 1 has a host that is neither a name"),
        ("::1:9092", "broker 1 has a host that is neither a name"),
        ("[planted]:9092", "broker 1 has a host that is neither a name"),
        ("/planted:9092", "broker 1 has a host that is neither a name"),
        (":9092", "broker 1 has a host that is neither a name"),
    ],
)
def test_brokers_are_hosts_with_ports(servers: str, fault: str) -> None:
    """Anything else reached the client library, which waited for it without end."""
    with pytest.raises(ValidationError) as caught:
        KafkaSettings(bootstrap_servers=servers)
    assert fault in str(caught.value)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("servers", ["kafka-0:9092", "a_b.c-d:1, 192.0.2.7:65535", "[2001:db8::7]:9092"])
def test_brokers_of_any_kind_are_kept(servers: str) -> None:
    assert KafkaSettings(bootstrap_servers=servers).bootstrap_servers == servers.replace(" ", "")


def test_files_that_hold_no_certificate_are_named(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    settings = KafkaSettings(bootstrap_servers="b:9092", tls=TlsSettings(cert_file=nonsense, key_file=nonsense))
    with pytest.raises(FatalError, match="kafka_tls_files"):
        connection_options(settings, client_id="me")


def test_secrets_are_not_shown() -> None:
    settings = KafkaSettings(
        bootstrap_servers="b:9092",
        sasl=SaslSettings(mechanism="PLAIN", username="u", password=SecretStr("secret-of-test")),
    )
    assert "secret-of-test" not in repr(settings)


def test_names_are_prefixed_or_replaced_and_found_again() -> None:
    settings = KafkaSettings(
        bootstrap_servers="b:9092", topic_prefix="prod.", topics={Topic.AUDIT_EVENTS: "audit"}, group_prefix="cards-"
    )
    names = Names(settings)
    assert names.topic(Topic.BATCH_REQUESTED) == "prod.card-batch.requested"
    assert names.topic(Topic.AUDIT_EVENTS) == "audit"
    assert all(names.logical(names.topic(topic)) is topic for topic in Topic)
    assert names.group("process") == "cards-process"
    with pytest.raises(KeyError):
        names.logical("foreign")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topic_prefix": "with space"}, "Kafka allows"),
        ({"group_prefix": "a/b"}, "Kafka allows"),
        ({"topics": {"audit.events": "x" * 250}}, "Kafka allows"),
        ({"topics": {"audit.events": "card-batch.requested"}}, "same name"),
        ({"topics": {"no.such.topic": "x"}}, "topics"),
        ({"replicas": 3}, "replicas"),
    ],
)
def test_names_that_kafka_or_we_do_not_know_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        KafkaSettings.model_validate({"bootstrap_servers": "b:9092"} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"retry": {"first_seconds": 5, "max_seconds": 1}}, "first_seconds"),
        (
            {"session_timeout_seconds": 4, "commit_timeout_seconds": 3, "poll_interval_seconds": 0.5},
            "commit_timeout_seconds",
        ),
        ({"session_timeout_seconds": 6, "poll_interval_seconds": 2}, "poll_interval_seconds"),
    ],
)
def test_consumer_times_must_fit_together(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ConsumerSettings.model_validate(change)

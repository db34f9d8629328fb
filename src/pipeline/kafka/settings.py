"""Settings of the Kafka cluster, of the names of topics and groups in it, and of a group member."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from pipeline.contracts import Topic, TopicName
from pipeline.retry import RetrySettings
from pipeline.units import Bytes, Count, Seconds

_LEGAL_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""The names that Kafka allows for topics."""
_TOKEN_URL: Final = re.compile(r"https://|http://(127\.0\.0\.1|localhost)[:/]")
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_MAX_PORT: Final = 65_535


def broker_fault(server: str) -> str | None:
    """Return why a text is not a broker's ``host:port``, as the rest of a sentence; None if it is one.

    The text may contain a password, so the answer repeats no part of it.
    """
    if not server:
        return "is empty"
    if "://" in server:
        return "is a URL; leave the scheme out, security_protocol says how to connect"
    if "@" in server:
        return "names a user; write that into [kafka.sasl]"
    host, colon, port = server.rpartition(":")
    if not colon or (host.startswith("[") and not host.endswith("]")):
        return "has no port"
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= _MAX_PORT):
        return f"has a port that is not a number from 1 to {_MAX_PORT}"
    return None if _is_host(host) else "has a host that is neither a name nor an IP address ([...] around IPv6)"


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return _HOST.fullmatch(host) is not None
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


class TlsSettings(BaseModel):
    """TLS for the connections to the brokers. Host names are always verified."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    ca_file: Path | None = Field(
        default=None, description="PEM file of the certificate authorities to trust; default: those of the system"
    )
    cert_file: Path | None = Field(
        default=None, description="PEM file of the client certificate chain, if the brokers require one"
    )
    key_file: Path | None = Field(default=None, description="PEM file of the unencrypted private key of cert_file")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            missing, given = ("cert_file", "key_file") if self.cert_file is None else ("key_file", "cert_file")
            raise ValueError(
                f"cert_file and key_file are needed together: {missing} is missing; write it, or leave {given} out"
            )
        return self


class SaslSettings(BaseModel):
    """How the pipeline authenticates at the brokers."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        description="SASL mechanism. PLAIN without TLS sends the password in clear text"
    )
    username: str | None = Field(default=None, min_length=1, description="User, for PLAIN and SCRAM")
    password: SecretStr | None = Field(default=None, description="Password, for PLAIN and SCRAM")
    token_url: str | None = Field(
        default=None,
        description="Token endpoint for OAUTHBEARER (OAuth 2.0 client credentials, RFC 6749, 4.4); https, except on loopback",
    )
    client_id: str | None = Field(default=None, min_length=1, description="Client identifier, for OAUTHBEARER")
    client_secret: SecretStr | None = Field(default=None, description="Client secret, for OAUTHBEARER")
    scope: str | None = Field(
        default=None, min_length=1, description="Scope to request, for OAUTHBEARER; none by default"
    )

    @field_validator("token_url")
    @classmethod
    def _encrypted(cls, url: str | None) -> str | None:
        if url is not None and not _TOKEN_URL.match(url):
            raise ValueError(
                "must begin with https:// (http:// only for 127.0.0.1 and localhost): the client secret is sent there; "
                'write e.g. token_url = "https://id.example.com/token"'
            )
        return url

    @model_validator(mode="after")
    def _complete(self) -> Self:
        oauth = {"token_url": self.token_url, "client_id": self.client_id, "client_secret": self.client_secret}
        plain = {"username": self.username, "password": self.password}
        needed, useless = (oauth, plain) if self.mechanism == "OAUTHBEARER" else (plain, oauth)
        missing = [name for name, value in needed.items() if value is None]
        surplus = [name for name, value in useless.items() if value is not None]
        if missing:
            raise ValueError(f"mechanism {self.mechanism} needs {' and '.join(missing)}")
        if surplus:
            raise ValueError(f"mechanism {self.mechanism} does not use {' and '.join(surplus)}")
        return self


class KafkaSettings(BaseModel):
    """The Kafka cluster, the names in it, and the limits of a publication."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    bootstrap_servers: str = Field(
        min_length=1,
        examples=["kafka-0:9092,kafka-1:9092"],
        description="Brokers to ask first: host:port, separated by commas, e.g. kafka-0:9092,kafka-1:9092",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = Field(
        default=None,
        description="How to connect. Set SSL or SASL_SSL to use TLS without a table [kafka.tls]; default: it follows from the tables [kafka.tls] and [kafka.sasl]",
    )
    tls: TlsSettings | None = Field(
        default=None, description="An empty table turns TLS on, with the authorities of the system"
    )
    sasl: SaslSettings | None = Field(default=None, description="Authentication; none by default")
    topic_prefix: str = Field(
        default="",
        max_length=200,
        description="Prefix of the name of every topic that is not in topics. Set it if several installations share a cluster",
    )
    topics: dict[Topic, str] = Field(
        default_factory=dict, description="Full names of topics by logical name, if your cluster prescribes others"
    )
    group_prefix: str = Field(
        default="card-pipeline.",
        max_length=200,
        description="Prefix of every consumer group. Set it to what the ACLs of your cluster allow",
    )
    replication_factor: Count = Field(
        default=3,
        ge=1,
        le=15,
        description="Replicas of each partition, for `topics create` and `topics check`. Set 1 for a single broker",
    )
    max_record_bytes: Bytes = Field(
        default=1_000_000,
        ge=10_000,
        le=50_000_000,
        description="Largest record with key and headers. message.max.bytes of the brokers must be at least 16384 bytes higher, because dead letters have more headers",
    )
    ack_timeout_seconds: Seconds = Field(
        default=5.0,
        gt=0,
        le=300,
        description="A publication without confirmation fails after this time. Raise it for a slow cluster",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="none",
        description="Compression of batches on their way to the brokers. Topics of `topics create` are stored uncompressed in any case. Set it if the network is slow or its traffic costs money. Readers support all codecs",
    )
    request_timeout_seconds: Seconds = Field(
        default=10.0,
        gt=0,
        le=300,
        description="How long a broker may take to answer a request before the connection is closed. Raise it for a distant or busy cluster",
    )

    @property
    def protocol(self) -> Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]:
        """The security protocol: the configured one, or the one that follows from ``tls`` and ``sasl``."""
        if self.security_protocol:
            return self.security_protocol
        if self.sasl:
            return "SASL_SSL" if self.tls else "SASL_PLAINTEXT"
        return "SSL" if self.tls else "PLAINTEXT"

    @field_validator("bootstrap_servers")
    @classmethod
    def _brokers(cls, servers: str) -> str:
        brokers = [server.strip() for server in servers.split(",")]
        for number, broker in enumerate(brokers, start=1):
            fault = broker_fault(broker)
            if fault is not None:
                raise ValueError(
                    f"broker {number} {fault}; write host:port, separated by commas, e.g. "
                    'bootstrap_servers = "kafka-0:9092,kafka-1:9092"'
                )
        return ",".join(brokers)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if ("SASL" in self.protocol) != (self.sasl is not None):
            raise ValueError(
                f"security_protocol {self.protocol} and the table kafka.sasl contradict each other: "
                + ("write SASL_SSL or SASL_PLAINTEXT" if self.sasl else "the table is missing; write [kafka.sasl]")
                + ", or leave security_protocol out"
            )
        if self.tls and "SSL" not in self.protocol:
            raise ValueError(
                f"security_protocol {self.protocol} and the table kafka.tls contradict each other: write "
                f"{'SASL_SSL' if self.sasl else 'SSL'}, or leave security_protocol out"
            )
        return self

    @model_validator(mode="after")
    def _named(self) -> Self:
        names = [self.topics.get(topic, self.topic_prefix + topic) for topic in Topic]
        wrong = [name for name in (*names, self.group_prefix + "x") if not _LEGAL_NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"Kafka allows letters, digits, dot, dash and underscore, at most 249, not {wrong[0]!r}")
        if len(set(names)) < len(names):
            raise ValueError("topics: two logical topics have the same name")
        return self


class Names:
    """Translates logical names of topics and groups to those in the cluster and back."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._real = {topic: settings.topics.get(topic, settings.topic_prefix + topic) for topic in Topic}
        self._logical = {name: topic for topic, name in self._real.items()}
        self._topic_prefix = settings.topic_prefix
        self._group_prefix = settings.group_prefix

    def topic(self, topic: TopicName) -> str:
        """Return a topic's name in the cluster."""
        return self._real[Topic(topic)] if topic in self._real else self._topic_prefix + topic

    def logical(self, name: str) -> TopicName:
        """Return the topic of a name in the cluster. Raises KeyError for a topic without the prefix."""
        if name in self._logical:
            return self._logical[name]
        if not name.startswith(self._topic_prefix):
            raise KeyError(name)
        return name.removeprefix(self._topic_prefix)

    def group(self, name: str) -> str:
        """Return the consumer group of a stage, e.g. ``card-pipeline.process``."""
        return self._group_prefix + name


class ConsumerSettings(BaseModel):
    """Parameters of one member of a consumer group. :class:`WorkerSettings` and the subscriber's settings create them.

    The values that are not settings are the same everywhere, for the reasons given beside them.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    session_timeout_seconds: Seconds = Field(default=10.0, ge=1, le=300)
    concurrency: Count = Field(default=4, ge=1, le=1000)
    """Records of one partition and one flow that are handled at the same time."""
    slots: Count = Field(default=16, ge=1, le=10_000)
    """Records of all partitions that are handled at the same time; the flows share them (see SharedSlots)."""
    arrivals: Count = Field(default=16, ge=1, le=10_000)
    """Records for which the on-arrival callback runs at the same time: short writes."""
    max_span: Count = Field(default=500, ge=1, le=100_000)
    """Offsets between the lowest unfinished and the highest fetched record of a partition; then it is paused."""
    max_span_bytes: Bytes = Field(default=8_000_000, ge=1)
    """Bytes of fetched and unfinished records of a partition before it is paused. This limits the memory."""
    max_poll_records: Count = Field(default=200, ge=1, le=10_000)
    """Records that one call takes from the client. A span may exceed its limit by this number."""
    stop_grace_seconds: Seconds = Field(default=25.0, ge=0, le=86_400)
    retry: RetrySettings = Field(default=RetrySettings())
    commit_interval_seconds: Seconds = Field(default=1.0, gt=0, le=60)
    commit_timeout_seconds: Seconds = Field(
        default_factory=lambda data: min(3.0, data.get("session_timeout_seconds", 10.0) / 2), gt=0, le=60
    )
    """A rebalance waits for the commit, so it must end well before the session does."""
    poll_interval_seconds: Seconds = Field(
        default_factory=lambda data: min(0.5, data.get("session_timeout_seconds", 10.0) / 5), gt=0, le=5
    )
    """Longest pause between two checks for records, for lost partitions and for a stop."""
    fetch_wait_seconds: Seconds = Field(default=0.5, gt=0, le=5)
    """How long a broker may hold back an empty answer; it sends records at once."""
    liveness_timeout_seconds: Seconds = Field(default=60.0, gt=0)
    """A member whose loop has not run for this long is reported dead. One turn takes far less."""
    batch_records: Count = Field(default=500, ge=1, le=100_000)
    """Maximum number of records per batch: as many as a segment of the audit log holds."""
    batch_linger_seconds: Seconds = Field(default=2.0, ge=0, le=60)
    lost_records: Literal["stop", "report"] = "stop"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.commit_timeout_seconds > self.session_timeout_seconds / 2:
            raise ValueError(
                "commit_timeout_seconds must not exceed half of session_timeout_seconds: a rebalance waits for the commit"
            )
        if self.poll_interval_seconds > self.session_timeout_seconds / 5:
            raise ValueError(
                "poll_interval_seconds must not exceed a fifth of session_timeout_seconds: a member must notice lost work in time"
            )
        return self


class WorkerSettings(BaseModel):
    """How the workers read their topics."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    session_timeout_seconds: Seconds = Field(
        default=10.0,
        ge=1,
        le=300,
        description="A worker without a heartbeat for this long loses its partitions to the others; it stops its work after 0.8 of this time. Raise it if short network failures cause rebalances",
    )
    concurrency: Count = Field(
        default=16,
        ge=1,
        le=1000,
        description="Jobs of one partition and one integration that are in work at the same time. Raise it to use a larger machine with few partitions",
    )
    slots: Count = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Jobs in work at the same time, over all partitions of the process. With several integrations, each gets at most two thirds, so that it never blocks the others. Lower it to save memory: a job in work holds up to 4 chunks",
    )
    stop_grace_seconds: Seconds = Field(
        default=25.0,
        ge=0,
        le=86_400,
        description="How long running work may continue when the process is stopped. Keep it below the grace period of the container",
    )
    retry: RetrySettings = Field(
        default=RetrySettings(), description="Pauses before a record is handled again after a transient error"
    )
    commit_interval_seconds: Seconds = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Time between two commits of offsets. A crash repeats the work since the last commit. Raise it to reduce the load on the brokers",
    )
    batch_linger_seconds: Seconds = Field(
        default=2.0,
        ge=0,
        le=60,
        description="How long the audit log collects events before it writes a segment. Raise it for fewer, larger segments",
    )
    lost_records: Literal["stop", "report"] = Field(
        default="stop",
        description="If records expired before they were read: stop the process and name them, or log records_lost and continue after the gap",
    )

    def for_consumer(self) -> ConsumerSettings:
        """Return what a member of a group needs."""
        return ConsumerSettings(**{name: getattr(self, name) for name in type(self).model_fields})

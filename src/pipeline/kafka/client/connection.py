"""The options of every Kafka client of this process."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

from aiokafka import errors as kafka
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest

from pipeline.errors import FatalError
from pipeline.kafka.errors import OAuthMissing
from pipeline.kafka.settings import KafkaSettings, SaslSettings, TlsSettings
from pipeline.secret_files import CertificateUnusable, load_client_certificate, tls_fault


def connection_options(settings: KafkaSettings, *, client_id: str) -> dict[str, Any]:
    """Return keyword arguments common to aiokafka's producer, consumer and admin client.

    It reads the certificate files. Call it for each client, so that the next connection uses a rotated certificate.

    Raises:
        FatalError: A certificate file is missing or invalid.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": client_id,
        "request_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "security_protocol": settings.protocol,
        # aiokafka logs each try, so this sets the rate of its log lines during an outage
        "retry_backoff_ms": 300,
        # within this time it finds a broker that has a new address, even if nothing fails
        "metadata_max_age_ms": 60_000,
    }
    context = ssl_context(settings.tls) if "SSL" in settings.protocol else None
    if context:
        options["ssl_context"] = context
    if settings.sasl:
        options |= _sasl_options(settings.sasl, context)
    return options


async def ensure_brokers(client: Any) -> None:
    """Check that the cluster has named a broker.

    A broker that is starting may name none, not even itself. aiokafka's ``start`` then succeeds, but a later call fails
    with an AssertionError.

    Args:
        client: A started AIOKafkaClient.

    Raises:
        NoBrokersAvailable: It has named none. Try again.
    """
    if not client.cluster.brokers():
        await asyncio.sleep(0)  # a client that is stopped before its tasks have begun raises CancelledError
        raise kafka.NoBrokersAvailable


def create_no_topics(client: Any) -> None:
    """Keep a client from creating a topic by asking for it, even if the cluster allows that.

    A topic that a broker creates by itself has a wrong number of partitions and a wrong retention. On the embedded
    broker, which names no controller, asking still creates topics, because there is no other way.

    Args:
        client: An AIOKafkaClient that is not started.
    """
    get_conn = client._get_conn  # noqa: SLF001 - every connection but the first, which asks for no topic, passes here

    async def guarded(*arguments: Any, **options: Any) -> Any:
        connection = await get_conn(*arguments, **options)
        if type(connection) is AIOKafkaConnection and client.cluster.controller is not None:
            connection.__class__ = _CreatingNothing
        return connection

    client._get_conn = guarded  # noqa: SLF001


class _CreatingNothing(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka ships no types
    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(request, MetadataRequest):
            request._allow_auto_topic_creation = False  # noqa: SLF001 - the client makes the request without it
        return super().send(request, *arguments, **options)


async def ensure_topics(client: Any, names: Sequence[str]) -> None:
    """Check that all topics exist and may be described. On the embedded broker, do nothing.

    Args:
        client: A started AIOKafkaClient that :func:`create_no_topics` was called for.
        names: Their names in the cluster.

    Raises:
        UnknownTopicOrPartitionError, TopicAuthorizationFailedError: A topic does not exist or may not be described; the
            error names it.
        KafkaError: No broker answered.
    """
    if client.cluster.controller is None:
        return
    answer = await client.send(client.get_random_node(), MetadataRequest(list(names)))
    for code, name, *_ in answer.topics:
        if code:
            raise kafka.for_code(code)(name)


def ssl_context(tls: TlsSettings | None) -> ssl.SSLContext:
    """Return a context that verifies the broker's certificate and name, with the client certificate if there is one."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file if tls else None)
    except (OSError, ValueError) as error:
        raise _unusable("kafka.tls.ca_file", tls_fault(error)) from error
    if tls and tls.cert_file and tls.key_file:
        try:
            load_client_certificate(context, tls.cert_file, tls.key_file)
        except CertificateUnusable as error:
            keys = ", ".join(f"kafka.tls.{file}" for file in error.files)
            raise _unusable(keys, error.why) from error
    return context


def _unusable(keys: str, why: str) -> FatalError:
    return FatalError("kafka_tls_files", f"{keys}: cannot be used: {why}")


def _sasl_options(sasl: SaslSettings, context: ssl.SSLContext | None) -> dict[str, Any]:
    if sasl.mechanism == "OAUTHBEARER":
        try:
            from pipeline.kafka.client.oauth import OAuthBearer  # noqa: PLC0415 - nothing else needs aiohttp
        except ModuleNotFoundError as error:
            raise OAuthMissing from error
        return {"sasl_mechanism": sasl.mechanism, "sasl_oauth_token_provider": OAuthBearer(sasl, context)}
    return {
        "sasl_mechanism": sasl.mechanism,
        "sasl_plain_username": sasl.username,
        "sasl_plain_password": sasl.password.get_secret_value() if sasl.password else None,
    }

"""The options that every Kafka client of this process is made with."""

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

    Files are read here, so call it for each client: a rotated certificate is used by the next connection.

    Raises:
        FatalError: A certificate file is missing or is not what it should be.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": client_id,
        "request_timeout_ms": round(settings.request_timeout_seconds * 1000),
        "security_protocol": settings.protocol,
        # aiokafka logs each try: during an outage this is the rate of its lines
        "retry_backoff_ms": 300,
        # a broker that came back under another address is found within this time even if nothing fails
        "metadata_max_age_ms": 60_000,
    }
    context = ssl_context(settings.tls) if "SSL" in settings.protocol else None
    if context:
        options["ssl_context"] = context
    if settings.sasl:
        options |= _sasl_options(settings.sasl, context)
    return options


async def ensure_brokers(client: Any) -> None:
    """Return if the cluster has named a broker.

    A broker that is starting may name none, itself included. aiokafka's ``start`` takes that for success, and a later
    call fails with an AssertionError.

    Args:
        client: A started AIOKafkaClient.

    Raises:
        NoBrokersAvailable: It has named none. Try again.
    """
    if not client.cluster.brokers():
        await asyncio.sleep(0)  # a client that is stopped before its tasks have begun raises CancelledError
        raise kafka.NoBrokersAvailable


def create_no_topics(client: Any) -> None:
    """Make a client never create a topic by asking for it, whatever the cluster allows.

    A topic that a broker creates by itself has another number of partitions and another retention than the table says.
    The embedded broker, which names no controller, creates topics in no other way: there asking still does.

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
    """Return if all topics exist and may be described; on the embedded broker always.

    Args:
        client: A started AIOKafkaClient that :func:`create_no_topics` was called for.
        names: Their names in the cluster.

    Raises:
        UnknownTopicOrPartitionError, TopicAuthorizationFailedError: One does not, or may not; with its name.
        KafkaError: No broker answered.
    """
    if client.cluster.controller is None:
        return
    answer = await client.send(client.get_random_node(), MetadataRequest(list(names)))
    for code, name, *_ in answer.topics:
        if code:
            raise kafka.for_code(code)(name)


def ssl_context(tls: TlsSettings | None) -> ssl.SSLContext:
    """Return a context that verifies the broker's certificate and name, with our certificate where there is one."""
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

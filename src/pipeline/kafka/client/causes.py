"""Translates aiokafka's errors, and finds out why Kafka cannot be used.

When a connection fails, aiokafka logs the reason but raises an error without it. So after a failure, this module opens
one more connection to each broker; the error of that connection is the cause.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiokafka import errors as kafka
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.protocol.admin import SaslHandShakeRequest
from aiokafka.protocol.metadata import MetadataRequest

from pipeline.errors import FatalError
from pipeline.kafka.client.connection import connection_options
from pipeline.kafka.errors import BrokerUnavailable, NotAuthorized, TopicMissing
from pipeline.kafka.settings import KafkaSettings

CLIENT_ERRORS: Final = (kafka.KafkaError, OSError, TimeoutError)
"""Errors that aiokafka raises if a cluster does not answer, or refuses."""

_NOT_AUTHORIZED: Final = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
)
_BROKERS_ASKED: Final = 3
"""Brokers whose connection is tried: all of a small cluster, and enough of a large one."""
_PATIENCE: Final = 5.0
"""Maximum number of seconds for all attempts to connect to one broker."""
_LONGEST_WORDS: Final = 200
"""Maximum number of characters of a broker's text that a message repeats."""
_EXPIRED: Final = (10, 9)
"""OpenSSL's numbers for a certificate that has expired, or is not valid yet."""
_WRONG_NAME: Final = (62, 64)
"""OpenSSL's numbers for a certificate of another host name or address."""


class TokenFailed(kafka.KafkaConnectionError):  # type: ignore[misc]  # aiokafka ships no types
    """There is no token for OAUTHBEARER. The library treats this as a failed connection, waits and tries again."""


class _Broker(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def refusal(error: BaseException, what: str) -> BrokerUnavailable | None:
    """Return the pipeline's error for a refusal of a right or a topic; None for any other error.

    Args:
        error: What aiokafka raised.
        what: The request, for the message.
    """
    if isinstance(error, _NOT_AUTHORIZED):
        return NotAuthorized(_with_name(what, error))
    if isinstance(error, kafka.UnknownTopicOrPartitionError):
        return TopicMissing(_with_name(what, error))
    return None


def _with_name(what: str, error: kafka.KafkaError) -> str:
    """Return the request with the topic or group that the error names."""
    name = error.args[0] if error.args else None
    if not isinstance(name, str) or " " in name or name in what:
        return what
    return f"{what}: {name}"


async def unavailable(error: BaseException, settings: KafkaSettings, what: str) -> BrokerUnavailable:
    """Return the pipeline's error for an error of aiokafka, with the cause that one more connection shows.

    It takes at most ten seconds, or twice ``kafka.request_timeout_seconds`` if that is shorter.

    Args:
        error: One of :data:`CLIENT_ERRORS`.
        settings: The cluster.
        what: Text that says what failed.
    """
    refused = refusal(error, what)
    if refused is not None:
        return refused
    cause = await find_cause(settings)
    if cause is not None:
        return BrokerUnavailable(cause.code, f"{what}: {cause.message}")
    return BrokerUnavailable(
        "broker_unavailable",
        f"{what}: {_words(error)}; a broker answers now, so try again.",
    )


async def find_cause(settings: KafkaSettings) -> BrokerUnavailable | None:
    """Return why no connection to the cluster can be used; None if one can be used now."""
    try:
        options = await asyncio.to_thread(connection_options, settings, client_id="card-pipeline-check")
    except FatalError as error:
        return BrokerUnavailable(error.code, error.message)
    del options["retry_backoff_ms"], options["metadata_max_age_ms"]
    servers = options.pop("bootstrap_servers")
    within = min(settings.request_timeout_seconds, _PATIENCE)
    bootstrap = [_Broker(host, port) for host, port, _ in collect_hosts(servers)][:_BROKERS_ASKED]
    found, named = await _cause_of_all(bootstrap, options, within / 2)
    if found is None and named:
        # the cluster answers: check that the addresses that it names for its brokers can be used here
        found, _ = await _cause_of_all(named[:_BROKERS_ASKED], options, within / 2)
        if found is not None and set(named).isdisjoint(bootstrap):
            found = BrokerUnavailable(
                found.code, f"{found.message} The cluster names this address itself (advertised.listeners)."
            )
    return found


async def _cause_of_all(
    brokers: Sequence[_Broker], options: dict[str, Any], within: float
) -> tuple[BrokerUnavailable | None, list[_Broker]]:
    """Return None and the brokers that one of these names; if none can be used, return the most exact cause."""
    answers = await asyncio.gather(*(_cause_of(broker, options, within) for broker in brokers))
    for answer in answers:
        if not isinstance(answer, BrokerUnavailable):
            return None, answer
    causes = [answer for answer in answers if isinstance(answer, BrokerUnavailable)]
    exact = [cause for cause in causes if cause.code != "broker_unavailable"]
    return (exact or causes)[0], []


async def _cause_of(broker: _Broker, options: dict[str, Any], within: float) -> BrokerUnavailable | list[_Broker]:
    try:
        async with asyncio.timeout(within):
            return await _named_brokers(broker, options)
    except CLIENT_ERRORS as error:
        try:
            async with asyncio.timeout(within):
                return await _explained(error, broker, options)
        except CLIENT_ERRORS:
            return _plain_cause(error, broker)


async def _named_brokers(broker: _Broker, options: dict[str, Any]) -> list[_Broker]:
    connection = await create_conn(broker.host, broker.port, **options)
    try:
        metadata = await connection.send(MetadataRequest([]))
    finally:
        connection.close()
    return [_Broker(host, port) for _, host, port, *_ in metadata.brokers]


async def _explained(error: BaseException, broker: _Broker, options: dict[str, Any]) -> BrokerUnavailable:
    """Return the cause of a failed connection; if the error does not show it, try other kinds of connections."""
    fault = error.__cause__ if isinstance(error, kafka.KafkaConnectionError) and error.__cause__ else error
    said = _said_by(fault, broker, options)
    if said is not None:
        return said
    if isinstance(fault, asyncio.IncompleteReadError | ConnectionResetError | ssl.SSLError | EOFError):
        # the broker closed the connection: it did not understand the request
        if "SSL" in options["security_protocol"]:
            if await _speaks_plain_text(broker):
                return BrokerUnavailable(
                    "kafka_tls_unexpected",
                    f"{broker} does not use TLS, but these settings do. "
                    "Give the port of a TLS listener, or remove the table [kafka.tls].",
                )
        elif await _speaks_tls(broker):
            return BrokerUnavailable(
                "kafka_tls_expected",
                f"{broker} expects TLS, but these settings connect in plain text. Add the table [kafka.tls].",
            )
        if "SASL" not in options["security_protocol"] and await _offers_sasl(broker, options):
            return BrokerUnavailable(
                "kafka_sasl_expected",
                f"{broker} expects authentication, but these settings have none. Add the table [kafka.sasl].",
            )
    return _plain_cause(fault, broker)


def _said_by(fault: BaseException, broker: _Broker, options: dict[str, Any]) -> BrokerUnavailable | None:
    """Return the cause if the error says it."""
    if isinstance(fault, socket.gaierror):
        return BrokerUnavailable(
            "kafka_name_unknown",
            f"{broker}: this name does not resolve ({fault.strerror}). Correct kafka.bootstrap_servers or the DNS.",
        )
    if isinstance(fault, ssl.SSLCertVerificationError):
        return _bad_certificate(fault, broker)
    if isinstance(fault, ssl.SSLError) and "ALERT" in (fault.reason or ""):
        return _refused_certificate(fault, broker)
    return _refused_credentials(fault, broker, options)


def _refused_credentials(fault: BaseException, broker: _Broker, options: dict[str, Any]) -> BrokerUnavailable | None:
    if isinstance(fault, TokenFailed):
        return BrokerUnavailable("kafka_token_unavailable", f"{broker}: no token for OAUTHBEARER: {fault.args[0]}.")
    if isinstance(fault, kafka.SaslAuthenticationFailed):
        return BrokerUnavailable(
            "kafka_sasl_refused",
            f"{broker} refuses the credentials of kafka.sasl ({_words(fault)}). Correct the user or the password.",
        )
    if isinstance(fault, kafka.UnsupportedSaslMechanismError):
        return BrokerUnavailable(
            "kafka_sasl_mechanism",
            f"{broker} does not offer {options['sasl_mechanism']}. Set kafka.sasl.mechanism to one that it offers.",
        )
    if isinstance(fault, kafka.IllegalSaslStateError):
        return BrokerUnavailable(
            "kafka_sasl_unexpected",
            f"{broker} does not support authentication, but these settings use it. "
            "Give the port of a SASL listener, or remove the table [kafka.sasl].",
        )
    return None


def _bad_certificate(fault: ssl.SSLCertVerificationError, broker: _Broker) -> BrokerUnavailable:
    why = fault.verify_message
    if fault.verify_code in _EXPIRED:
        return BrokerUnavailable(
            "kafka_tls_expired",
            f"{broker}: the broker's certificate cannot be used now ({why}). "
            "Renew it at the broker, and compare the clocks.",
        )
    if fault.verify_code in _WRONG_NAME:
        return BrokerUnavailable(
            "kafka_tls_wrong_name",
            f"{broker}: the broker's certificate is for another name ({why}). Connect by a name that it holds.",
        )
    return BrokerUnavailable(
        "kafka_tls_untrusted",
        f"{broker}: no trusted authority has signed the broker's certificate ({why}). "
        "Set kafka.tls.ca_file to the authority that signed it.",
    )


def _refused_certificate(fault: ssl.SSLError, broker: _Broker) -> BrokerUnavailable:
    return BrokerUnavailable(
        "kafka_tls_client_refused",
        f"{broker} refuses the client certificate, or requires one ({_alert(fault)}). Set kafka.tls.cert_file and "
        "key_file to a certificate that is valid now and signed by an authority that the broker trusts.",
    )


def _alert(fault: ssl.SSLError) -> str:
    return (fault.reason or "").lower().replace("_", " ")


def _plain_cause(fault: BaseException, broker: _Broker) -> BrokerUnavailable:
    if isinstance(fault, ConnectionRefusedError):
        return BrokerUnavailable("broker_unavailable", f"{broker} refuses the connection: no broker listens there.")
    if isinstance(fault, TimeoutError):
        return BrokerUnavailable("broker_unavailable", f"{broker} does not answer in time.")
    return BrokerUnavailable("broker_unavailable", f"{broker}: the connection failed ({_words(fault)}).")


def _words(error: BaseException) -> str:
    """Return an error's text if it comes from a broker or the system; otherwise its class."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = error.args[0] if isinstance(error, kafka.KafkaError) and error.args else None
    return said[:_LONGEST_WORDS] if isinstance(said, str) and said else type(error).__name__


# other kinds of connections, tried after the usual one failed


async def _speaks_plain_text(broker: _Broker) -> bool:
    try:
        connection = await create_conn(broker.host, broker.port, client_id="card-pipeline-check")
    except CLIENT_ERRORS:
        return False
    connection.close()
    return True


async def _speaks_tls(broker: _Broker) -> bool:
    """Return whether a TLS handshake gets an answer. It sends nothing, so the certificate does not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection(broker.host, broker.port, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it answered in TLS
    except OSError:
        return False
    writer.close()
    return True


async def _offers_sasl(broker: _Broker, options: dict[str, Any]) -> bool:
    connection = await create_conn(broker.host, broker.port, **options)
    try:
        answer = await connection.send(SaslHandShakeRequest("PLAIN"))
    except CLIENT_ERRORS:
        return False
    finally:
        connection.close()
    return bool(answer.enabled_mechanisms)

"""Requests to other hosts: rules for allowed hosts, sessions that reach only these, and the reading of answers."""

from pipeline.outbound.answers import (
    HttpAnswer,
    RequestNotSent,
    RequestUnanswered,
    http_date,
    post,
    retry_after_seconds,
)
from pipeline.outbound.breaker import NO_CIRCUIT, Call, Circuit, CircuitOpen, CircuitPurpose, Circuits, HostUnavailable
from pipeline.outbound.pace import Grant, Pace
from pipeline.outbound.rules import FIELDS, check_url
from pipeline.outbound.session import open_session, session_tls, tls_context
from pipeline.outbound.settings import HostRules, NetworkSettings, Purpose, TokenUrl
from pipeline.outbound.tokens import ClientCredentials, FormTokens, Token, TokenFormat, TokenUnavailable, checked_token
from pipeline.outbound.urls import AddressRefused, MalformedUrl, UrlParts, host_of, redact, request_url, split_url

__all__ = [
    "FIELDS",
    "NO_CIRCUIT",
    "AddressRefused",
    "Call",
    "Circuit",
    "CircuitOpen",
    "CircuitPurpose",
    "Circuits",
    "ClientCredentials",
    "FormTokens",
    "Grant",
    "HostRules",
    "HostUnavailable",
    "HttpAnswer",
    "MalformedUrl",
    "NetworkSettings",
    "Pace",
    "Purpose",
    "RequestNotSent",
    "RequestUnanswered",
    "Token",
    "TokenFormat",
    "TokenUnavailable",
    "TokenUrl",
    "UrlParts",
    "check_url",
    "checked_token",
    "host_of",
    "http_date",
    "open_session",
    "post",
    "redact",
    "request_url",
    "retry_after_seconds",
    "session_tls",
    "split_url",
    "tls_context",
]

"""Requests to other hosts: which are allowed, sessions that reach no others, and what their answers say."""

from pipeline.outbound.answers import (
    HttpAnswer,
    RequestNotSent,
    RequestUnanswered,
    http_date,
    post,
    retry_after_seconds,
)
from pipeline.outbound.rules import FIELDS, check_url
from pipeline.outbound.session import open_session
from pipeline.outbound.settings import HostRules, NetworkSettings, Purpose
from pipeline.outbound.tokens import ClientCredentials, FormTokens, Token, TokenFormat, TokenUnavailable, checked_token
from pipeline.outbound.urls import AddressRefused, MalformedUrl, UrlParts, redact, request_url, split_url

__all__ = [
    "FIELDS",
    "AddressRefused",
    "ClientCredentials",
    "FormTokens",
    "HostRules",
    "HttpAnswer",
    "MalformedUrl",
    "NetworkSettings",
    "Purpose",
    "RequestNotSent",
    "RequestUnanswered",
    "Token",
    "TokenFormat",
    "TokenUnavailable",
    "UrlParts",
    "check_url",
    "checked_token",
    "http_date",
    "open_session",
    "post",
    "redact",
    "request_url",
    "retry_after_seconds",
    "split_url",
]

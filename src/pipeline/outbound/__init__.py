"""Requests to other hosts: which are allowed, sessions that reach no others, and what their answers say."""

from pipeline.outbound.answers import http_date, retry_after_seconds
from pipeline.outbound.rules import FIELDS, check_url
from pipeline.outbound.session import open_session
from pipeline.outbound.settings import HostRules, NetworkSettings, Purpose
from pipeline.outbound.urls import AddressRefused, MalformedUrl, UrlParts, redact, request_url, split_url

__all__ = [
    "FIELDS",
    "AddressRefused",
    "HostRules",
    "MalformedUrl",
    "NetworkSettings",
    "Purpose",
    "UrlParts",
    "check_url",
    "http_date",
    "open_session",
    "redact",
    "request_url",
    "retry_after_seconds",
    "split_url",
]

"""Requests to other hosts: which are allowed, and sessions that reach no others."""

from pipeline.outbound.errors import AddressRefused
from pipeline.outbound.guard import open_session
from pipeline.outbound.rules import check_url
from pipeline.outbound.settings import HostRules, NetworkSettings, Purpose
from pipeline.outbound.urls import redact, request_url

__all__ = [
    "AddressRefused",
    "HostRules",
    "NetworkSettings",
    "Purpose",
    "check_url",
    "open_session",
    "redact",
    "request_url",
]

"""Errors of requests to other hosts."""

from __future__ import annotations

from pipeline.errors import PermanentError


class AddressRefused(PermanentError):
    """A URL, or the address behind its host, is not one that the configuration allows. Nothing was sent."""

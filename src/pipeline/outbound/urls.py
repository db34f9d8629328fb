"""URLs as they are sent, and as they may be logged."""

from __future__ import annotations

import yarl

from pipeline.outbound.errors import AddressRefused
from pipeline.outbound.hosts import MalformedUrl, split_url


def request_url(url: str) -> yarl.URL:
    """Return the URL to connect to: path and query byte for byte (``%2F``, ``%7E`` stay), host in its normal form.

    Raises:
        AddressRefused: It is no URL that :func:`pipeline.outbound.check_url` could allow.
    """
    try:
        parts = split_url(url)
    except MalformedUrl as error:
        raise AddressRefused(error.code, f"The URL {error.rule}.") from None
    return yarl.URL(f"{parts.scheme}://{parts.authority}{parts.tail}", encoded=True)


def redact(url: str) -> str:
    """Return scheme, host and path: what may be logged of a URL."""
    try:
        parts = split_url(url)
    except MalformedUrl:
        return "(malformed URL)"
    return f"{parts.scheme}://{parts.authority}{parts.path}"

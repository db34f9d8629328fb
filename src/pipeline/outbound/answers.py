"""Sends one POST with limits on time and size, and reads times in an answer's headers."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from yarl import URL

from pipeline.outbound.breaker import HostUnavailable

ANSWER_LIMIT: Final = 65_536
"""Bytes of an answer's body that are read; the rest is left unread, and the connection is closed."""

_PIECE: Final = 16_384
_ANY_ZLIB: Final = 47
"""zlib's wbits for data with a gzip or zlib header."""

_CONNECT_SECONDS: Final = 10.0
"""Time for name lookup, connection and TLS.

It is at most half of the total time, so that a failed connection is never reported as a missing answer.
"""

MAX_RETRY_AFTER_SECONDS: Final = 3600.0
"""A longer ``Retry-After`` is cut to this: a pause of a day would outlast most jobs."""

_MAX_TEXT: Final = 64
_MAX_DIGITS: Final = 32


def retry_after_seconds(header: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, from 0 to an hour, or None without a usable one.

    Both forms of RFC 9110, section 10.2.3, are read: seconds and an HTTP date. A malformed header is ignored.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_SECONDS) if len(text) <= _MAX_DIGITS else None
    date = http_date(text)
    return None if date is None else min(max((date - now).total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)


def http_date(text: str) -> datetime | None:
    """Return the time that an HTTP date names, in UTC unless it says otherwise, or None for any other text."""
    if len(text) > _MAX_TEXT:
        return None
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


class RequestNotSent(HostUnavailable):
    """No connection was made, so the other side has not seen the request."""

    def __init__(self, message: str) -> None:
        super().__init__("request_not_sent", message)


class RequestUnanswered(HostUnavailable):
    """The other side may have received the request, but no complete answer came."""

    def __init__(self, message: str) -> None:
        super().__init__("request_unanswered", message)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, headers and the first 64 KiB of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def post(
    session: aiohttp.ClientSession, url: URL, *, body: bytes, headers: Mapping[str, str], timeout_seconds: float
) -> HttpAnswer:
    """POST once and read the answer; do not follow redirects, which would send the body to another host.

    Args:
        session: From ``open_session``: it refuses addresses that are not allowed.
        url: Made by ``request_url``.
        body: Sent with its length.
        headers: The request's own headers.
        timeout_seconds: For the whole request, the answer's body included.

    Raises:
        RequestNotSent: No connection was made.
        RequestUnanswered: The connection broke, or nothing came in time.
        AddressRefused: The session does not allow the address. Nothing was sent.
    """
    timeout = aiohttp.ClientTimeout(total=None, connect=min(_CONNECT_SECONDS, timeout_seconds / 2))
    # "from None" throughout: an aiohttp error may hold the URL with its query, or what the server wrote
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False) as response,
        ):
            return HttpAnswer(response.status, response.headers, await _read(response))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError) as error:
        raise RequestNotSent(f"{url.host}: no connection: {_why(error)}") from None
    except TimeoutError:
        raise RequestUnanswered(f"{url.host}: no answer in {timeout_seconds:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise RequestUnanswered(f"{url.host}: the connection broke: {_why(error)}") from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    while len(found) < ANSWER_LIMIT and (piece := await response.content.read(_PIECE)):
        found += piece
    if len(found) >= ANSWER_LIMIT:
        response.close()
    body = bytes(found[:ANSWER_LIMIT])
    return _inflated(body) if response.headers.get("Content-Encoding", "").lower() in {"gzip", "deflate"} else body


def _inflated(body: bytes) -> bytes:
    # the request asks for identity, but a gateway may still compress; the output is limited
    try:
        return zlib.decompressobj(_ANY_ZLIB).decompress(body, ANSWER_LIMIT)
    except zlib.error:
        return b""


def _why(error: Exception) -> str:
    cause = getattr(error, "os_error", None) or error
    return getattr(cause, "strerror", None) or type(cause).__name__

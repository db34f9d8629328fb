"""One POST and its answer, bounded in time and size, with the one question that matters: did the request go out?"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from pipeline.errors import TransientError
from pipeline.jobs.ecs.settings import CallbackSettings
from pipeline.jobs.partners import UNANSWERED

ANSWER_LIMIT: Final = 65_536
"""Bytes of an answer's body that are looked at; the rest is left unread, and the connection closed."""

_PIECE: Final = 16_384
_ANY_ZLIB: Final = 47
"""zlib's code for: gzip or zlib, as the header says."""

_CONNECT_SECONDS: Final = 10.0
"""Time to resolve, connect and agree on TLS, and at most half of ``timeout_seconds``: so a connection that fails is
never reported as a missing answer."""

NOT_SENT: Final = "callback_not_sent"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, headers and the first 64 KiB of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def exchange(
    session: aiohttp.ClientSession, url: URL, *, body: bytes, headers: Mapping[str, str], settings: CallbackSettings
) -> HttpAnswer:
    """POST once and read the answer; redirects are not followed, since they would carry the body elsewhere.

    Args:
        session: A guarded session (``pipeline.jobs.transfer``): it refuses addresses that are not allowed.
        url: Made by ``request_url``.
        body: Sent with its length.
        headers: The request's own headers.
        settings: Timeouts.

    Raises:
        TransientError: ``callback_not_sent`` when no connection was made, so the other side has not seen the request;
            ``callback_unanswered`` when it may have: the connection broke, or nothing came in time.
        AddressRefused: The session does not allow the address. Nothing was sent.
    """
    timeout = aiohttp.ClientTimeout(total=None, connect=min(_CONNECT_SECONDS, settings.timeout_seconds / 2))
    # "from None" throughout: an aiohttp error may hold the URL with its query, or what the server wrote
    try:
        async with (
            asyncio.timeout(settings.timeout_seconds),
            session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False) as response,
        ):
            return HttpAnswer(response.status, response.headers, await _read(response))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError) as error:
        raise TransientError(NOT_SENT, f"{url.host}: no connection: {_why(error)}") from None
    except TimeoutError:
        raise TransientError(UNANSWERED, f"{url.host}: no answer in {settings.timeout_seconds:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise TransientError(UNANSWERED, f"{url.host}: the connection broke: {_why(error)}") from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    while len(found) < ANSWER_LIMIT and (piece := await response.content.read(_PIECE)):
        found += piece
    if len(found) >= ANSWER_LIMIT:
        response.close()
    body = bytes(found[:ANSWER_LIMIT])
    return _inflated(body) if response.headers.get("Content-Encoding", "").lower() in {"gzip", "deflate"} else body


def _inflated(body: bytes) -> bytes:
    # asked for identity, but a gateway may compress all the same; bounded, whatever the body claims to hold
    try:
        return zlib.decompressobj(_ANY_ZLIB).decompress(body, ANSWER_LIMIT)
    except zlib.error:
        return b""


def _why(error: Exception) -> str:
    cause = getattr(error, "os_error", None) or error
    return getattr(cause, "strerror", None) or type(cause).__name__

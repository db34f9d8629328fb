"""One POST and its answer, bounded in time and size, with the one question that matters: did the request go out?"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from pipeline.callback.settings import CallbackSettings
from pipeline.errors import TransientError

ANSWER_LIMIT: Final = 65_536
"""Bytes of an answer's body that are looked at; the rest is left unread, and the connection closed."""

_PIECE: Final = 16_384

NOT_SENT: Final = "callback_not_sent"
UNANSWERED: Final = "callback_unanswered"


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

    Raises:
        TransientError: ``callback_not_sent`` when no connection was made, so the other side has not seen the request;
            ``callback_unanswered`` when it may have: the connection broke, or nothing came in time.
    """
    timeout = aiohttp.ClientTimeout(total=None, connect=settings.connect_timeout_seconds)
    try:
        async with (
            asyncio.timeout(settings.timeout_seconds),
            session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False) as response,
        ):
            return HttpAnswer(response.status, response.headers, await _read(response))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError) as error:
        raise TransientError(NOT_SENT, f"{url.host}: no connection: {_why(error)}") from error
    except TimeoutError as error:
        raise TransientError(UNANSWERED, f"{url.host}: no answer in {settings.timeout_seconds:g} s") from error
    except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
        raise TransientError(UNANSWERED, f"{url.host}: the connection broke: {_why(error)}") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    while len(found) < ANSWER_LIMIT and (piece := await response.content.read(_PIECE)):
        found += piece
    if len(found) >= ANSWER_LIMIT:
        response.close()
    return bytes(found[:ANSWER_LIMIT])


def _why(error: Exception) -> str:
    # a client error's text may quote the URL or what the server wrote; its class and the system's words are enough
    cause = getattr(error, "os_error", None) or error
    return getattr(cause, "strerror", None) or type(cause).__name__

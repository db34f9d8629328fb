"""Reading a request whose sender is not known yet: everything is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from aiohttp import HttpVersion11, web

from pipeline.contracts import Headers
from pipeline.webhooks.problems import Problem
from pipeline.webhooks.statuses import Answer


def headers_of(request: web.BaseRequest) -> Headers:
    """Return the headers, names in lower case, values as received, repetitions included."""
    return tuple((name.decode("latin-1").lower(), value) for name, value in request.raw_headers)


def values_of(headers: Headers, name: str) -> Sequence[str]:
    """Return all values of a header, by its lower-case name."""
    return [value.decode("latin-1") for header, value in headers if header == name]


def check_head(headers: Headers) -> str:
    """Return the content type as received, if the body is JSON and not compressed.

    Raises:
        Problem: 415.
    """
    encodings = values_of(headers, "content-encoding")
    if any(encoding.strip().lower() != "identity" for encoding in encodings):
        raise Problem(Answer.CONTENT_ENCODING)
    types = values_of(headers, "content-type")
    if len(types) != 1 or not _is_json(types[0]):
        raise Problem(Answer.CONTENT_TYPE)
    return types[0]


def content_type_of(headers: Headers) -> str:
    """Return the content type as received, the first one, or ``application/octet-stream`` where none stands there."""
    types = values_of(headers, "content-type")
    return types[0] if types else "application/octet-stream"


def _is_json(content_type: str) -> bool:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [
        value.strip('" ') for name, _, value in (part.partition("=") for part in parameters) if name == "charset"
    ]
    return content_type.isascii() and media_type == "application/json" and all(name == "utf-8" for name in charsets)


_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


async def read_body(request: web.BaseRequest, *, limit: int, timeout: float) -> bytes:  # noqa: ASYNC109 - whole body's
    """Return the raw body. Memory is bounded by ``limit`` and one network read, however the length was announced.

    Args:
        request: Its headers are checked already; a sender that waits for ``100 Continue`` gets it here.
        limit: Largest size in bytes.
        timeout: Seconds for the whole of it, so that a sender of one byte per second cannot hold a slot.

    Raises:
        Problem: 400 it ended early or its chunks are broken, 408 too slow, 413 too large.
    """
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if request.content.is_eof() and request.content.exception() is None:
        return await _read(request, limit)  # it came with the head: nothing to wait for
    try:
        async with asyncio.timeout(timeout):
            if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(_CONTINUE)
                request.writer.output_size = 0
            return await _read(request, limit)
    except TimeoutError:
        raise Problem(Answer.BODY_TIMEOUT, detail=f"The body did not come within {timeout:g} s") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Problem(Answer.BODY_INCOMPLETE) from None


async def _read(request: web.BaseRequest, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await request.content.readany():
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int) -> Problem:
    return Problem(Answer.BODY_TOO_LARGE, detail=f"The body is larger than {limit} bytes")

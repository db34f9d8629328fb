"""Reads headers, body and client address of a request from an unknown sender, with bounds on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp import HttpVersion11, web

from pipeline.contracts import Headers
from pipeline.contracts.bodies import named_encodings
from pipeline.webhooks.answers import Answer, Problem

_Address = IPv4Address | IPv6Address

_UTF8: Final = frozenset({"utf-8", "utf8"})
"""Names of the charset. The second is not registered, but several frameworks send it."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def headers_of(request: web.BaseRequest) -> Headers:
    """Return the headers with lower-case names, values as received, and repetitions."""
    return tuple((name.decode("latin-1").lower(), value) for name, value in request.raw_headers)


def values_of(headers: Headers, name: str) -> Sequence[str]:
    """Return all values of a header, by its lower-case name."""
    return [value.decode("latin-1") for header, value in headers if header == name]


def client_address(peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[IPv4Network | IPv6Network]) -> str:
    """Return the nearest address that is not one of our proxies, or ``-`` if it is unknown.

    It reads X-Forwarded-For from the right, as long as a trusted proxy wrote the entry. An untrusted sender may have
    invented all entries to the left of its own address. It stops at an entry that is not an address.

    Args:
        peer: The address at the other end of the connection.
        forwarded_for: Values of all X-Forwarded-For headers, in order.
        trusted: Networks of our proxies.
    """
    current = _address(peer or "")
    if current is None:
        return "-"
    hops = [hop for value in forwarded_for for hop in value.split(",")]
    while hops and _within(current, trusted):
        previous = _address(hops.pop())
        if previous is None:
            break
        current = previous
    return str(current)


@lru_cache(maxsize=1024)  # there are few senders and proxies
def _address(text: str) -> _Address | None:
    text = text.strip().split("%")[0]
    if text.startswith("["):  # [2001:db8::1]:443
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _within(address: _Address, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks)


def check_media_type(headers: Headers) -> str:
    """Return the content type as received, after checking that the body is uncompressed JSON in UTF-8.

    Raises:
        Problem: 415.
    """
    if named_encodings(headers):
        raise Problem(Answer.CONTENT_ENCODING)
    types = values_of(headers, "content-type")
    if len(types) != 1 or not _is_json(types[0]):
        raise Problem(Answer.CONTENT_TYPE)
    return types[0]


def content_type_of(headers: Headers) -> str:
    """Return the first content type as received; ``application/octet-stream`` without one."""
    types = values_of(headers, "content-type")
    return types[0] if types else "application/octet-stream"


def _is_json(content_type: str) -> bool:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [
        value.strip('" ') for name, _, value in (part.partition("=") for part in parameters) if name == "charset"
    ]
    return content_type.isascii() and media_type == "application/json" and _UTF8.issuperset(charsets)


def check_framing(request: web.BaseRequest, headers: Headers, limit: int) -> None:
    """Refuse a request whose head announces more than ``limit`` bytes, or a transfer encoding other than chunked.

    Raises:
        Problem: 413, or 400.
    """
    if request.content_length is None and any(
        coding.strip().lower() != "chunked" for coding in values_of(headers, "transfer-encoding")
    ):
        raise Problem(
            Answer.MALFORMED, reason="transfer_encoding", detail="Transfer-Encoding names another coding than chunked."
        )
    if (request.content_length or 0) > limit:
        raise _too_large(limit)


def arrived_body(request: web.BaseRequest, limit: int) -> bytes | None:
    """Return the raw body if it has arrived completely, as it does if the sender writes it together with the head.

    Raises:
        Problem: 413, the body is larger than ``limit`` bytes.
    """
    content = request.content
    if not content.is_eof() or content.exception() is not None:
        return None
    if content.total_bytes > limit:
        raise _too_large(limit)
    return content.read_nowait()


async def read_body(
    request: web.BaseRequest,
    *,
    limit: int,
    deadline: asyncio.Timeout,
    on_bytes: Callable[[int], None],
) -> bytes:
    """Return the raw body. Uses memory for at most ``limit`` bytes and one network read, whatever the head announces.

    Args:
        request: The request, with a checked head. A sender that waits for ``100 Continue`` gets it here.
        limit: Maximum size in bytes.
        deadline: Deadline for the whole body, so that a slow sender cannot hold a slot for long.
        on_bytes: Called with the size of each piece before it is kept; it may raise to refuse the request.

    Raises:
        TimeoutError: The body did not arrive before the deadline.
        Problem: 400 the body ended early or its chunks are broken, 413 too large; or what ``on_bytes`` raises.
    """
    try:
        async with deadline:
            if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(_CONTINUE)
                request.writer.output_size = 0
            return await _read(request, limit, on_bytes)
    except (web.RequestPayloadError, ConnectionError):
        raise Problem(Answer.BODY_INCOMPLETE) from None


async def _read(request: web.BaseRequest, limit: int, on_bytes: Callable[[int], None]) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await request.content.readany():
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        on_bytes(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int) -> Problem:
    return Problem(Answer.BODY_TOO_LARGE, detail=f"The body is larger than {limit} bytes")

"""How the object store receives and sends objects: conditions, ranges, checksums, faults inside a body."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import IO, Final

from aiohttp import web

from pipeline.sandbox.disk import READ_BYTES, Incoming, StoredObject, pieces
from pipeline.sandbox.faults import Fault, Kind
from pipeline.sandbox.s3_access import MESSAGES, S3Error
from pipeline.sandbox.sigv4 import decode_query

CRC_PARAMETER: Final = "x-amz-checksum-crc32"
EMPTY_CRC: Final = "AAAAAA=="
_MD5_BYTES: Final = 16


def check_length(headers: Mapping[str, str], limit: int) -> None:
    """Raise S3Error if the headers do not announce the body's length, or if it is too large."""
    if "transfer-encoding" in headers:
        message = "A header you provided implies functionality that is not implemented"
        raise S3Error(501, "NotImplemented", message, {"Header": "Transfer-Encoding"})
    if "content-length" not in headers:
        raise S3Error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    length = int(headers["content-length"])
    if length > limit:
        fields = {"ProposedSize": str(length), "MaxSizeAllowed": str(limit)}
        raise S3Error(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", fields)


async def receive(
    request: web.Request, incoming: Incoming, timeout_seconds: float, cut: Fault | None
) -> AsyncIterator[int]:
    """Write the body to disk, and yield the size of each piece.

    Raises:
        S3Error: The body stopped arriving (400 RequestTimeout).
        ConnectionResetError: The connection ended, or a fault has to cut it here.
    """
    length = int(request.headers["Content-Length"])
    limit = length if cut is None else min(cut.after_bytes, length)
    while incoming.size < limit:
        try:
            async with asyncio.timeout(timeout_seconds):
                data = await request.content.read(min(READ_BYTES, limit - incoming.size))
        except TimeoutError as error:
            message = "Your socket connection to the server was not read from or written to within the timeout period."
            raise S3Error(400, "RequestTimeout", message, headers={"Connection": "close"}) from error
        if not data:
            raise ConnectionResetError("the body ended before its announced length")
        await incoming.write(data)
        yield len(data)
    if cut is not None:
        raise ConnectionResetError("cut on purpose")


def check_sums(request: web.Request, incoming: Incoming, *, enforce_query: bool) -> None:
    """Raise S3Error if a checksum in the headers or in the signed URL does not match the body.

    S3 ignores the value of ``x-amz-checksum-crc32`` in the query. Other servers compare it (``enforce_query``).
    """
    given = request.headers.get("Content-MD5")
    if given is not None and _decoded_md5(given) != incoming.md5:
        raise S3Error(400, "BadDigest", "The Content-MD5 you specified did not match what we received.")
    value = dict(decode_query(request.raw_path.partition("?")[2])).get(CRC_PARAMETER)
    if enforce_query and value is not None and value != crc32_text(incoming.crc32):
        raise S3Error(400, "BadDigest", "The CRC32 you specified did not match the calculated checksum.")


def crc32_text(value: int) -> str:
    """Return a CRC32 as S3 writes it: base64 of its four bytes."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def _decoded_md5(text: str) -> bytes:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != _MD5_BYTES:
        raise S3Error(400, "InvalidDigest", "The Content-MD5 you specified is not valid.")
    return digest


_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")


class UnsatisfiableRange(Exception):
    """The range begins at or after the object's end."""


def asked_range(value: str, size: int) -> tuple[int, int] | None:
    """Return the bytes ``[start, end)`` that a Range header asks for, or None if S3 ignores the header.

    S3 ignores malformed headers, and headers with several ranges. Raises UnsatisfiableRange if the answer is 416.
    """
    found = _RANGE.fullmatch(value.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if not last else min(int(last) + 1, size)
        if last and int(last) < int(first):
            return None
    if start >= size or start == end:
        raise UnsatisfiableRange
    return start, end


def matches(value: str, etag: str) -> bool:
    """Return whether an If-Match or If-None-Match header names this ETag. As at S3, quotes may be missing."""
    names = {name.strip().strip('"') for name in value.split(",")}
    return "*" in names or etag.strip('"') in names


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer, and the bytes ``[start, end)`` of its body."""

    response: web.StreamResponse
    start: int
    end: int


def head_of(request: web.Request, stored: StoredObject, *, whole: bool) -> Head:
    """Return the head of the answer. With ``whole``, it ignores the range, as some gateways do.

    Raises:
        S3Error: 412 if If-Match names another version, 416 if the range begins after the end.
    """
    if_match = request.headers.get("If-Match")
    if if_match is not None and not matches(if_match, stored.etag):
        raise S3Error(412, "PreconditionFailed", MESSAGES[412][1], {"Condition": "If-Match"})
    headers = _headers(stored)
    if_none_match = request.headers.get("If-None-Match")
    if if_none_match is not None and matches(if_none_match, stored.etag):
        return Head(web.Response(status=304, headers=headers), 0, 0)
    asked = None if whole else _range(request, stored)
    start, end = asked or (0, stored.size)
    if asked:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{stored.size}"
    else:
        headers |= _checksum_headers(request, stored)
    response = web.StreamResponse(status=206 if asked else 200, headers=headers)
    response.content_length = end - start
    return Head(response, start, end)


class BodySender:
    """Sends the body of one answer, and applies the faults that slow it down or interrupt it."""

    def __init__(
        self,
        request: web.Request,
        head: Head,
        file: IO[bytes],
        *,
        faults: Mapping[Kind, Fault],
        change: Callable[[], Awaitable[None]],
    ) -> None:
        self._request = request
        self._head = head
        self._file = file
        self._change = change
        self._rate = faults["rate"].bytes_per_second if "rate" in faults else 0
        self._due = {kind: fault for kind, fault in faults.items() if kind in {"cut", "stall", "change"}}

    async def run(self) -> AsyncIterator[int]:
        """Send the body, and yield the size of each piece sent."""
        start, end = self._head.start, self._head.end
        if self._due and self._request.transport is not None:
            self._request.transport.set_write_buffer_limits(0)  # so that exactly these bytes are sent before the fault
        marks = {start + fault.after_bytes for fault in self._due.values()}
        position = start
        for edge in sorted({mark for mark in marks if mark < end} | {end}):
            async for data in pieces(self._file, position, edge, self._piece_bytes()):
                if self._rate:
                    await asyncio.sleep(len(data) / self._rate)
                await self._head.response.write(data)
                yield len(data)
            position = edge
            if await self._interrupted(position - start):
                return
        await self._head.response.write_eof()

    async def _interrupted(self, done: int) -> bool:
        """Apply the faults that are due after so many bytes. Return whether the connection is closed."""
        due = {kind: fault for kind, fault in self._due.items() if fault.after_bytes <= done}
        for kind in due:
            del self._due[kind]
        if "stall" in due:
            await asyncio.sleep(due["stall"].seconds)
        if "change" in due:
            await self._change()
        if "cut" in due and self._request.transport is not None:
            self._request.transport.close()
        return "cut" in due

    def _piece_bytes(self) -> int:
        return min(READ_BYTES, max(1, self._rate // 20)) if self._rate else READ_BYTES


def _headers(stored: StoredObject) -> dict[str, str]:
    headers = {
        "ETag": stored.etag,
        "Accept-Ranges": "bytes",
        "Last-Modified": stored.modified.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "Content-Type": "text/csv",
        "x-amz-request-id": secrets.token_hex(8).upper(),
        "Server": "AmazonS3",
    }
    return headers | ({"Content-Encoding": stored.content_encoding} if stored.content_encoding else {})


def _range(request: web.Request, stored: StoredObject) -> tuple[int, int] | None:
    value = request.headers.get("Range")
    if value is None:
        return None
    try:
        return asked_range(value, stored.size)
    except UnsatisfiableRange as error:
        fields = {"RangeRequested": value, "ActualObjectSize": str(stored.size)}
        headers = {"Content-Range": f"bytes */{stored.size}"}
        raise S3Error(416, "InvalidRange", MESSAGES[416][1], fields, headers) from error


def _checksum_headers(request: web.Request, stored: StoredObject) -> dict[str, str]:
    asked = ("x-amz-checksum-mode", "ENABLED") in decode_query(request.raw_path.partition("?")[2])
    if not asked or stored.checksum == "none":
        return {}
    composite = stored.checksum == "composite"
    value = crc32_text(stored.crc32 ^ (0xFFFF if stored.checksum == "wrong" else 0))
    return {
        CRC_PARAMETER: f"{value}-3" if composite else value,
        "x-amz-checksum-type": "COMPOSITE" if composite else "FULL_OBJECT",
    }

"""How the object store gives an object away: conditions, ranges, checksums, and the faults in mid-body."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import IO

from aiohttp import web

from pipeline.sandbox.disk import READ_BYTES, StoredObject, pieces
from pipeline.sandbox.faults import Fault, Kind
from pipeline.sandbox.ranges import UnsatisfiableRange, asked_range, matches
from pipeline.sandbox.s3_errors import MESSAGES, S3Error
from pipeline.sandbox.s3_put import CRC_PARAMETER, crc32_text
from pipeline.sandbox.sigv4 import decode_query


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of an answer, and which bytes ``[start, end)`` follow."""

    response: web.StreamResponse
    start: int
    end: int


def head_of(request: web.Request, stored: StoredObject, *, whole: bool) -> Head:
    """Return the head of the answer. ``whole`` ignores the range, as some gateways do.

    Raises:
        S3Error: 412 where If-Match names another object, 416 where the range begins behind the end.
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


class Delivery:
    """Sends the body of one answer, as fast and as far as the faults allow."""

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
        """Send; yield the size of each piece that went out."""
        start, end = self._head.start, self._head.end
        if self._due and self._request.transport is not None:
            self._request.transport.set_write_buffer_limits(0)  # so that exactly these bytes are out when it happens
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
        """Let happen what is due after so many bytes; return whether the connection is gone."""
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

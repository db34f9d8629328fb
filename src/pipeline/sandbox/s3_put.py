"""How the object store takes an object: lengths, timeouts, checksums."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from typing import Final

from aiohttp import web

from pipeline.sandbox.disk import READ_BYTES, Incoming
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.s3_errors import S3Error
from pipeline.sandbox.sigv4 import decode_query

CRC_PARAMETER: Final = "x-amz-checksum-crc32"
EMPTY_CRC: Final = "AAAAAA=="
_MD5_BYTES: Final = 16


def check_length(headers: Mapping[str, str], limit: int) -> None:
    """Raise S3Error unless the body's length is announced and allowed."""
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
    """Write the body to disk; yield the size of each piece.

    Raises:
        S3Error: 400 RequestTimeout, where the body stopped coming.
        ConnectionResetError: The connection ended, or is to be cut here.
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
    """Raise S3Error where the body is not what the client, or the signer's URL, says.

    S3 signs ``x-amz-checksum-crc32`` in the query and ignores its value; other servers compare it (``enforce_query``).
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

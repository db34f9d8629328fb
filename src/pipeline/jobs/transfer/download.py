"""Downloads of input files."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Final, Literal

import aiohttp

from pipeline.jobs.transfer.failures import SourceChanged, SourceRefused
from pipeline.jobs.transfer.protocols import Download, SourceInfo, UrlSource
from pipeline.jobs.transfer.settings import TransferParameters
from pipeline.jobs.transfer.wire import PIECE_BYTES, Means, Wire
from pipeline.observability import Metrics
from pipeline.outbound import Circuit, Circuits

MAGIC: Final = b"\x1f\x8b"
"""The first bytes of every gzip file. No text begins with them."""

_GZIP_FORMAT: Final = 31
"""zlib's wbits for a gzip header and trailer with any window."""

_WINDOW: Final = 65_536
"""Bytes passed to zlib at once: it copies the rest of them after each member, and members may be tiny."""


class Gunzip:
    """Decompresses concatenated gzip members (RFC 1952), with optional zero padding after the last one.

    Feed it, then call :meth:`piece` until that returns nothing. Memory holds the fed bytes that are not decompressed
    yet, one piece, and zlib's window.
    """

    def __init__(self, max_piece: int) -> None:
        self._max_piece = max_piece
        self._member = zlib.decompressobj(_GZIP_FORMAT)
        self._pending = b""
        self._at = 0
        self._padding = False

    def feed(self, data: bytes) -> None:
        """Take compressed bytes."""
        self._pending = self._pending[self._at :] + data
        self._at = 0

    def piece(self) -> bytes:
        """Return the next decompressed bytes, at most ``max_piece``; b"" when more must be fed. CPU work.

        Raises:
            SourceRefused: The data is not gzip, or is damaged.
        """
        while self._at < len(self._pending):
            if self._member.eof and not self._next_member():
                continue
            window = self._pending[self._at : self._at + _WINDOW]
            try:
                out = self._member.decompress(window, self._max_piece)
            except zlib.error as error:
                raise _broken() from error
            left = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            self._at += len(window) - len(left)
            if out:
                return out
        return b""

    def finish(self) -> None:
        """Check that the stream may end here.

        Raises:
            SourceRefused: It ends in the middle of a member.
        """
        if not self._member.eof:
            raise SourceRefused(
                "source_gzip_truncated", "The file behind input_file_url is gzip and ends too early. Upload it again."
            )

    def _next_member(self) -> bool:
        """Drop padding; return whether another member begins in the next window."""
        window = self._pending[self._at : self._at + _WINDOW]
        rest = window.lstrip(b"\0")
        self._padding = self._padding or len(rest) < len(window)
        self._at += len(window) - len(rest)
        if not rest:
            return False
        if self._padding:
            raise _broken()
        self._member = zlib.decompressobj(_GZIP_FORMAT)
        return True


def _broken() -> SourceRefused:
    return SourceRefused(
        "source_gzip_broken", "The file behind input_file_url is a damaged gzip file. Upload it again."
    )


Encoding = Literal["identity", "gzip"]

_GZIP_NAMES: Final = frozenset({"gzip", "x-gzip"})
_OTHER_COMPRESSIONS: Final = frozenset(
    {"br", "bzip2", "compress", "dcb", "dcz", "deflate", "lz4", "lzma", "snappy", "x-bzip2", "x-compress", "xz", "zstd"}
)
"""Compressions that are not supported. Any other token of Content-Encoding, such as utf-8, is not a compression."""

_LOOKED_AT: Final = 64
"""Bytes to check whether a file with a Content-Encoding is plain text: compressed data has control characters."""
_NOT_IN_TEXT: Final = bytes(set(range(32)) - set(b"\t\n\f\r\x1a"))


class HttpDownloader:
    """Opens files behind pre-signed URLs.

    Args:
        session: Made by ``open_session(..., purpose="input", read_buffer_bytes=settings.read_ahead_bytes // 2)``.
        settings: Timeouts, minimum rate, tries.
        clock: Now, in UTC.
        metrics: Counts bytes and repeated tries, if given.
        circuit: Refuses downloads while their host keeps failing.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: TransferParameters,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics | None = None,
        circuit: Circuit | None = None,
    ) -> None:
        self._means = Means(session, settings, clock, metrics, circuit or Circuits().of("", "input"))

    def open(
        self,
        source: UrlSource,
        *,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
        encoding: Encoding | None = None,
    ) -> AbstractAsyncContextManager[Download]:
        """Open the file at byte ``start`` of its decompressed content; see ``Downloader``."""
        return self._open(source, start, end, etag, encoding)

    @asynccontextmanager
    async def _open(
        self, source: UrlSource, start: int, end: int | None, etag: str | None, encoding: Encoding | None
    ) -> AsyncGenerator[Download, None]:
        part = bool(start) or end is not None
        if part and not etag:
            raise SourceChanged(
                "source_changed",
                "Without an ETag, nothing proves that the file behind input_file_url is still the same.",
            )
        at_once = start if encoding == "identity" else 0
        wire = Wire(self._means, source, start=at_once, end=end, etag=etag or "" if part else "")
        try:
            yield await _begin(wire, start, known_plain=part and encoding == "identity")
        finally:
            wire.close()


async def _begin(wire: Wire, start: int, *, known_plain: bool) -> HttpDownload:
    """Read enough bytes to see the kind of the file, and go to the caller's start."""
    first = await wire.read()
    if known_plain:
        return HttpDownload(wire, "identity", first, skip=0)
    announced = _compressions(wire.content_encoding)
    needed = _LOOKED_AT if announced else len(MAGIC)
    while 0 < len(first) < needed and (more := await wire.read()):
        first += more
    encoding = _encoding(announced, first)
    if encoding == "identity" and start:
        wire.seek(start)
        return HttpDownload(wire, encoding, await wire.read(), skip=0)
    return HttpDownload(wire, encoding, first, skip=start)


def _compressions(header: str) -> frozenset[str]:
    """Return the compressions in a Content-Encoding."""
    tokens = {token.strip().lower() for token in header.split(",")}
    return frozenset(tokens & (_GZIP_NAMES | _OTHER_COMPRESSIONS))


def _encoding(announced: frozenset[str], first: bytes) -> Encoding:
    """Return how the file is compressed. Its bytes decide; the announced compression only affects the error message."""
    if first.startswith(MAGIC):
        return "gzip"
    if not announced or _is_text(first):
        return "identity"
    if announced <= _GZIP_NAMES:
        raise SourceRefused(
            "source_gzip_broken",
            "The file behind input_file_url has the Content-Encoding gzip, but is neither gzip nor plain text. Upload "
            "it again.",
        )
    names = ", ".join(sorted(announced))
    raise SourceRefused(
        "source_encoding_unknown",
        f"The file behind input_file_url is not plain text, and its Content-Encoding is {names}. Only gzip is "
        "supported: upload it plain or as gzip.",
    )


def _is_text(data: bytes) -> bool:
    return data.translate(None, _NOT_IN_TEXT) == data


class HttpDownload:
    """A running download: the bytes read to open it, then the rest from the wire."""

    def __init__(self, wire: Wire, encoding: Encoding, first: bytes, *, skip: int) -> None:
        self._wire = wire
        self._first = first
        self._skip = skip
        self._info = SourceInfo(etag=wire.etag, size=wire.size, encoding=encoding, ranged=wire.ranged)

    @property
    def info(self) -> SourceInfo:
        """What the object store says about the file."""
        return self._info

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes from the asked position; call it once."""
        return self._identity() if self._info.encoding == "identity" else self._decompressed()

    async def _identity(self) -> AsyncIterator[bytes]:
        data, self._first = self._first, b""
        while data:
            yield data
            data = await self._wire.read()

    async def _decompressed(self) -> AsyncIterator[bytes]:
        gunzip = Gunzip(PIECE_BYTES)
        async for data in self._identity():
            gunzip.feed(data)
            while piece := await asyncio.to_thread(gunzip.piece):
                dropped = min(self._skip, len(piece))
                self._skip -= dropped
                if dropped < len(piece):
                    yield piece[dropped:]
        gunzip.finish()
        if self._skip:
            raise SourceChanged("source_changed", "The file behind input_file_url is shorter than it was before.")

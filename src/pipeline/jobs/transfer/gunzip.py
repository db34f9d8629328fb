"""Gzip, as a stream of pieces. Pure."""

from __future__ import annotations

import zlib
from typing import Final

from pipeline.jobs.transfer.errors import SourceRefused

MAGIC: Final = b"\x1f\x8b"
"""The first bytes of every gzip file, and of no text."""

_GZIP_FORMAT: Final = 31
"""zlib's wbits for a gzip header and trailer with any window."""

_WINDOW: Final = 65_536
"""Bytes given to zlib at once: it copies what is left of them behind each member, and members may be tiny."""


class Gunzip:
    """Decompresses concatenated gzip members (RFC 1952), padding of zeros after the last one allowed.

    Feed it, then call :meth:`piece` until that returns nothing. Memory: what was fed and not yet taken, one piece, and
    zlib's window.
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
            SourceRefused: This is no gzip, or it is damaged.
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
        """Return if the stream may end here.

        Raises:
            SourceRefused: It ends in the middle of a member.
        """
        if not self._member.eof:
            raise SourceRefused(
                "source_gzip_truncated", "The file behind input_file_url is gzip and ends too early. Upload it again."
            )

    def _next_member(self) -> bool:
        """Say whether another member begins in the next window; drop padding."""
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
        "source_gzip_broken", "The file behind input_file_url is announced as gzip, and is damaged. Upload it again."
    )

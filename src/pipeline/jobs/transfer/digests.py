"""Computes the digests of an upload's bytes while they are being sent."""

from __future__ import annotations

import asyncio
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Final

MD5_ETAG: Final = re.compile(r'"?([0-9a-fA-F]{32})"?')
"""An ETag that may be the MD5 of a body."""


class Digests:
    """Digests of the bytes that were sent.

    Attributes:
        size: Number of bytes.
        crc32: CRC32 of the bytes.
    """

    def __init__(self) -> None:
        self.size = 0
        self.crc32 = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, piece: bytes) -> None:
        """Add bytes."""
        self.update_crc32(piece)
        self.update_md5(piece)

    def update_crc32(self, piece: bytes) -> None:
        """Add bytes to all but the MD5. Another thread may add them to the MD5 meanwhile."""
        self.size += len(piece)
        self.crc32 = zlib.crc32(piece, self.crc32)

    def update_md5(self, piece: bytes) -> None:
        """Add bytes to the MD5 alone."""
        self._md5.update(piece)

    @property
    def md5(self) -> bytes:
        """MD5 of the bytes."""
        return self._md5.digest()

    def are_of(self, etag: str) -> bool:
        """Return whether an ETag is the MD5 of the bytes."""
        found = MD5_ETAG.fullmatch(etag)
        return found is not None and bytes.fromhex(found[1]) == self.md5


_FEWEST_HASHED: Final = 131_072
"""Fewer bytes are hashed in less time than a thread needs to start."""
_MOST_UNHASHED: Final = 2_097_152
"""How many bytes may wait for the threads that hash, unless they are one piece: they stay in memory."""


class Hashing:
    """Computes the digests of pieces in two threads while the pieces are being sent.

    The MD5 takes longer than sending. So its thread must not wait for the event loop: the pieces that are sent while it
    works are hashed next, all at once.
    """

    def __init__(self) -> None:
        self._digests = Digests()
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._running: asyncio.Future[tuple[None, None]] | None = None

    async def add(self, piece: bytes) -> None:
        """Take the next piece; this waits while too many bytes are not hashed yet."""
        while self._running is not None and self._bytes and self._bytes + len(piece) > _MOST_UNHASHED:
            await self._ended(self._running)
        self._waiting.append(piece)
        self._bytes += len(piece)
        if self._running is None:
            self._begin()

    async def digests(self) -> Digests:
        """Return the digests of all pieces."""
        while self._running is not None:
            await self._ended(self._running)
        for piece in self._waiting:
            self._digests.update(piece)
        self._waiting, self._bytes = [], 0
        return self._digests

    def _begin(self) -> None:
        """Hash the waiting pieces, if they are worth a thread."""
        if self._bytes < _FEWEST_HASHED:
            return
        # for each piece a thread waits until the event loop gives it a turn: small ones are joined
        small = len(self._waiting[0]) < _FEWEST_HASHED
        pieces = [b"".join(self._waiting)] if small else self._waiting
        self._waiting, self._bytes = [], 0
        run, digests = asyncio.get_running_loop().run_in_executor, self._digests
        self._running = asyncio.gather(
            run(None, _each, digests.update_md5, pieces), run(None, _each, digests.update_crc32, pieces)
        )
        self._running.add_done_callback(self._continue)

    async def _ended(self, running: asyncio.Future[tuple[None, None]]) -> None:
        await asyncio.shield(running)  # the body may be cut off while the answer waits for the digests, too
        self._continue(running)

    def _continue(self, ended: asyncio.Future[tuple[None, None]]) -> None:
        if ended is self._running and not ended.cancelled() and ended.exception() is None:
            self._running = None
            self._begin()


def _each(update: Callable[[bytes], None], pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        update(piece)

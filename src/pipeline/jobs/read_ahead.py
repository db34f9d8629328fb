"""Reads the next parts of a result in advance, so that an upload does not wait for the store at each part."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Final

from pipeline.jobs.receipts import Manifest

PARTS_AHEAD: Final = 8
"""Maximum number of parts of one result that are read at the same time."""
BYTES_AHEAD: Final = 32 << 20
"""Maximum number of bytes read in advance for all results of a worker. A part beyond it is read when it is needed."""

Read = Callable[[str], AsyncGenerator[bytes, None]]


class ReadAhead:
    """The limits of one worker, shared by all its uploads.

    Args:
        parts: Maximum number of parts of one result read at the same time. With 0, each part is read when it is needed.
        total: Maximum number of bytes of all parts that are read in advance and not sent yet.
    """

    def __init__(self, parts: int = PARTS_AHEAD, total: int = BYTES_AHEAD) -> None:
        self.parts = parts
        self.free = total

    @asynccontextmanager
    async def over(self, manifests: Iterable[Manifest], read: Read) -> AsyncIterator[PartReads]:
        """Read the parts of one result in order, until the end of the block."""
        reads = PartReads(self, [one for one in manifests if one.inline is None], read)
        try:
            yield reads
        finally:
            await reads.close()


class PartReads:
    """The parts of one result: some are being read, others wait."""

    def __init__(self, bounds: ReadAhead, manifests: Iterable[Manifest], read: Read) -> None:
        self._bounds = bounds
        self._read = read
        self._waiting = deque(manifests)
        self._begun: dict[int, tuple[asyncio.Task[list[bytes]], int]] = {}

    async def stored(self, manifest: Manifest) -> AsyncGenerator[bytes, None]:
        """Yield the stored bytes of the next part. If reading it in advance failed, this raises the error."""
        self._advance()
        begun = self._begun.pop(manifest.number, None)
        if begun is None:
            if self._waiting and self._waiting[0] is manifest:
                self._waiting.popleft()
            async with aclosing(self._read(manifest.data)) as read:
                async for piece in read:
                    yield piece
            return
        task, size = begun
        try:
            pieces = await task
            self._advance()
            for piece in pieces:
                yield piece
        finally:
            self._bounds.free += size

    async def close(self) -> None:
        """Cancel the reads that are no longer needed."""
        begun, self._begun = [*self._begun.values()], {}
        for task, size in begun:
            task.cancel()
            self._bounds.free += size  # before the wait, which a second cancellation may end
        await asyncio.gather(*(task for task, _ in begun), return_exceptions=True)

    def _advance(self) -> None:
        """Begin to read as many of the next parts as the limits allow."""
        while self._waiting and len(self._begun) < self._bounds.parts and self._waiting[0].size <= self._bounds.free:
            manifest = self._waiting.popleft()
            self._bounds.free -= manifest.size
            self._begun[manifest.number] = asyncio.create_task(self._whole(manifest.data)), manifest.size

    async def _whole(self, key: str) -> list[bytes]:
        async with aclosing(self._read(key)) as read:
            return [piece async for piece in read]

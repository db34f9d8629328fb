"""A store that measures each call of another one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import Histogram

from pipeline.errors import TransientError
from pipeline.storage.protocols import ObjectInfo, ObjectStore


class MeteredStore:
    """Implements :class:`~pipeline.storage.ObjectStore` by another, observing seconds by operation and result.

    A stream or a listing is measured to its first piece: how long the rest takes is its reader's doing.
    """

    def __init__(self, store: ObjectStore, seconds: Histogram) -> None:
        self._store = store
        self._seconds = seconds

    async def create(self, key: str, data: bytes) -> bool:
        """See ObjectStore."""
        with self._measured("create"):
            return await self._store.create(key, data)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """See ObjectStore."""
        with self._measured("get"):
            return await self._store.get(key, start=start, end=end)

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncIterator[bytes]:
        """See ObjectStore."""
        pieces = self._store.stream(key, chunk_bytes=chunk_bytes)
        with self._measured("stream"):
            first = await anext(pieces, None)
        if first is not None:
            yield first
        async for piece in pieces:
            yield piece

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See ObjectStore."""
        infos = self._store.list(prefix)
        with self._measured("list"):
            first = await anext(infos, None)
        if first is not None:
            yield first
        async for info in infos:
            yield info

    async def folders(self, prefix: str) -> Sequence[str]:
        """See ObjectStore."""
        with self._measured("list"):
            return await self._store.folders(prefix)

    async def delete(self, key: str) -> None:
        """See ObjectStore."""
        with self._measured("delete"):
            await self._store.delete(key)

    async def check(self) -> None:
        """See ObjectStore."""
        with self._measured("check"):
            await self._store.check()

    async def close(self) -> None:
        """See ObjectStore."""
        await self._store.close()

    @contextmanager
    def _measured(self, op: str) -> Iterator[None]:
        begun = time.perf_counter()
        result = "failed"
        try:
            yield
            result = "ok"
        except TransientError:
            raise
        except BaseException:
            result = "ok"  # the store answered: there is no such object, or the caller was cancelled
            raise
        finally:
            self._seconds.labels(op, result).observe(time.perf_counter() - begun)

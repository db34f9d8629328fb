"""Helpers for every store: check that it creates an object only once, list in key order, measure its calls."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from prometheus_client import Histogram

from pipeline.errors import FatalError, PermanentError, TransientError
from pipeline.storage.protocols import ObjectInfo, ObjectStore, StoreUnavailable

T = TypeVar("T")

_REMEMBERED_SECONDS: Final = 120.0
"""After this time without another try, a failure says nothing about the current state of the store."""


async def probe(store: ObjectStore) -> None:
    """Create an object twice with different bytes, check that the store keeps the first, and delete it.

    Raises:
        StoreUnavailable: The storage did not answer, or does not show the object.
        FatalError: The second creation succeeded (``store_without_create``): the server ignores ``If-None-Match``.
    """
    key = f"check/{secrets.token_hex(16)}"
    try:
        first = await store.create(key, b"first")
        second = await store.create(key, b"second")
        found = await store.get(key, start=1, end=4)
        listed = [info.key async for info in store.list(key)]
    finally:
        await store.delete(key)
    if second or found != b"irs":
        raise FatalError(
            "store_without_create",
            "The storage allowed a second creation of an object: two workers could decide one job. Use a server "
            "that honours If-None-Match: * on PUT, or a file system with hard links",
        )
    if not first or listed != [key]:
        raise StoreUnavailable(
            "The storage does not show an object that was just created: it must be strongly consistent"
        )


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One entry of a folder.

    Attributes:
        path: Key of an object, or name of a folder with a slash at its end. Entries sorted by path have sorted keys.
        size: Bytes of an object; None for a folder.
        modified: When the object was written.
    """

    path: str
    size: int | None
    modified: datetime | None = field(default=None, compare=False)


ReadFolder = Callable[[str], AsyncIterator[Entry]]
"""Yields the entries of a folder ("" or ending with a slash), in order."""


async def walk(read_folder: ReadFolder, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
    """Yield all objects below ``prefix`` with keys greater than ``after``, in key order; see :meth:`ObjectStore.list`.

    File systems list in another order: ``a-b`` comes before ``a/b`` ("-" is less than "/"), but the folder ``a`` comes
    before the file ``a-b``. So a folder is compared as if its name ended with a slash. Memory use: that of
    ``read_folder``, for each level of folders.
    """
    folder = prefix[: prefix.rfind("/") + 1]
    async for info in _walk_folder(read_folder, folder, prefix, after):
        yield info


async def _walk_folder(read_folder: ReadFolder, folder: str, prefix: str, after: str) -> AsyncIterator[ObjectInfo]:
    async for entry in read_folder(folder):
        if not _wanted(entry.path, prefix, after):
            continue
        if entry.size is not None:
            yield ObjectInfo(entry.path, entry.size, entry.modified)
            continue
        async for info in _walk_folder(read_folder, entry.path, prefix, after):
            yield info


def _wanted(path: str, prefix: str, after: str) -> bool:
    """Return whether the listing may contain the object, or anything in the folder (a path that ends with a slash)."""
    if path.endswith("/"):
        return (path.startswith(prefix) or prefix.startswith(path)) and (path > after or after.startswith(path))
    return path.startswith(prefix) and path > after


class MeteredStore:
    """Measures each call of another :class:`~pipeline.storage.ObjectStore`, in seconds by operation and result.

    For a stream or a listing, it measures only the time to the first piece: the reader decides how long the rest takes.
    """

    def __init__(self, store: ObjectStore, seconds: Histogram, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._seconds = seconds
        self._clock = clock
        self._problems: dict[str, tuple[TransientError, float]] = {}

    @property
    def problem(self) -> TransientError | None:
        """The last failure of the store; None if its last calls succeeded.

        Each operation has its own state, because a full store still answers reads. A failure without another try is
        forgotten after two minutes.
        """
        since = self._clock() - _REMEMBERED_SECONDS
        return next((error for error, at in self._problems.values() if at > since), None)

    async def create(self, key: str, data: bytes) -> bool:
        """See ObjectStore."""
        with self._measured("create"):
            return await self._store.create(key, data)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """See ObjectStore."""
        with self._measured("get"):
            return await self._store.get(key, start=start, end=end)

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncGenerator[bytes, None]:
        """See ObjectStore."""
        async with aclosing(self._store.stream(key, chunk_bytes=chunk_bytes)) as pieces:
            async for piece in self._measured_first("stream", pieces):
                yield piece

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See ObjectStore."""
        return self._measured_first("list", self._store.list(prefix))

    def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See ObjectStore."""
        return self._measured_first("list", self._store.scan(prefix, after=after))

    async def folders(self, prefix: str) -> Sequence[str]:
        """See ObjectStore."""
        with self._measured("folders"):
            return await self._store.folders(prefix)

    async def replace(self, key: str, data: bytes) -> None:
        """See ObjectStore."""
        with self._measured("replace"):
            await self._store.replace(key, data)

    async def delete(self, key: str) -> None:
        """See ObjectStore."""
        with self._measured("delete"):
            await self._store.delete(key)

    async def delete_all(self, keys: Sequence[str]) -> None:
        """See ObjectStore; measured as one deletion."""
        with self._measured("delete"):
            await self._store.delete_all(keys)

    async def check(self) -> None:
        """See ObjectStore."""
        with self._measured("check"):
            await self._store.check()

    async def close(self) -> None:
        """See ObjectStore."""
        await self._store.close()

    async def _measured_first(self, op: str, items: AsyncIterator[T]) -> AsyncIterator[T]:
        """Yield the items and measure only the first one: the caller decides how fast it asks for the others."""
        with self._measured(op):
            first = await anext(items, None)
        if first is not None:
            yield first
        async for item in items:
            yield item

    @contextmanager
    def _measured(self, op: str) -> Iterator[None]:
        begun = time.perf_counter()
        result = "failed"
        try:
            yield
            result = "ok"
            self._problems.pop(op, None)
        except TransientError as error:
            self._problems[op] = error, self._clock()
            raise
        except PermanentError:
            result = "ok"  # the store answered: there is no such object
            self._problems.pop(op, None)
            raise
        except BaseException:
            result = "ok"  # the caller was cancelled
            raise
        finally:
            self._seconds.labels(op, result).observe(time.perf_counter() - begun)

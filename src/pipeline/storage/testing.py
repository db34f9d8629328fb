"""A store in memory that behaves like the real ones, for unit tests of code that uses a store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

from pipeline.storage.protocols import (
    ObjectInfo,
    ObjectNotFound,
    StoreUnavailable,
    check_folder,
    check_key,
    check_prefix,
)


class MemoryStore:
    """A store that keeps objects in a dict. Share one instance to let two workers race.

    Attributes:
        objects: The bytes by key. Tests may read and damage them.
        unavailable: While True, every method raises StoreUnavailable.
        lose_answers: How many of the next creations succeed, but raise StoreUnavailable.
        clock: Returns the time at which an object is written.
        modified: When each object was written.
    """

    def __init__(self) -> None:
        """Make an empty store."""
        self.objects: dict[str, bytes] = {}
        self.unavailable = False
        self.lose_answers = 0
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.modified: dict[str, datetime] = {}

    async def create(self, key: str, data: bytes) -> bool:
        """See ObjectStore."""
        self._reach()
        if check_key(key) not in self.objects:
            self.modified[key] = self.clock()
        standing = self.objects.setdefault(key, bytes(data))
        if self.lose_answers:
            self.lose_answers -= 1
            raise StoreUnavailable(f"The answer to the creation of {key} was lost, as the test asked for")
        return standing == data

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """See ObjectStore."""
        self._reach()
        try:
            return self.objects[check_key(key)][start:end]
        except KeyError:
            raise ObjectNotFound(key) from None

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncGenerator[bytes, None]:
        """See ObjectStore."""
        data = await self.get(key)
        for start in range(0, len(data), chunk_bytes):
            yield data[start : start + chunk_bytes]

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See ObjectStore."""
        self._reach()
        check_prefix(prefix)
        for key in sorted(key for key in self.objects if key.startswith(prefix)):
            if (data := self.objects.get(key)) is not None:
                yield ObjectInfo(key, len(data), self.modified.get(key))

    async def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See ObjectStore; in the order of folders, as on some servers."""
        self._reach()
        check_folder(prefix)
        found = sorted((key.split("/"), key) for key in self.objects if key.startswith(prefix))
        for names, key in found:
            if names > after.split("/") and (data := self.objects.get(key)) is not None:
                yield ObjectInfo(key, len(data), self.modified.get(key))

    async def folders(self, prefix: str) -> Sequence[str]:
        """See ObjectStore."""
        self._reach()
        below = (key.removeprefix(check_prefix(prefix)) for key in self.objects if key.startswith(prefix))
        return sorted({name for name, slash, _ in (rest.partition("/") for rest in below) if slash})

    async def replace(self, key: str, data: bytes) -> None:
        """See ObjectStore."""
        self._reach()
        self.objects[check_key(key)] = bytes(data)
        self.modified[key] = self.clock()

    async def delete(self, key: str) -> None:
        """See ObjectStore."""
        self._reach()
        self.objects.pop(check_key(key), None)

    async def delete_all(self, keys: Sequence[str]) -> None:
        """See ObjectStore."""
        self._reach()
        for key in [check_key(key) for key in keys]:
            self.objects.pop(key, None)

    async def check(self) -> None:
        """See ObjectStore."""
        self._reach()

    async def close(self) -> None:
        """See ObjectStore; the objects stay, so that a test can look at them."""

    def _reach(self) -> None:
        if self.unavailable:
            raise StoreUnavailable("The store is switched off by the test")

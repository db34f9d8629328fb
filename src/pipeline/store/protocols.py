"""What the job store and the audit log need of a storage: create-if-absent, ranged get, list, delete. Nothing is overwritten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object."""

    key: str
    size: int


class ObjectStore(Protocol):
    """Objects by key (slash-separated, no leading slash). Every method raises StoreUnavailable (TransientError) on I/O failure."""

    async def create(self, key: str, data: bytes) -> bool:
        """Create an object unless one exists, durably; return whether this call's object stands.

        Atomic: no reader ever sees a part of it. A lost answer is resolved by reading back: when the object that stands
        holds exactly ``data``, the call returns True, so put a nonce in whatever must tell two creators apart.
        """
        ...

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Return bytes ``[start, end)`` of an object.

        Raises:
            ObjectNotFound: There is no such object (PermanentError).
        """
        ...

    def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncIterator[bytes]:
        """Yield an object's bytes in pieces of at most ``chunk_bytes``; memory is bounded by one or two pieces."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in order of their keys (by code point)."""
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        ...

    async def check(self) -> None:
        """Raise StoreUnavailable, or FatalError where the storage lacks create-if-absent, unless the storage can be used."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...

"""What the job store and the audit log need of a storage: create-if-absent, ranged get, list, delete.

Nothing is ever overwritten.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object."""

    key: str
    size: int


class ObjectStore(Protocol):
    """Objects by key: slash-separated, no leading slash, no key a folder of another (``pipeline.storage.keys``).

    Every method raises StoreUnavailable (TransientError) on I/O failure, and ValueError for a key that is not allowed.
    """

    async def create(self, key: str, data: bytes) -> bool:
        """Create an object unless one exists, durably; return whether this call's object stands.

        Atomic: no reader ever sees a part of it. A lost answer is resolved by reading back: when the object that stands
        holds exactly ``data``, the call returns True, so put a nonce in whatever must tell two creators apart.
        """
        ...

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Return bytes ``[start, end)`` of an object; like a slice, a range beyond the end gives fewer bytes or none.

        Raises:
            ObjectNotFound: There is no such object (PermanentError).
        """
        ...

    def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncIterator[bytes]:
        """Yield an object's bytes in pieces of at most ``chunk_bytes``; memory is bounded by one or two pieces.

        Raises:
            ObjectNotFound: There is no such object.
        """
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in order of their keys (by code point), lazily.

        Objects created or deleted meanwhile may or may not be seen. Memory is bounded by the number of folders that
        lie in one folder, not by the number of objects.

        Args:
            prefix: Empty, or any beginning of a key; most efficient when it ends with a slash.
        """
        ...

    async def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders directly below ``prefix`` (empty, or ending with a slash), in order.

        Cheaper than a listing of what is in them. A folder is there as long as an object is.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        ...

    async def check(self) -> None:
        """Return if the storage can be used: an object can be created once, read, listed and deleted.

        Raises:
            StoreUnavailable: It cannot be reached or written; the message says what to do.
            FatalError: It lacks create-if-absent: two workers could both win, so it must not be used at all.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...

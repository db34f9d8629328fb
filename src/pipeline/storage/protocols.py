"""The storage that the job store and the audit log need: create-if-absent, ranged get, list, delete.

No object is ever overwritten.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from pipeline.errors import PermanentError, TransientError

MAX_KEY_CHARS: Final = 900
"""S3 allows 1,024 bytes, which include the configured prefix. A file system allows 255 per segment."""

_NAME: Final = r"[A-Za-z0-9_=+@,:~-][A-Za-z0-9_=+@,:~.-]{0,254}"
_KEY: Final = re.compile(rf"(?:{_NAME}/)*{_NAME}")
_PREFIX: Final = re.compile(rf"(?:{_NAME}/)*(?:{_NAME})?")


class StoreUnavailable(TransientError):
    """The storage did not carry out the call, or its answer was lost.

    Repeating is safe: ``create`` reads the object back and recognises its own.
    """

    def __init__(self, message: str, *, code: str = "store_unavailable", retry_after: float | None = None) -> None:
        """Say what failed and what to do; ``message`` names keys and folders, never credentials."""
        super().__init__(code, message, retry_after=retry_after)


class StoreFull(StoreUnavailable):
    """The storage is full. Only more space helps."""

    def __init__(self, message: str) -> None:
        """Say what failed and what to do."""
        super().__init__(message, code="store_full")


class StoreForbidden(StoreUnavailable):
    """The storage refuses access: the permissions or the keys are wrong."""

    def __init__(self, message: str) -> None:
        """Say what failed and what to do."""
        super().__init__(message, code="store_forbidden")


class ObjectNotFound(PermanentError):
    """The store holds no object with this key.

    Attributes:
        key: The key that was asked for.
    """

    def __init__(self, key: str) -> None:
        """Name the key."""
        super().__init__("object_not_found", f"The store holds no object {key!r}")
        self.key = key


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object.

    Attributes:
        key: Its key.
        size: Its size in bytes.
        modified: When it was written, by the storage's clock; None if the storage does not say.
    """

    key: str
    size: int
    modified: datetime | None = None


class ObjectStore(Protocol):
    """Objects by key.

    Keys are separated by slashes and do not begin with one (:func:`check_key`). No key is a folder of another. Every
    method raises StoreUnavailable (TransientError) when I/O fails, and ValueError for a key that is not allowed.
    """

    async def create(self, key: str, data: bytes) -> bool:
        """Create an object durably, unless one exists.

        Creation is atomic: no reader sees a part of the object. When an answer is lost, the call reads the object back
        and returns True if it holds exactly ``data``. Put a nonce into the data if you need to know which of two
        creators won.

        Returns:
            True: the store holds this call's object. False: it holds an object with other bytes.

        Raises:
            StoreUnavailable: The result is unknown: the answer was lost, or the creation was refused although there is
                no object (another creation is under way, or the object was deleted). Repeat the call.
        """
        ...

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Return bytes ``[start, end)`` of an object; like a slice, a range beyond the end gives fewer bytes or none.

        Raises:
            ObjectNotFound: There is no such object (PermanentError).
        """
        ...

    def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncGenerator[bytes, None]:
        """Yield an object's bytes in pieces of at most ``chunk_bytes``; it holds one or two pieces in memory.

        The iterator holds a file or a connection until it ends. A caller that may stop earlier closes it
        (``contextlib.aclosing``).

        Raises:
            ObjectNotFound: There is no such object.
        """
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in order of their keys (by code point), lazily.

        An object that is created or deleted during the listing may be listed or not. Memory grows with the number of
        folders in one folder, not with the number of objects.

        Args:
            prefix: Empty, or any beginning of a key. A prefix that ends with a slash is most efficient.
        """
        ...

    def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield the objects below a folder, lazily. A caller that stops early saves requests.

        The order is that of the server: by key on some servers, by folder on others. All servers agree only about two
        keys whose first different segments have equal lengths: the smaller key comes first.

        Args:
            prefix: Empty, or ending with a slash.
            after: Begin after this key; empty: at the first one.
        """
        ...

    async def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders directly below ``prefix`` (empty, or ending with a slash), in order.

        This costs less than listing the objects in them. A folder exists as long as it holds an object.
        """
        ...

    async def replace(self, key: str, data: bytes) -> None:
        """Replace the bytes of an object durably. A reader sees either the old or the new bytes.

        Use it only to erase data. The new bytes must hold less than the old ones, but lead to the same decisions. So it
        does not matter which of several callers is last. If there is no object, it creates one.
        """
        ...

    async def delete(self, key: str) -> None:
        """Delete an object; if there is none, do nothing."""
        ...

    async def delete_all(self, keys: Sequence[str]) -> None:
        """Delete objects, in any order; ignore missing ones.

        On S3 it is one request per 1,000 keys. After an error, some objects may be deleted: repeat the call.
        """
        ...

    async def check(self) -> None:
        """Check that the storage can be used: an object can be created once, read, listed and deleted.

        Raises:
            StoreUnavailable: The storage cannot be reached or written; the message says what to do.
            FatalError: The storage lacks create-if-absent: two workers could both win, so do not use it at all.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


def creation_unknown(key: str, store: str) -> StoreUnavailable:
    """Return the error of a creation that was refused several times although there is no object."""
    return StoreUnavailable(
        f"Could not create {key!r} in {store}: each try was refused, but there is no such object. Another writer may "
        "be creating it, or something deletes it; the pipeline tries again"
    )


def check_key(key: str) -> str:
    """Return the key, or raise ValueError: a wrong key is a mistake in the calling code, not in the data.

    A key has the same meaning in a folder, in S3, and in a log line. Single slashes separate its segments. A segment
    holds ASCII letters, digits and ``_ = + @ , : ~ . -``, and does not begin with a dot. That rules out ``..``,
    absolute paths, and the files in which the store itself works.
    """
    if len(key) > MAX_KEY_CHARS or not _KEY.fullmatch(key):
        raise ValueError(
            f"{key!r} is not a store key: see check_key in pipeline.storage.protocols for the allowed characters"
        )
    return key


def is_key(key: str) -> bool:
    """Return whether a key is allowed (:func:`check_key`); others may have put objects with other keys into a store."""
    try:
        check_key(key)
    except ValueError:
        return False
    return True


def check_prefix(prefix: str) -> str:
    """Return the prefix of a listing (empty, or any beginning of a key), or raise ValueError."""
    if len(prefix) > MAX_KEY_CHARS or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is not a prefix of a store key")
    return prefix


def check_folder(prefix: str) -> str:
    """Return the prefix of a folder (empty, or ending with a slash), or raise ValueError."""
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"{prefix!r} does not name a folder: end it with a slash")
    return check_prefix(prefix)

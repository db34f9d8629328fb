"""The objects of the store, one file each, replaced atomically."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, Final, Literal

READ_BYTES: Final = 1 << 18

Checksum = Literal["none", "crc32", "composite", "wrong"]
"""The CRC32 in the answer to a whole GET: none, the value, a multipart value (not verifiable), or a wrong one."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One stored object.

    Attributes:
        path: Its file. A replaced object gets a new file, so open handles still read the old one.
        md5: Hex digest; in quotes it is the ETag.
        crc32: Of the content.
        content_encoding: As stored, e.g. ``gzip``.
    """

    path: Path
    size: int
    md5: str
    crc32: int
    modified: datetime
    content_encoding: str | None = None
    checksum: Checksum = "none"

    @property
    def etag(self) -> str:
        """The ETag with its quotes."""
        return f'"{self.md5}"'


class Incoming:
    """An object that is being written. :meth:`Disk.keep` makes it visible."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.crc32 = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._file = path.open("ab")

    @property
    def md5(self) -> bytes:
        """MD5 of the bytes so far."""
        return self._md5.digest()

    async def write(self, data: bytes) -> None:
        """Append bytes."""
        await asyncio.to_thread(self._append, data)

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._count(data)

    def _count(self, data: bytes) -> None:
        self.size += len(data)
        self.crc32 = zlib.crc32(data, self.crc32)
        self._md5.update(data)

    def count_existing(self) -> None:
        """Count the existing contents of the file as written. It blocks."""
        with self.path.open("rb") as file:
            while data := file.read(READ_BYTES):
                self._count(data)

    def close(self) -> None:
        """Write the buffer to the file."""
        self._file.close()

    def discard(self) -> None:
        """Delete the written data."""
        self.close()
        self.path.unlink(missing_ok=True)


class Disk:
    """Objects by key. Files have numbers as names, so no key can point outside the folder. A restart forgets them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._objects: dict[str, StoredObject] = {}
        self._numbers = count(1)

    def get(self, key: str) -> StoredObject | None:
        """Return the object with this key, or None."""
        return self._objects.get(key)

    def open(self, key: str) -> tuple[StoredObject, IO[bytes]] | None:
        """Return the object with this key and its open file. It can be read to its end even after a replacement."""
        stored = self.get(key)
        return None if stored is None else (stored, stored.path.open("rb"))

    def new_path(self) -> Path:
        """Return a path that no object of this store has. It deletes any file of an earlier run there."""
        path = self._folder / f"object-{next(self._numbers)}"
        path.unlink(missing_ok=True)
        return path

    def incoming(self) -> Incoming:
        """Start writing an object."""
        return Incoming(self.new_path())

    async def adopt(
        self,
        key: str,
        path: Path,
        *,
        modified: datetime,
        content_encoding: str | None = None,
        checksum: Checksum = "none",
    ) -> StoredObject:
        """Store a file from :meth:`new_path` under a key."""
        incoming = Incoming(path)
        await asyncio.to_thread(incoming.count_existing)
        return self.keep(key, incoming, modified=modified, content_encoding=content_encoding, checksum=checksum)

    def keep(
        self,
        key: str,
        incoming: Incoming,
        *,
        modified: datetime,
        content_encoding: str | None = None,
        checksum: Checksum = "none",
    ) -> StoredObject:
        """Store a written object under its key, and replace any other."""
        incoming.close()
        before = self._objects.get(key)
        stored = StoredObject(
            incoming.path, incoming.size, incoming.md5.hex(), incoming.crc32, modified, content_encoding, checksum
        )
        self._objects[key] = stored
        if before is not None:
            before.path.unlink(missing_ok=True)
        return stored


async def pieces(file: IO[bytes], start: int, end: int, piece_bytes: int = READ_BYTES) -> AsyncIterator[bytes]:
    """Yield bytes ``[start, end)`` of an open file."""
    file.seek(start)
    while start < end and (data := await asyncio.to_thread(file.read, min(piece_bytes, end - start))):
        start += len(data)
        yield data

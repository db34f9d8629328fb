"""Card files on this machine: reads them in pieces, and writes them under a temporary name."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from pipeline.cli.exits import UsageRefused
from pipeline.jobs.csv_engine import CsvError
from pipeline.jobs.transfer import SourceRefused
from pipeline.jobs.transfer.download import MAGIC, Gunzip

_PIECE: Final = 1 << 20


class Aside:
    """A file that gets its name only when it is complete. Memory does not grow with its size."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}.{os.getpid()}.partial")
        self._hash = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> Self:
        """Open a temporary file in the target's folder."""
        try:
            # only its owner may read card data
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        except OSError as error:
            raise UsageRefused("output_unwritable", f"{self._target} cannot be written ({error.strerror})") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the temporary file unless :meth:`keep` was called."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    async def write(self, data: bytes) -> None:
        """Append data, in a thread, since the disk may be slow."""
        await asyncio.to_thread(self._write, data)

    async def keep(self) -> str:
        """Rename the file to its target, durably; return its SHA-256 in hex."""
        await asyncio.to_thread(self._keep)
        return self._hash.hexdigest()

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._size += len(data)
        self._file.write(data)

    def _keep(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.replace(self._target)


async def plain_bytes(file: BinaryIO) -> AsyncIterator[bytes]:
    """Yield a file's bytes in pieces of at most 1 MiB, decompressed if it begins like gzip.

    Raises:
        CsvError: The gzip data is damaged or ends too early.
    """
    piece = await asyncio.to_thread(file.read, _PIECE)
    gunzip = Gunzip(_PIECE) if piece.startswith(MAGIC) else None
    try:
        while piece:
            if gunzip is None:
                yield piece
            else:
                gunzip.feed(piece)
                while plain := await asyncio.to_thread(gunzip.piece):
                    yield plain
            piece = await asyncio.to_thread(file.read, _PIECE)
        if gunzip is not None:
            gunzip.finish()
    except SourceRefused as error:
        # the same fault as in a download, with a message about a local file
        raise CsvError(error.code, "The file begins like gzip, but its data is damaged or ends too early.") from error

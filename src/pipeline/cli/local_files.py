"""Card files on this machine: read in pieces, written aside."""

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
    """A file that takes its name only when it is complete; memory does not grow with it."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}.{os.getpid()}.partial")
        self._hash = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> Self:
        """Open the file beside its place."""
        try:
            # card data: for its owner only
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        except OSError as error:
            raise UsageRefused("output_unwritable", f"{self._target} cannot be written ({error.strerror})") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind unless the file was kept."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._size

    async def write(self, data: bytes) -> None:
        """Append; in a thread, since the disk may be slow."""
        await asyncio.to_thread(self._write, data)

    async def keep(self) -> str:
        """Give the file its name, durably; return its SHA-256 in hex."""
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
    """Yield a file's bytes in pieces of at most 1 MiB, decompressed where its first bytes are gzip's.

    Raises:
        CsvError: The gzip data are damaged or end too early.
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
        # the same fault as of a download, in words for a file at hand
        raise CsvError(error.code, "The file begins like gzip, but its data are damaged or end too early.") from error

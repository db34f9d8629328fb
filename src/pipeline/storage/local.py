"""Objects as files below one folder of a POSIX file system."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import heapq
import os
import secrets
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader

from pipeline.errors import FatalError
from pipeline.storage.any_store import Entry, probe, walk
from pipeline.storage.protocols import (
    ObjectInfo,
    ObjectNotFound,
    StoreForbidden,
    StoreFull,
    StoreUnavailable,
    check_folder,
    check_key,
    check_prefix,
    creation_unknown,
)

_ASIDE: Final = ".incoming"
"""Folder for files that are being written.

No key can name it. It is on the same file system, so that ``link`` works.
"""

_STALE_SECONDS: Final = 600.0
"""Writing an object takes seconds. An older file is left from a killed process, and may hold card data."""

_NAMES_AT_ONCE: Final = 50_000
"""Maximum number of names of a folder held in memory while listing. A larger folder is read several times."""

_ENTRIES_AT_ONCE: Final = 500
"""Number of files whose size one thread call reads. A caller that needs only the first file waits for all of them."""

_FOLDERS_KEPT: Final = 10_000
"""How many folders a store remembers as durable. Then it forgets them all, and flushes each folder once more."""

_FOLDER_RACES: Final = 100
"""How often another worker may delete a folder between its creation and the link, or an object between the link and the
read."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_ADVICE: Final = {
    errno.ENOSPC: "the disk is full: free space; the work then continues by itself",
    errno.EDQUOT: "the disk quota is used up: raise it or free space; the work then continues by itself",
    errno.EACCES: "permission denied: let the user of this process read and write the folder",
    errno.EPERM: "not permitted: let the user of this process read and write the folder",
    errno.EROFS: "the file system is mounted read-only: mount it writable",
    errno.EIO: "the device reports an input/output error: check the disk",
}


class LocalStore:
    """Objects in a folder. Processes of one machine can share it, and so can machines that share its file system.

    A shared file system must support hard links.

    The store writes an object to a temporary file, flushes it to the device (fsync), and links it to its name. The link
    fails if the name exists, so exactly one of two creators wins, and no reader sees half an object. Files have mode
    0600, folders 0700. Blocking calls run in threads.

    Args:
        root: The folder; the first call creates it.
    """

    def __init__(self, root: Path) -> None:
        """Remember the folder."""
        self._root = root.absolute()
        self._aside = self._root / _ASIDE
        self._cleaned = float("-inf")
        self._durable: dict[Path, int] = {}

    def __repr__(self) -> str:
        """Name the folder."""
        return f"LocalStore({str(self._root)!r})"

    async def create(self, key: str, data: bytes) -> bool:
        """See ObjectStore; one thread call, two fsyncs, and one more for each folder that this store sees first.

        Every ten minutes it also removes files that killed processes left at least ten minutes ago.
        """
        return await asyncio.to_thread(self._create, check_key(key), data)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """See ObjectStore; one thread call, which closes the file even if the caller is cancelled."""
        return await asyncio.to_thread(self._read, check_key(key), start, end)

    async def stream(self, key: str, *, chunk_bytes: int = 1 << 18) -> AsyncGenerator[bytes, None]:
        """See ObjectStore."""
        with self._translated("read", check_key(key)):
            async with _opened(self._root / key) as file:
                while piece := await file.read(chunk_bytes):
                    yield piece

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """See ObjectStore; it holds at most 50,000 names in memory for each level of folders."""
        check_prefix(prefix)
        async for info in walk(self._read_folder, prefix):
            yield info

    async def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        """See ObjectStore; in key order. It opens each folder only when the listing reaches it."""
        check_folder(prefix)
        async for info in walk(self._read_folder, prefix, after=after):
            yield info

    async def folders(self, prefix: str) -> Sequence[str]:
        """See ObjectStore."""
        return await asyncio.to_thread(self._folders, check_prefix(prefix))

    async def replace(self, key: str, data: bytes) -> None:
        """See ObjectStore; one thread call, two fsyncs."""
        await asyncio.to_thread(self._replace, check_key(key), data)

    async def delete(self, key: str) -> None:
        """See ObjectStore; it also removes folders that become empty."""
        await asyncio.to_thread(self._delete_all, [check_key(key)])

    async def delete_all(self, keys: Sequence[str]) -> None:
        """See ObjectStore; one thread call, one fsync for each folder."""
        await asyncio.to_thread(self._delete_all, [check_key(key) for key in keys])

    async def check(self) -> None:
        """See ObjectStore; it also removes files that killed processes left at least ten minutes ago."""
        await asyncio.to_thread(self._clean)
        await probe(self)

    async def close(self) -> None:
        """See ObjectStore; there is nothing to release."""

    def _create(self, key: str, data: bytes) -> bool:
        target = self._root / key
        if time.monotonic() - self._cleaned > _STALE_SECONDS:
            self._clean()
        with self._translated("write", key):
            aside = self._write_aside(data)
            try:
                for _ in range(_FOLDER_RACES):
                    if (holds := self._try_link(aside, target, data)) is not None:
                        return holds
            finally:
                aside.unlink(missing_ok=True)
        raise creation_unknown(key, str(self._root))

    def _replace(self, key: str, data: bytes) -> None:
        target = self._root / key
        with self._translated("write", key):
            self._make_folder(target.parent)
            self._write_aside(data).replace(target)
            _sync_folder(target.parent)

    def _try_link(self, aside: Path, target: Path, data: bytes) -> bool | None:
        """Return whether the target holds the data; None if another worker deleted it before it was read."""
        won = self._link(aside, target)
        try:
            # the loser also syncs: the object that it continues from must be durable
            _sync_folder(target.parent)
            return won or target.read_bytes() == data
        except FileNotFoundError:
            return True if won else None

    def _write_aside(self, data: bytes) -> Path:
        self._make_folder(self._aside)
        aside = self._aside / f"{os.getpid()}-{secrets.token_hex(8)}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        return aside

    def _link(self, aside: Path, target: Path) -> bool:
        for _ in range(_FOLDER_RACES):
            self._make_folder(target.parent)
            try:
                os.link(aside, target)
            except FileExistsError:
                return False
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in {errno.EPERM, errno.ENOTSUP}:
                    raise FatalError(
                        "store_without_create",
                        f"The file system of {self._root} has no hard links, which the store needs: use another one",
                    ) from error
                raise
            return True
        raise StoreUnavailable(
            f"The folder of {target} is deleted whenever it is created. Which other program works on it?"
        )

    def _make_folder(self, folder: Path) -> None:
        """Make a folder durably. It also flushes a folder that another worker made, which may not be durable yet."""
        inode = _inode(folder)
        if inode is not None and self._durable.get(folder) == inode:
            return
        if folder != self._root:
            self._make_folder(folder.parent)
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                folder.mkdir(mode=0o700)
        else:
            _make_root(folder)
        inode = _inode(folder)
        if inode is None:
            return  # another worker has just removed it
        with contextlib.suppress(FileNotFoundError):
            (_sync_above if folder == self._root else _sync_folder)(folder.parent)
            if len(self._durable) >= _FOLDERS_KEPT:
                self._durable.clear()
            self._durable[folder] = inode

    def _delete_all(self, keys: Sequence[str]) -> None:
        folders = set()
        for key in keys:
            with self._translated("delete", key, missing_is_error=False):
                (self._root / key).unlink(missing_ok=True)
                folders.add(key.rpartition("/")[0])
        for folder in sorted(folders, reverse=True):  # inner folders come first
            with self._translated("delete", folder, missing_is_error=False):
                self._settle_deletions(self._root / folder)

    def _settle_deletions(self, folder: Path) -> None:
        """Make deletions in a folder durable, and remove the folders that they left empty.

        If another worker removed the folder right after a deletion, it makes that removal durable.
        """
        while not folder.is_dir():
            if folder == self._root:
                return
            folder = folder.parent
        _sync_folder(folder)
        while folder != self._root:
            self._durable.pop(folder, None)
            try:
                folder.rmdir()
            except OSError:
                return  # not empty, or another worker uses it
            folder = folder.parent

    def _clean(self) -> None:
        self._cleaned = time.monotonic()
        with self._translated("clean", _ASIDE):
            self._make_folder(self._aside)
            for left in self._aside.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                        left.unlink()

    async def _read_folder(self, folder: str) -> AsyncIterator[Entry]:
        paths = await asyncio.to_thread(self._first_paths, folder, "")
        while paths:
            for start in range(0, len(paths), _ENTRIES_AT_ONCE):
                for entry in await asyncio.to_thread(self._entries, paths[start : start + _ENTRIES_AT_ONCE]):
                    yield entry
            if len(paths) < _NAMES_AT_ONCE:
                return
            paths = await asyncio.to_thread(self._first_paths, folder, paths[-1])

    def _read(self, key: str, start: int, end: int | None) -> bytes:
        with self._translated("read", key), (self._root / key).open("rb") as file:
            file.seek(start)
            return file.read(-1 if end is None else max(0, end - start))

    def _folders(self, prefix: str) -> Sequence[str]:
        with self._translated("list", prefix), self._scanned(prefix) as found:
            return sorted(entry.name for entry in found if _is_folder(entry) and not entry.name.startswith("."))

    def _first_paths(self, folder: str, seen: str) -> Sequence[str]:
        """Return the first paths of a folder after ``seen``, in order."""
        with self._translated("list", folder), self._scanned(folder) as found:
            beyond = (path for path in _paths(found, folder) if path > seen)
            return heapq.nsmallest(_NAMES_AT_ONCE, beyond)

    @contextlib.contextmanager
    def _scanned(self, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        try:
            found = os.scandir(self._root / folder)
        except (FileNotFoundError, NotADirectoryError):
            yield iter(())
            return
        with found:
            yield found

    def _entries(self, paths: Sequence[str]) -> Sequence[Entry]:
        with self._translated("list", paths[0]):
            return [entry for path in paths if (entry := self._entry(path)) is not None]

    def _entry(self, path: str) -> Entry | None:
        if path.endswith("/"):
            return Entry(path, None)
        try:
            found = (self._root / path).stat()
        except FileNotFoundError:
            return None
        return Entry(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    @contextlib.contextmanager
    def _translated(self, verb: str, key: str, *, missing_is_error: bool = True) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if verb == "read":
                raise ObjectNotFound(key) from error
            if missing_is_error:
                raise self._unavailable(verb, key, error) from error
        except OSError as error:
            raise self._unavailable(verb, key, error) from error

    def _unavailable(self, verb: str, key: str, error: OSError) -> StoreUnavailable:
        reason = _ADVICE.get(error.errno or 0, (error.strerror or type(error).__name__).lower())
        kind = StoreFull if error.errno in _FULL else StoreForbidden if error.errno in _FORBIDDEN else StoreUnavailable
        return kind(f"Could not {verb} {key!r} in {self._root}: {reason}")


def _paths(found: Iterator[os.DirEntry[str]], folder: str) -> Iterator[str]:
    for entry in found:
        if not entry.name.startswith("."):
            yield f"{folder}{entry.name}/" if _is_folder(entry) else folder + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


@contextlib.asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[AsyncBufferedReader]:
    """Open a file for reading; close it even if the caller is cancelled meanwhile."""
    opening = asyncio.ensure_future(aiofiles.open(path, "rb"))
    try:
        await _ended(opening)
        yield opening.result()
    finally:
        if not opening.cancelled() and opening.exception() is None:
            await _ended(asyncio.ensure_future(opening.result().close()))


async def _ended(work: asyncio.Future[Any]) -> None:
    """Wait for work in a thread. Its cancellation could lose the open file, so a cancelled caller waits as well."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _inode(folder: Path) -> int | None:
    try:
        found = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino if stat.S_ISDIR(found.st_mode) else None


def _make_root(root: Path) -> None:
    """Make the folder of the store durably, with all missing folders above it."""
    for missing in [above for above in reversed(root.parents) if not above.is_dir()]:
        with contextlib.suppress(FileExistsError):
            missing.mkdir(mode=0o777)
        _sync_above(missing.parent)
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)


def _sync_above(folder: Path) -> None:
    """Sync a folder above the store, if this user may. Otherwise another user has made the folder of the store."""
    with contextlib.suppress(PermissionError):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make a new or removed name durable. POSIX guarantees this only after a sync of the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

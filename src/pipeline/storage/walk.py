"""Listing folder by folder in the order of whole keys, which is not the order in which folders list themselves.

``a-b`` comes before ``a/b`` ("-" is less than "/"), although the folder ``a`` comes before the file ``a-b``. A folder's
entry is therefore compared as if its name ended with a slash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from pipeline.storage.protocols import ObjectInfo


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One entry of a folder.

    Attributes:
        path: Key of an object, or of a folder with a slash at its end; sorting entries by it sorts the keys below them.
        size: Bytes of an object; None for a folder.
    """

    path: str
    size: int | None


ReadFolder = Callable[[str], AsyncIterator[Entry]]
"""Yields the entries of a folder ("" or ending with a slash), in order."""


async def walk(read_folder: ReadFolder, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
    """Yield all objects below ``prefix`` with keys greater than ``after``, in key order; see :meth:`ObjectStore.list`.

    Memory: what ``read_folder`` holds, for each level of folders.
    """
    folder = prefix[: prefix.rfind("/") + 1]
    async for info in _walk_folder(read_folder, folder, prefix, after):
        yield info


async def _walk_folder(read_folder: ReadFolder, folder: str, prefix: str, after: str) -> AsyncIterator[ObjectInfo]:
    async for entry in read_folder(folder):
        if not _wanted(entry.path, prefix, after):
            continue
        if entry.size is not None:
            yield ObjectInfo(entry.path, entry.size)
            continue
        async for info in _walk_folder(read_folder, entry.path, prefix, after):
            yield info


def _wanted(path: str, prefix: str, after: str) -> bool:
    """Whether the object, or anything in the folder (``path`` ends with a slash), may belong to the listing."""
    if path.endswith("/"):
        return (path.startswith(prefix) or prefix.startswith(path)) and (path > after or after.startswith(path))
    return path.startswith(prefix) and path > after

"""Records what code does to the files below a folder, and what is left of it if the machine dies at some point.

The model is POSIX, not one file system. The bytes of a file are durable after an fsync of the file. That a name was
made or removed is durable after an fsync of its folder. Until then each may be lost or kept, independently of the
others. Only the operations on one name keep their order.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import pytest

_ALL_UP_TO: Final = 64
"""So many combinations are all tried; of more, the extremes and as many others."""


@dataclass(slots=True)
class Inode:
    """A file or a folder.

    Attributes:
        data: Of a file: its bytes.
        durable: Of a file: the bytes at its last fsync.
        names: Of a folder: for each name the inodes that it had, None where it had none, from the durable one on.
    """

    data: bytes | None = None
    durable: bytes = b""
    names: dict[str, list[Inode | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of the file system."""

    what: str
    path: str = ""
    other: str = ""
    data: bytes = b""


class FileLog:
    """The operations below a folder, in order."""

    def __init__(self, root: Path) -> None:
        self.operations: list[Operation] = []
        self._root = root
        self._open: dict[int, str] = {}

    @contextmanager
    def recording(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Record what this process does meanwhile."""
        real_open, real_fsync, real_fdopen = os.open, os.fsync, os.fdopen

        def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
            descriptor = real_open(path, flags, *args, **options)
            self._opened(descriptor, path, flags)
            return descriptor

        def synced(descriptor: int) -> None:
            real_fsync(descriptor)
            if descriptor in self._open:
                self.operations.append(Operation("fsync", self._open[descriptor]))

        def fdopened(descriptor: int, *args: Any, **options: Any) -> Any:
            file = real_fdopen(descriptor, *args, **options)
            return _Writer(file, lambda data: self._wrote(descriptor, data)) if descriptor in self._open else file

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", opened)
            patch.setattr(os, "fsync", synced)
            patch.setattr(os, "fdopen", fdopened)
            for name in ("unlink", "mkdir", "rmdir", "link", "replace"):
                patch.setattr(os, name, self._noting(name))
            yield

    def _noting(self, name: str) -> Callable[..., None]:
        """Return a function of ``os`` on one or two paths that is also noted, once it has succeeded."""
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> None:
            real(*args, **options)
            paths = [self._name(path) for path in args[: 2 if name in {"link", "replace"} else 1]]
            if paths[0] is not None:
                self.operations.append(Operation(name, paths[0], paths[-1] or ""))

        return call

    def _opened(self, descriptor: int, path: Any, flags: int) -> None:
        name = self._name(path)
        self._open.pop(descriptor, None)
        if name is not None:
            self._open[descriptor] = name
            if flags & os.O_CREAT:
                self.operations.append(Operation("create", name))

    def _wrote(self, descriptor: int, data: bytes) -> None:
        self.operations.append(Operation("write", self._open[descriptor], data=bytes(data)))

    def _name(self, path: Any) -> str | None:
        text = os.fspath(path) if not isinstance(path, int) else ""
        below = os.path.relpath(text, self._root) if text else ".."
        return None if below.startswith("..") else below

    def crashes(self, cut: int, seed: int = 0) -> Iterator[dict[str, bytes]]:
        """Yield the files that may be left if the machine dies after so many operations: path to bytes."""
        root = Inode()
        for operation in self.operations[:cut]:
            _apply(root, operation)
        yield from _states(root, random.Random(seed))  # noqa: S311 - the same each time


class _Writer:
    """A file whose writes are noted. They reach the device with the next fsync at the latest."""

    def __init__(self, file: Any, note: Callable[[bytes], None]) -> None:
        self._file = file
        self._note = note

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._file.__exit__(*error)

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._note(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _apply(root: Inode, done: Operation) -> None:
    if done.what == "fsync":
        found = _find(root, done.path)
        if found.data is not None:
            found.durable = found.data
        found.names = {name: had[-1:] for name, had in found.names.items()}
        return
    if done.what == "write":
        file = _find(root, done.path)
        file.data = (file.data or b"") + done.data
        return
    folder, name = _folder(root, done.path)
    now = folder.names.get(name, [None])[-1]
    if done.what == "create":
        _point(folder, name, Inode(data=b""))
    elif done.what == "mkdir":
        _point(folder, name, Inode())
    elif done.what in {"unlink", "rmdir"}:
        _point(folder, name, None)
    else:
        other, target = _folder(root, done.other)
        _point(other, target, now)
        if done.what == "replace":
            _point(folder, name, None)


def _point(folder: Inode, name: str, inode: Inode | None) -> None:
    folder.names.setdefault(name, [None]).append(inode)


def _folder(root: Inode, path: str) -> tuple[Inode, str]:
    above, _, name = path.rpartition("/")
    return _find(root, above), name


def _find(root: Inode, path: str) -> Inode:
    for name in path.split("/") if path not in {"", "."} else ():
        found = root.names[name][-1]
        assert found is not None, path
        root = found
    return root


def _states(root: Inode, chance: random.Random) -> Iterator[dict[str, bytes]]:
    """Yield what may be left, by a choice for each name and each file that is not durable."""
    choices: dict[object, list[Any]] = {}
    _collect(root, choices, set())
    values = list(choices.values())
    if math.prod(map(len, values)) <= _ALL_UP_TO:
        picks: list[tuple[Any, ...]] = list(itertools.product(*values))
    else:
        picks = [tuple(value[0] for value in values), tuple(value[-1] for value in values)]
        picks += [tuple(chance.choice(value) for value in values) for _ in range(_ALL_UP_TO)]
    for pick in picks:
        yield dict(_left(root, "", dict(zip(choices, pick, strict=True))))


def _collect(inode: Inode, choices: dict[object, list[Any]], seen: set[int]) -> None:
    if id(inode) in seen:
        return
    seen.add(id(inode))
    if inode.data is not None and inode.data != inode.durable:
        choices[id(inode)] = [inode.durable, inode.data, inode.data[: len(inode.data) // 2]]
    for name, had in inode.names.items():
        if len(had) > 1:
            choices[id(inode), name] = list(had)
        for one in had:
            if one is not None:
                _collect(one, choices, seen)


def _left(folder: Inode, path: str, chosen: dict[object, Any]) -> Iterator[tuple[str, bytes]]:
    for name, had in folder.names.items():
        inode = chosen.get((id(folder), name), had[-1])
        if inode is None:
            continue
        below = f"{path}/{name}" if path else name
        if inode.data is None:
            yield from _left(inode, below, chosen)
        else:
            yield below, chosen.get(id(inode), inode.data)

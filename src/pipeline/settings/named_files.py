"""Lists the files that settings name, and checks those that are opened only later."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from os.path import lexists
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from pipeline.secret_files import Holds, SecretUnreadable, read_token
from pipeline.settings.certificates import (
    authority_doubts,
    authority_fault,
    client_doubts,
    client_faults,
    read_certificates,
)
from pipeline.settings.refusals import explained
from pipeline.settings.shape import dotted, note_of

_ENDING: Final = "_file"
_CLIENT: Final = "cert_file"
_CLIENT_KEY: Final = "key_file"
_AUTHORITIES: Final = "ca_file"
_OPENED_AT_START: Final = frozenset({_CLIENT, _CLIENT_KEY, _AUTHORITIES})


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that a setting names.

    Attributes:
        key: The full key.
        name: The last part of the key.
        content: As :class:`~pipeline.secret_files.Holds` says; None for a file without a secret.
    """

    key: str
    name: str
    path: Path
    content: str | None


@dataclass(slots=True)
class FileFindings:
    """Problems and warnings about files, one line each."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def named_files(value: object, prefix: str = "") -> Iterator[NamedFile]:
    """Yield the files that a value and the settings below it name.

    Args:
        value: A model, or a table or list of models.
        prefix: The key of the value.
    """
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            inner, key = getattr(value, name), dotted((prefix, name)) if prefix else name
            if not isinstance(inner, Path):
                yield from named_files(inner, key)
                continue
            note = note_of(info, info.annotation, Holds)
            if note is not None or name.endswith(_ENDING):
                yield NamedFile(key, name, inner, note.content if note else None)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from named_files(inner, f"{prefix}.{name}")
    elif isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            yield from named_files(inner, f"{prefix}.{index}")


def check_file(file: NamedFile, now: datetime, found: FileFindings) -> None:
    """Check a file that the loader of the settings does not read.

    The start of a server reports a missing file that it opens at once. Other files may still be missing now.
    """
    if file.content == "secret":
        return  # the loader has read it
    if file.content == "key":
        _check_mode(file, found)  # its reader checks the rest
        return
    if not lexists(file.path):
        if file.name not in _OPENED_AT_START:
            found.warnings.append(f"{file.key}: no file exists at this path yet")
    elif file.content == "token":
        _check_token(file, found)
    elif file.name.endswith(_CLIENT_KEY):
        _check_mode(file, found)
    elif file.name.endswith(_CLIENT):
        chain = read_certificates(file.path)
        found.problems += [f"{file.key}: {fault}" for fault in client_faults(chain, now)]
        found.warnings += [f"{file.key}: {doubt}" for doubt in client_doubts(chain, now)]
    elif file.name == _AUTHORITIES:
        authorities = read_certificates(file.path)
        fault = authority_fault(authorities, now)
        found.problems += [f"{file.key}: {fault}"] if fault else []
        found.warnings += [f"{file.key}: {doubt}" for doubt in authority_doubts(authorities, now)]


def _check_token(file: NamedFile, found: FileFindings) -> None:
    try:
        read_token(file.path, lambda doubt: found.warnings.append(f"{file.key}: {file.path} {doubt}"))
    except SecretUnreadable as error:
        found.problems.append(f"{file.key}: {explained(file.path, error)}")
    else:
        _check_mode(file, found)


def _check_mode(file: NamedFile, found: FileFindings) -> None:
    try:
        mode = file.path.stat().st_mode
    except OSError:
        return  # a dangling link, or it is being replaced; its reader reports that
    if mode & stat.S_IROTH:
        found.warnings.append(f"{file.key}: {file.path} can be read by every user; run: chmod 600 {file.path}")

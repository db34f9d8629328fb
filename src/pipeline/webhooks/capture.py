"""Keeping refused requests for a while, where a person asks for it.

Nobody can tell from every sender's documents how it applies its secret; a request as it came can. A command and the
ingress processes of one machine and one user meet in a folder (``ingress.capture_dir``):

- the command writes ``<source>.wanted``: until when, how many;
- each ingress process looks once a second, begins ``<source>.<id>.captured`` (whose first line has the expiry), and
  appends what it refuses to it, a line of JSON each;
- whoever sees one of them expired, or left without its ``.wanted``, deletes it: also after both were killed.

What is kept may hold a secret (a shared secret stands in a header, a secret segment in the path): files are for their
owner alone (0600), bounded in number, bytes and time.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipeline.contracts import Headers

log = structlog.get_logger(__name__)

MOST_TIME: Final = timedelta(hours=1)
MOST_REQUESTS: Final = 1000
MOST_BYTES: Final = 32 << 20
"""Size of one file; each ingress process may exceed it, and the number, by one request."""

_LOOK_SECONDS: Final = 1.0
_WANTED: Final = ".wanted"
_CAPTURED: Final = ".captured"
_FIRST_LINE: Final = 4096
_OWNER_ONLY: Final = 0o600


class Wanted(BaseModel):
    """What a command asks for.

    Attributes:
        id: Tells its file from those of earlier ones.
        source: Kind and name of the source, e.g. ``weavr.acme``.
        until: When the file goes.
        limit: Most requests to keep.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    source: str = Field(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")
    until: AwareDatetime
    limit: int = Field(ge=1, le=MOST_REQUESTS)


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that nothing verified, as it came.

    Attributes:
        at: When it was judged.
        reason: Why it was refused.
        path: Behind the source's own path; may hold a secret segment.
        client: Address of the sender.
    """

    at: datetime
    reason: str
    path: str = field(repr=False)
    client: str
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)


class CaptureBusy(Exception):
    """Somebody else captures requests of this source."""


class Capture:
    """An ingress process's part: notices what is wanted, keeps it, deletes what has expired.

    Args:
        folder: Where command and ingress processes meet; made if it is not there.
        clock: Aware UTC time.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._clock = clock
        self._files: Mapping[str, _File] = {}
        self._said = ""

    async def run(self) -> None:
        """Look for what is wanted once a second, for ever; ends only by cancellation."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Begin what is wanted, end what is over. Never raises for a folder that cannot be used: it says so once."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            wanted = sweep(self._folder, self._clock())
            self._files = {one.source: self._files_for(one) for one in wanted}
            self._said = ""
        except OSError as error:
            self._files = {}
            self._complain(error)

    def refused(self, source: str, request: Refused) -> None:
        """Keep a request, if somebody wants those of its source now; else do nothing. Never raises.

        The write is made at once: no more of them than were asked for can hold up the loop.
        """
        file = self._files.get(source)
        if file is None or request.at >= file.wanted.until:
            return
        try:
            file.append(_line(request))
        except OSError as error:
            self._complain(error)

    def _files_for(self, wanted: Wanted) -> _File:
        known = self._files.get(wanted.source)
        if known is not None and known.wanted == wanted:
            return known
        _begin(self._folder, wanted)
        log.warning("capture_began", source=wanted.source, until=wanted.until.isoformat(), limit=wanted.limit)
        return _File(captured_file(self._folder, wanted), wanted)

    def _complain(self, error: OSError) -> None:
        why = error.strerror or type(error).__name__
        if why != self._said:
            log.error("capture_unusable", folder=str(self._folder), why=why)
        self._said = why


class _File:
    """One file that several processes append to, each line with one write."""

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.wanted = wanted
        self._path = path
        self._seen = 0
        self._lines = 0
        self._full = False

    def append(self, line: bytes) -> None:
        if self._full:
            return
        try:
            # never made here: a file that the command has deleted stays deleted
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            state = os.fstat(descriptor)
            if not _is_ours(state):
                raise PermissionError(1, "a file of somebody else is in its place")
            self._lines += os.pread(descriptor, state.st_size - self._seen, self._seen).count(b"\n")
            self._seen = state.st_size
            # the first line is no request
            self._full = self._lines > self.wanted.limit or state.st_size + len(line) > MOST_BYTES
            if not self._full:
                os.write(descriptor, line)
        finally:
            os.close(descriptor)


def ask(folder: Path, source: str, *, until: datetime, limit: int) -> Wanted:
    """Ask the ingress processes of this machine to keep what they refuse.

    Raises:
        CaptureBusy: Another command does so for the same source.
        OSError: The folder cannot be used.
        ValueError: The limit is out of bounds.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    sweep(folder, datetime.now(UTC))
    wanted = Wanted(id=secrets.token_hex(8), source=source, until=until, limit=limit)
    try:
        _create(folder / f"{source}{_WANTED}", wanted.model_dump_json().encode())
    except FileExistsError:
        raise CaptureBusy(source) from None
    return wanted


def end(folder: Path, wanted: Wanted) -> None:
    """Take the wish back and delete what was kept."""
    (folder / f"{wanted.source}{_WANTED}").unlink(missing_ok=True)
    captured_file(folder, wanted).unlink(missing_ok=True)


def captured_file(folder: Path, wanted: Wanted) -> Path:
    """Return the file in which requests are kept; it is there from when an ingress process has noticed."""
    return folder / f"{wanted.source}.{wanted.id}{_CAPTURED}"


def read_captured(file: Path) -> list[Refused]:
    """Return the requests of a file, in the order in which they came; a line cut off by a full disk is passed over.

    Raises:
        OSError: It cannot be read.
        ValueError: It is none of ours.
    """
    first, *lines = file.read_bytes().split(b"\n")
    Wanted.model_validate_json(first)
    return [request for line in lines if (request := _request(line)) is not None]


def sweep(folder: Path, now: datetime) -> list[Wanted]:
    """Delete what has expired or is left over; return what is wanted now."""
    wanted = {one.source: one for one in _all_wanted(folder, now)}
    for file in folder.glob(f"*{_CAPTURED}"):
        mine = any(file == captured_file(folder, one) for one in wanted.values())
        if not mine or not _lasts(file, now):
            _drop(file)
    return list(wanted.values())


def _all_wanted(folder: Path, now: datetime) -> Iterator[Wanted]:
    for file in folder.glob(f"*{_WANTED}"):
        try:
            wanted = Wanted.model_validate_json(_owned_bytes(file))
        except (OSError, ValidationError):
            continue  # somebody else's, or gone meanwhile
        if now < wanted.until <= now + MOST_TIME and file.name == f"{wanted.source}{_WANTED}":
            yield wanted
        else:
            _drop(file)


def _drop(file: Path) -> None:
    # what is somebody else's must not keep us from our own
    with contextlib.suppress(OSError):
        file.unlink()


def _lasts(file: Path, now: datetime) -> bool:
    """Return whether a file's first line says that it may stay."""
    try:
        with open(file, "rb", opener=_unfollowed) as opened:
            return Wanted.model_validate_json(opened.readline(_FIRST_LINE)).until > now
    except (OSError, ValidationError):
        return False


def _unfollowed(path: str, flags: int) -> int:
    """Open without following a link, or waiting for a pipe, that somebody put there."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _owned_bytes(file: Path) -> bytes:
    descriptor = _unfollowed(str(file), os.O_RDONLY)
    try:
        if not _is_ours(os.fstat(descriptor)):
            return b""
        return os.read(descriptor, _FIRST_LINE)
    finally:
        os.close(descriptor)


def _is_ours(state: os.stat_result) -> bool:
    return stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o077


def _begin(folder: Path, wanted: Wanted) -> None:
    # where it is there already, another process was first
    with contextlib.suppress(FileExistsError):
        _create(captured_file(folder, wanted), wanted.model_dump_json().encode() + b"\n")


def _create(file: Path, content: bytes) -> None:
    """Create a file with its content at once, so that nobody sees a part of it. Raises FileExistsError."""
    aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        os.write(descriptor, content)
        os.link(aside, file)
    finally:
        os.close(descriptor)
        aside.unlink()


def _line(request: Refused) -> bytes:
    document = {
        "at": request.at.isoformat(),
        "reason": request.reason,
        "path": request.path,
        "client": request.client,
        "headers": [[name, value.decode("latin-1")] for name, value in request.headers],
        "body": base64.b64encode(request.body).decode(),
    }
    return json.dumps(document).encode() + b"\n"


def _request(line: bytes) -> Refused | None:
    try:
        document = json.loads(line)
        return Refused(
            at=datetime.fromisoformat(document["at"]),
            reason=document["reason"],
            path=document["path"],
            client=document["client"],
            headers=tuple((name, value.encode("latin-1")) for name, value in document["headers"]),
            body=base64.b64decode(document["body"]),
        )
    except (ValueError, KeyError, TypeError):
        return None

"""Captures refused requests for a while, when a person asks for it.

Many senders' documents do not say how they apply a secret, but a real request shows it. A command and the ingress
processes of one machine and one user exchange files in a folder (``ingress.capture_dir``):

- The command writes ``<source>.wanted``: until when, and how many requests.
- Each ingress process looks once a second, creates ``<source>.<id>.captured`` (its first line has the expiry), and
  appends each request that it refuses as a line of JSON.
- Command and ingress delete each file that has expired or has lost its ``.wanted``, also after the other was killed.

A captured request may hold a secret (a shared secret in a header, a secret segment in the path): only the owner can
read the files (0600), and they are bounded in number, bytes and time.
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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipeline.webhooks.sources import WebhookRequest

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
        id: Distinguishes its file from those of earlier captures.
        source: Kind and name of the source, e.g. ``weavr.acme``.
        until: When the file is deleted.
        limit: Most requests to store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    source: str = Field(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")
    until: AwareDatetime
    limit: int = Field(ge=1, le=MOST_REQUESTS)


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A request that nothing verified.

    Attributes:
        at: When it was refused.
        reason: Why it was refused.
        request: As received; its path may hold a secret segment.
    """

    at: datetime
    reason: str
    request: WebhookRequest


class CaptureBusy(Exception):
    """Another command captures requests of this source."""


class Capture:
    """An ingress process's part: it notices what is wanted, stores it, and deletes what has expired.

    Args:
        folder: Where command and ingress processes exchange files; created if it is missing.
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
        """Begin what is wanted, end what is over. If the folder cannot be used it logs that once, and never raises."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            wanted = sweep(self._folder, self._clock())
            self._files = {one.source: self._files_for(one) for one in wanted}
            self._said = ""
        except OSError as error:
            self._files = {}
            self._complain(error)

    def wants(self, source: str) -> bool:
        """Return whether a command may want the refused requests of this source now."""
        return source in self._files

    def refused(self, source: str, request: RefusedRequest) -> None:
        """Store a request if a command wants those of its source now; otherwise do nothing. Never raises.

        It writes in the event loop: there are never more writes than requests were asked for.
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
            # without O_CREAT: a file that the command has deleted stays deleted
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            state = os.fstat(descriptor)
            if not _is_ours(state):
                raise PermissionError(1, "another user's file is in its place")
            self._lines += os.pread(descriptor, state.st_size - self._seen, self._seen).count(b"\n")
            self._seen = state.st_size
            # the first line is no request
            self._full = self._lines > self.wanted.limit or state.st_size + len(line) > MOST_BYTES
            if not self._full:
                os.write(descriptor, line)
        finally:
            os.close(descriptor)


def ask(folder: Path, source: str, *, until: datetime, limit: int) -> Wanted:
    """Ask the ingress processes of this machine to store what they refuse.

    Raises:
        CaptureBusy: Another command does that for the same source.
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
    """Stop asking, and delete what was stored."""
    (folder / f"{wanted.source}{_WANTED}").unlink(missing_ok=True)
    captured_file(folder, wanted).unlink(missing_ok=True)


def captured_file(folder: Path, wanted: Wanted) -> Path:
    """Return the file that holds the requests; the first ingress process that notices creates it."""
    return folder / f"{wanted.source}.{wanted.id}{_CAPTURED}"


def read_captured(file: Path) -> list[RefusedRequest]:
    """Return the requests of a file, in the order in which they came; it skips a line that a full disk cut off.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no file of captured requests.
    """
    first, *lines = file.read_bytes().split(b"\n")
    Wanted.model_validate_json(first)
    return [request for line in lines if (request := _request(line)) is not None]


def sweep(folder: Path, now: datetime) -> list[Wanted]:
    """Delete what has expired or was left behind; return what is wanted now."""
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
            continue  # another user's, or deleted meanwhile
        if now < wanted.until <= now + MOST_TIME and file.name == f"{wanted.source}{_WANTED}":
            yield wanted
        else:
            _drop(file)


def _drop(file: Path) -> None:
    # another user's file must not keep us from deleting our own
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
    """Open without following a link, or waiting for a pipe, that another user put there."""
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
    # if it exists, another process was first
    with contextlib.suppress(FileExistsError):
        _create(captured_file(folder, wanted), wanted.model_dump_json().encode() + b"\n")


def _create(file: Path, content: bytes) -> None:
    """Create a file together with its content, so that nobody reads half of it. Raises FileExistsError."""
    aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        os.write(descriptor, content)
        os.link(aside, file)
    finally:
        os.close(descriptor)
        aside.unlink()


def _line(request: RefusedRequest) -> bytes:
    document = {
        "at": request.at.isoformat(),
        "reason": request.reason,
        "path": request.request.path,
        "client": request.request.client,
        "headers": [[name, value.decode("latin-1")] for name, value in request.request.headers],
        "body": base64.b64encode(request.request.body).decode(),
    }
    return json.dumps(document).encode() + b"\n"


def _request(line: bytes) -> RefusedRequest | None:
    try:
        document = json.loads(line)
        request = WebhookRequest.received(
            path=document["path"],
            headers=tuple((name, value.encode("latin-1")) for name, value in document["headers"]),
            body=base64.b64decode(document["body"]),
            client=document["client"],
        )
        return RefusedRequest(datetime.fromisoformat(document["at"]), document["reason"], request)
    except (ValueError, KeyError, TypeError):
        return None

"""Captures refused requests for a while, on request of a person.

Many senders do not document how they apply a secret, but a real request shows it. A command and the ingress
processes of one machine and one user exchange files in a folder (``ingress.capture_dir``):

- The command writes ``<source>.wanted``, with the end time and the maximum number of requests.
- Each ingress process looks once a second, creates ``<source>.<id>.captured`` (its first line has the expiry), and
  appends each request that it refuses as a line of JSON.
- The command and the ingress each delete files that have expired or lost their ``.wanted``, even if the other is dead.

A captured request may contain a secret, in a header or as a segment of the path. So only the owner can
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
"""Maximum size of one file. Each ingress process may exceed it, and the number of requests, by one request."""

_LOOK_SECONDS: Final = 1.0
_WANTED: Final = ".wanted"
_CAPTURED: Final = ".captured"
_FIRST_LINE: Final = 4096
_OWNER_ONLY: Final = 0o600


class Wanted(BaseModel):
    """A command's request to capture.

    Attributes:
        id: Distinguishes the file from those of earlier captures.
        source: Kind and name of the source, e.g. ``weavr.acme``.
        until: When the capture ends and the file is deleted.
        limit: Maximum number of requests to store.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    source: str = Field(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")
    until: AwareDatetime
    limit: int = Field(ge=1, le=MOST_REQUESTS)


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A request that failed verification.

    Attributes:
        at: When it was refused.
        reason: The reason of the refusal.
        request: The request as received; its path may contain a secret segment.
    """

    at: datetime
    reason: str
    request: WebhookRequest


class CaptureBusy(Exception):
    """Another command is capturing requests of this source."""


class Capture:
    """The part of an ingress process: finds requests to capture, stores refused webhooks, deletes expired files.

    Args:
        folder: Folder in which commands and ingress processes exchange files; created if missing.
        clock: Aware UTC time.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._clock = clock
        self._files: Mapping[str, _File] = {}
        self._said = ""

    async def run(self) -> None:
        """Check the folder once a second until cancelled."""
        while True:
            await asyncio.to_thread(self.poll)
            await asyncio.sleep(_LOOK_SECONDS)

    def poll(self) -> None:
        """Start and end captures as the folder says. Logs an unusable folder once; never raises."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            wanted = sweep(self._folder, self._clock())
            self._files = {one.source: self._files_for(one) for one in wanted}
            self._said = ""
        except OSError as error:
            self._files = {}
            self._complain(error)

    def wants(self, source: str) -> bool:
        """Return whether a command may currently capture this source."""
        return source in self._files

    def refused(self, source: str, request: RefusedRequest) -> None:
        """Store a request if a command is capturing its source; otherwise do nothing. Never raises.

        It writes from the event loop, because the command's limit bounds the number of writes.
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
    """A file to which several processes append, one write per line."""

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
            # without O_CREAT, so that a file that the command has deleted stays deleted
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            state = os.fstat(descriptor)
            if not _is_ours(state):
                raise PermissionError(1, "another user's file is in its place")
            self._lines += os.pread(descriptor, state.st_size - self._seen, self._seen).count(b"\n")
            self._seen = state.st_size
            # the first line is not a request
            self._full = self._lines > self.wanted.limit or state.st_size + len(line) > MOST_BYTES
            if not self._full:
                os.write(descriptor, line)
        finally:
            os.close(descriptor)


def ask(folder: Path, source: str, *, until: datetime, limit: int) -> Wanted:
    """Ask the ingress processes of this machine to store the requests that they refuse.

    Raises:
        CaptureBusy: Another command is capturing the same source.
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
    """End the capture, and delete the stored requests."""
    (folder / f"{wanted.source}{_WANTED}").unlink(missing_ok=True)
    captured_file(folder, wanted).unlink(missing_ok=True)


def captured_file(folder: Path, wanted: Wanted) -> Path:
    """Return the file of the requests. The first ingress process that finds the request creates it."""
    return folder / f"{wanted.source}.{wanted.id}{_CAPTURED}"


def read_captured(file: Path) -> list[RefusedRequest]:
    """Return the requests in a file, in order of arrival. Skips a line that a full disk truncated.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not a file of captured requests.
    """
    first, *lines = file.read_bytes().split(b"\n")
    Wanted.model_validate_json(first)
    return [request for line in lines if (request := _request(line)) is not None]


def sweep(folder: Path, now: datetime) -> list[Wanted]:
    """Delete expired and orphaned files; return the current requests to capture."""
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
            continue  # it belongs to another user, or was deleted meanwhile
        if now < wanted.until <= now + MOST_TIME and file.name == f"{wanted.source}{_WANTED}":
            yield wanted
        else:
            _drop(file)


def _drop(file: Path) -> None:
    # a file of another user must not prevent the deletion of our own
    with contextlib.suppress(OSError):
        file.unlink()


def _lasts(file: Path, now: datetime) -> bool:
    """Return whether the expiry in a file's first line is still ahead."""
    try:
        with open(file, "rb", opener=_unfollowed) as opened:
            return Wanted.model_validate_json(opened.readline(_FIRST_LINE)).until > now
    except (OSError, ValidationError):
        return False


def _unfollowed(path: str, flags: int) -> int:
    """Open a file without following a link or blocking on a pipe of another user."""
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
    # if it exists, another process created it first
    with contextlib.suppress(FileExistsError):
        _create(captured_file(folder, wanted), wanted.model_dump_json().encode() + b"\n")


def _create(file: Path, content: bytes) -> None:
    """Create a file with its content in one step, so that nobody reads a half-written file. Raises FileExistsError."""
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

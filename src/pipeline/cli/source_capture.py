"""Collects the requests of a source that the ingress processes refuse, and deletes the files at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from pipeline.cli.exits import UsageRefused
from pipeline.cli.local_files import Aside
from pipeline.cli.times import now
from pipeline.errors import PermanentError
from pipeline.webhooks.capture import CaptureBusy, RefusedRequest, Wanted, ask, captured_file, end, read_captured

_PAUSE: Final = 0.5
_PATIENCE: Final = 10
"""After this many pauses without a reaction of an ingress process, the command prints a warning."""


class SourceBusy(PermanentError):
    """Another command is capturing requests of this source."""


@dataclass(frozen=True, slots=True)
class CaptureTask:
    """The source to capture, and the limits.

    Attributes:
        folder: Folder in which the command and the ingress exchange files.
        source: Kind and name, such as ``ecs.acme``.
        until: When the capture ends.
        limit: Maximum number of requests.
        output: File to keep the requests in; None deletes them at the end.
    """

    folder: Path
    source: str
    until: datetime
    limit: int
    output: Path | None


Show = Callable[[Path, int, RefusedRequest], object]
"""Called with the file, the number of a request in it, and the request."""


async def capture(task: CaptureTask, show: Show, *, pause: float = _PAUSE) -> int:
    """Wait for refused requests and show each; return their number.

    It ends when its time is over, and with ``output`` also at the limit. At the end it always deletes the file that the
    ingress wrote. If this process is killed, the ingress deletes the file when the time is over.

    Raises:
        SourceBusy: Another command is capturing requests of this source.
        UsageRefused: The folder cannot be used.
    """
    wanted = _ask(task)
    file = captured_file(task.folder, wanted)
    try:
        requests = await _collected(task, file, show, pause)
        if task.output is not None and requests:
            with Aside(task.output) as aside:
                await aside.write(await asyncio.to_thread(file.read_bytes))
                await aside.keep()
    finally:
        end(task.folder, wanted)
    return len(requests)


def _ask(task: CaptureTask) -> Wanted:
    try:
        return ask(task.folder, task.source, until=task.until, limit=task.limit)
    except CaptureBusy:
        raise SourceBusy(
            "source_busy", f"another command is capturing requests of {task.source}; wait until it ends"
        ) from None
    except OSError as error:
        raise UsageRefused("capture_folder", f"{task.folder} cannot be used ({error.strerror})") from None


async def _collected(task: CaptureTask, file: Path, show: Show, pause: float) -> list[RefusedRequest]:
    requests: list[RefusedRequest] = []
    size = looks = 0
    while now() < task.until:
        there = await asyncio.to_thread(_size, file)
        if there and not size:
            click.echo(f"capturing refused requests of {task.source} until {task.until:%H:%M:%S} UTC", err=True)
        if there > size:
            size = there
            known = len(requests)
            requests = await asyncio.to_thread(read_captured, file)
            for number, request in enumerate(requests[known : task.limit], known + 1):
                show(file, number, request)
        if task.output is not None and len(requests) >= task.limit:
            break
        looks += 1
        if looks == _PATIENCE and not size:
            click.echo(
                "warning: no ingress process has reacted: one must run on this machine, as this user, "
                "with the same ingress.capture_dir",
                err=True,
            )
        await asyncio.sleep(pause)
    return requests[: task.limit]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0

"""One of several ingress processes: it reports to its supervisor, instead of running a management server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from prometheus_client import CollectorRegistry

from pipeline.observability import Checks
from pipeline.observability.combining import snapshot

REPORT_SECONDS: Final = 0.25
"""Time between two reports of the checks."""

STOP: Final = b"stop\n"
METRICS: Final = b"metrics\n"
"""The lines that a supervisor sends. Each answer and each report is a line of JSON."""


@dataclass(frozen=True, slots=True)
class Supervision:
    """The data that a supervisor gives to a process.

    Attributes:
        number: Number of the process, from 1.
        channel: File descriptor of the socket to the supervisor.
        port: The port that the processes share.
    """

    number: int
    channel: int
    port: int


class SupervisedChecks(Checks):
    """Sends checks to the supervisor four times a second, and metrics when it asks; stops when it says so.

    If the supervisor ends, the process stops as after a signal. If it is stopping already, it ends at once, as after a
    second signal. Use it as an async context manager.

    Args:
        channel: File descriptor of the socket.
        registry: The metrics.
        stop: Set when the process is to stop.
    """

    url: Final = ""

    def __init__(self, channel: int, registry: CollectorRegistry, stop: asyncio.Event) -> None:
        super().__init__()
        self._socket = socket.socket(fileno=channel)
        self._registry = registry
        self._stop = stop
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start to report."""
        reader, writer = await asyncio.open_connection(sock=self._socket)
        self._writer = writer
        self._tasks = [asyncio.create_task(self._obey(reader)), asyncio.create_task(self._report())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send the last metrics, and stop reporting."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._send_metrics()
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:  # the supervisor is gone
            return

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                if line == STOP:
                    self._stop.set()
                elif line == METRICS:
                    self._send_metrics()
        except OSError:
            pass
        if self._stop.is_set():
            os._exit(128 + signal.SIGTERM)
        self._stop.set()

    async def _report(self) -> None:
        while True:
            self._send({"checks": self.readiness(), "alarms": self.alarms()})
            try:
                await self._writer.drain()
            except OSError:
                return
            await asyncio.sleep(REPORT_SECONDS)

    def _send_metrics(self) -> None:
        self._send({"metrics": snapshot(self._registry.collect())})

    def _send(self, message: object) -> None:
        if not self._writer.is_closing():  # otherwise the supervisor is gone
            self._writer.write(json.dumps(message).encode() + b"\n")

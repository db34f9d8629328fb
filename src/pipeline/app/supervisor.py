"""``pipeline ingress --processes N``: the supervisor of processes that share a port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final, NoReturn

import structlog
from prometheus_client import CollectorRegistry

from pipeline.app.processes import Process, Slot, reap_all
from pipeline.app.running import OnReady, Ready
from pipeline.app.supervised import Supervision
from pipeline.errors import FatalError
from pipeline.observability import Health, Metrics
from pipeline.observability.combining import CombinedMetrics, snapshot
from pipeline.observability.management import ManagementServer
from pipeline.observability.metrics import GAUGES_NOT_SUMMED
from pipeline.retry import RetryPolicy
from pipeline.settings import Settings

log = structlog.get_logger(__name__)

_FIRST_PROCESS: Final = 1
_SUPERVISOR: Final = 0
"""The supervisor's number among the processes whose metrics are combined."""
_TICK_SECONDS: Final = 0.1
_LONGEST_LINE: Final = 64 << 20
"""Maximum size of one process's metrics, far above their real size."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long the supervisor waits, in seconds.

    Attributes:
        restart: Pauses before the replacement of a process that ended soon after its start. The first one starts at
            once.
        healthy: If a process lives this long, its end has nothing to do with its start.
        silence: A process that reports nothing for this long hangs, and is killed.
        start: The same for a process that has never reported.
        answer: How long a process may take to send its metrics.
        kill: A process is killed this long after the end of the time that it may take to stop.
    """

    restart: RetryPolicy = field(default_factory=lambda: RetryPolicy(1.0, 30.0))
    healthy: float = 60.0
    silence: float = 30.0
    start: float = 120.0
    answer: float = 2.0
    kill: float = 10.0


Command = Callable[[Supervision], Sequence[str]]
"""Returns the command line of a process."""


class Supervisor:
    """Runs ingress processes that share a port, replaces each that ends, and serves their health and metrics as one.

    The system spreads new connections over the processes (``SO_REUSEPORT``). If a process ends, only its own
    connections are lost.

    Args:
        settings: Settings of the address and the management server. The processes read the settings themselves.
        count: Number of processes.
        command: Returns the command line of each process.
        times: How long to wait.
    """

    def __init__(self, settings: Settings, count: int, command: Command, times: Times | None = None) -> None:
        self._settings = settings
        self._command = command
        self._times = times or Times()
        self._slots = [Slot(number) for number in range(1, count + 1)]
        self._own = Metrics(version=version("card-pipeline"))
        self._metrics = CombinedMetrics(GAUGES_NOT_SUMMED)
        self._stop = asyncio.Event()

    async def run(self, on_ready: OnReady, stop: asyncio.Event) -> int:
        """Run until ``stop`` is set, then let the processes stop in an orderly way.

        Returns:
            0, or the exit code of a process that could not start while no other was ready.

        Raises:
            FatalError: An address cannot be bound.
        """
        self._stop = stop
        ingress = self._settings.ingress
        registry = CollectorRegistry()
        registry.register(self._metrics)
        management = ManagementServer(self._settings.management, registry, self._refresh)
        management.add_readiness("ingress", self._check)
        for slot in self._slots:
            management.add_alarm(f"process-{slot.number}", slot.health)
        with _reserved(ingress.host, ingress.port) as (url, port), self._reaping():
            async with management:
                return await self._supervise(port, lambda: on_ready(Ready("ingress", url, management.url)))

    async def _supervise(self, port: int, on_ready: Callable[[], None]) -> int:
        keepers = [asyncio.create_task(self._keep(slot, port)) for slot in self._slots]
        watch = asyncio.create_task(self._watch(on_ready))
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([stopped, watch, *keepers], return_when=asyncio.FIRST_COMPLETED)
            if not self._stop.is_set():
                return next(task.result() for task in (*keepers, watch) if task.done())
            self._ask_to_stop()
            ingress = self._settings.ingress
            longest = ingress.drain_seconds + ingress.stop_grace_seconds + self._times.kill
            _, late = await asyncio.wait(keepers, timeout=longest)
            if late:
                log.error("ingress_processes_killed", processes=len(late), after_seconds=longest)
            return 0
        finally:
            self._stop.set()
            for slot in self._slots:
                slot.kill()
            await asyncio.gather(*keepers, return_exceptions=True)
            for task in (watch, stopped):
                task.cancel()

    def _ask_to_stop(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.ask_to_stop()

    async def _keep(self, slot: Slot, port: int) -> int:
        """Keep one process running until all stop; return the code of one that cannot start while no other is ready.

        Raises:
            FatalError: The system cannot start a process, and no other is ready.
        """
        while not self._stop.is_set():
            try:
                slot.process = process = self._start(slot.number, port)
            except OSError as error:
                await self._not_started(slot, error)
                continue
            await self._listen(slot.number, process)
            code = await process.ended
            self._metrics.end(slot.number)
            slot.process = None
            if self._stop.is_set():
                break
            if code > 0 and not process.was_ready and not any(other.ready for other in self._slots):
                log.error("ingress_cannot_start", process=slot.number, exit_code=code)
                return code
            pause = self._pause(slot, healthy=process.was_ready and process.age >= self._times.healthy)
            self._own.ingress_process_ends.inc()
            log.error(
                "ingress_process_ended",
                process=slot.number,
                pid=process.pid,
                exit_code=code,
                quick_ends=slot.quick_ends,
                restart_in=round(pause, 2),
            )
            await self._wait_for_stop(pause)
        return 0

    async def _not_started(self, slot: Slot, error: OSError) -> None:
        """Wait before the next try: the system lacks memory or processes, and the other processes continue."""
        if not any(other.ready for other in self._slots):
            raise FatalError("ingress_process", f"Cannot start a process: {error.strerror}") from error
        pause = self._pause(slot, healthy=False)
        log.error(
            "ingress_process_not_started",
            process=slot.number,
            why=error.strerror,
            quick_ends=slot.quick_ends,
            restart_in=round(pause, 2),
        )
        await self._wait_for_stop(pause)

    def _pause(self, slot: Slot, *, healthy: bool) -> float:
        """Count an end, and return how many seconds to wait before the process is replaced."""
        slot.quick_ends = 0 if healthy else slot.quick_ends + 1
        return self._times.restart.pause(slot.quick_ends - 1) if slot.quick_ends > 1 else 0.0

    async def _wait_for_stop(self, most: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), most)

    def _start(self, number: int, port: int) -> Process:
        ours, theirs = socket.socketpair()
        with theirs:
            command = self._command(Supervision(number, theirs.fileno(), port))
            try:
                popen = subprocess.Popen(  # noqa: S603 - our own command
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            except OSError:
                ours.close()
                raise
        log.info("ingress_process_started", process=number, pid=popen.pid)
        return Process(popen, ours)

    async def _listen(self, number: int, process: Process) -> None:
        """Read the reports of a process until it closes its side of the channel."""
        reader, process.writer = await asyncio.open_connection(sock=process.channel, limit=_LONGEST_LINE)
        try:
            while line := await reader.readline():
                message = json.loads(line)
                if "metrics" in message:
                    self._metrics.update(number, message["metrics"])
                    process.measured.set()
                else:
                    process.report(message["checks"], message["alarms"])
        except (OSError, ValueError):  # the process ended in the middle of a line
            pass
        finally:
            process.measured.set()
            process.writer.close()

    async def _watch(self, on_ready: Callable[[], None]) -> NoReturn:
        """Call ``on_ready`` once, when all are ready; kill each process that hangs."""
        announced = False
        while True:
            if not announced and all(slot.ready for slot in self._slots):
                announced = True
                on_ready()
            for slot in self._slots:
                process = slot.process
                if process is None:
                    continue
                process.silent += _TICK_SECONDS  # not by the clock: this process may have been suspended
                longest = self._times.silence if process.checks else self._times.start
                if process.silent > longest:
                    log.error("ingress_process_hangs", process=slot.number, pid=process.pid, silent_seconds=longest)
                    process.kill()
            await asyncio.sleep(_TICK_SECONDS)

    async def _refresh(self) -> None:
        """Ask all processes for their metrics. If one does not answer in time, its last metrics are shown."""
        running = [slot.process for slot in self._slots if slot.process is not None and slot.process.checks]
        asked = [asyncio.create_task(process.measure()) for process in running]
        if asked:
            _, late = await asyncio.wait(asked, timeout=self._times.answer)
            for task in late:
                task.cancel()
        ready = sum(slot.ready for slot in self._slots)
        self._own.ingress_processes.labels("ready").set(ready)
        self._own.ingress_processes.labels("not_ready").set(len(self._slots) - ready)
        self._metrics.update(_SUPERVISOR, snapshot(self._own.registry.collect()))

    def _check(self) -> Health:
        """Ready if a process serves, and each process that accepts connections can serve them."""
        ready = sum(slot.ready for slot in self._slots)
        unable = [slot.number for slot in self._slots if slot.listens and not slot.ready]
        message = f"{ready} of {len(self._slots)} processes are ready"
        if unable:
            message += f"; not ready although they accept connections: {', '.join(map(str, unable))}"
        if self._stop.is_set():
            message = "stopping"
        return Health(ok=ready > 0 and not unable and not self._stop.is_set(), message=message)

    @contextmanager
    def _reaping(self) -> Iterator[None]:
        """Detect the ends of processes. As the first process of a container, also reap orphans."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGCHLD)

    def _reap(self) -> None:
        running = [slot.process for slot in self._slots if slot.process]
        for process in running:
            process.poll()
        if os.getpid() == _FIRST_PROCESS:
            reap_all({process.pid: process for process in running if not process.ended.done()})


@contextmanager
def _reserved(host: str, port: int) -> Iterator[tuple[str, int]]:
    """Reserve the address for the processes without listening on it; yield its URL and port.

    Raises:
        FatalError: The address cannot be bound.
    """
    with contextlib.ExitStack() as stack:
        url = ""
        try:
            for family, kind, protocol, _, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                one = stack.enter_context(socket.socket(family, kind, protocol))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((address[0], port, *address[2:]))
                name, port = one.getsockname()[:2]
                url = url or (f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}")
        except OSError as error:
            raise FatalError(
                "ingress_address",
                f"Cannot listen on {host}:{port} (ingress.host, ingress.port): {error.strerror}",
            ) from error
        yield url, port

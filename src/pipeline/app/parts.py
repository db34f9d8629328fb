"""The parts of a process: each starts, serves, and stops in an orderly way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from pipeline.errors import FatalError, most_severe
from pipeline.kafka.protocols import Runner
from pipeline.observability import Check, Health
from pipeline.webhooks.server import IngressServer
from pipeline.webhooks.settings import IngressSettings

log = structlog.get_logger(__name__)

Service = Callable[[], Coroutine[Any, Any, Any]]
"""Runs beside a part until it is cancelled; an error in it stops the process."""


class Part(Protocol):
    """One component of a process."""

    @property
    def name(self) -> str:
        """For health checks and log lines."""
        ...

    @property
    def checks(self) -> Mapping[str, Check]:
        """Readiness checks by name."""
        ...

    @property
    def alarms(self) -> Mapping[str, Check]:
        """Checks by name of what one partner needs: shown beside those of readiness, which they do not change."""
        ...

    @property
    def alive(self) -> Check:
        """Liveness: whether its loop turns."""
        ...

    @property
    def started(self) -> bool:
        """Whether it does its work now."""
        ...

    async def serve(self) -> None:
        """Work until :meth:`stop` has finished. An exception from here stops the process."""
        ...

    async def stop(self) -> None:
        """Stop in an orderly way; returns when the part takes no more work, and no work of it is left."""
        ...


@dataclass
class Worker:
    """Members of consumer groups with the services beside them."""

    name: str
    runners: Sequence[Runner]
    services: Sequence[Service] = ()
    alarms: Mapping[str, Check] = field(default_factory=dict)
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def checks(self) -> Mapping[str, Check]:
        """Every member has joined its group."""
        return {f"{self.name}-group": self._check_group}

    @property
    def started(self) -> bool:
        """Whether every member has joined its group."""
        return all(runner.ready for runner in self.runners)

    @property
    def alive(self) -> Check:
        """Return the check that every poll loop turns."""
        return lambda: Health(ok=all(runner.alive for runner in self.runners), message="the poll loop turns")

    def _check_group(self) -> Health:
        waiting = [runner.condition for runner in self.runners if not runner.ready]
        return Health(ok=not waiting, message="; ".join(waiting) or "joined, heartbeat fresh")

    async def serve(self) -> None:
        """Run members and services; the services end when the last member has stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                services = [group.create_task(service()) for service in self.services]
                runners = [group.create_task(runner.run()) for runner in self.runners]
                await asyncio.wait(runners)
                for service in services:
                    service.cancel()
        except BaseExceptionGroup as errors:
            raise most_severe(errors) from None
        finally:
            self._done.set()

    async def stop(self) -> None:
        """Ask the members to stop and wait for them: each bounds its own stop by ``consumer.stop_grace_seconds``."""
        for runner in self.runners:
            runner.stop()
        await self._done.wait()


@dataclass
class Web:
    """The ingress as a part, with the services beside it."""

    server: IngressServer
    settings: IngressSettings
    connected: Callable[[], bool]
    services: Sequence[Service] = ()
    name: str = "ingress"
    alarms: Mapping[str, Check] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        """Whether the server serves requests and the broker is connected."""
        return self.server.ready and self.connected()

    @property
    def alive(self) -> Check:
        """Return the check that always passes as long as the process answers."""
        return lambda: Health(ok=True)

    @property
    def checks(self) -> Mapping[str, Check]:
        """Listening and not draining."""
        return {
            "ingress": lambda: Health(ok=self.server.ready, message="serving" if self.server.ready else "not serving")
        }

    async def serve(self) -> None:
        """Serve until stopped; the services end with the server."""
        await self.server.start()
        try:
            async with asyncio.TaskGroup() as group:
                services = [group.create_task(service()) for service in self.services]
                await self.server.wait()
                for service in services:
                    service.cancel()
        except BaseExceptionGroup as errors:
            raise most_severe(errors) from None

    async def stop(self) -> None:
        """Report not ready, keep serving until proxies have noticed, then finish the requests in work."""
        self.server.begin_drain()
        await asyncio.sleep(self.settings.drain_seconds)
        await self.server.stop(self.settings.stop_grace_seconds)


async def run_parts(parts: Sequence[Part], stop: asyncio.Event, on_started: Callable[[], None]) -> None:
    """Serve all parts until ``stop`` is set, then stop them all; ``on_started`` is called once, when all have started.

    Raises:
        FatalError: A part could not go on, or ended without being asked to.
        Exception: An unexpected error of a part.
    """
    stopping = False

    async def serve(part: Part) -> None:
        await part.serve()
        if not stopping:
            raise FatalError("part_ended", f"{part.name} ended without being asked to")

    async def announce() -> None:
        while not all(part.started for part in parts):  # noqa: ASYNC110 - parts answer a question, they have no event
            await asyncio.sleep(0.05)
        on_started()

    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(serve(part), name=part.name)
            starting = group.create_task(announce())
            await stop.wait()
            stopping = True
            starting.cancel()
            await asyncio.gather(*(part.stop() for part in parts))
    except BaseExceptionGroup as errors:
        raise most_severe(errors) from None

"""The parts of a process. Each part starts, serves, and stops in an orderly way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from pydantic import SecretStr

from pipeline.app.ports import PORTS, ConnectedPublisher, Ports
from pipeline.errors import FatalError, most_severe
from pipeline.kafka import ConsumerSettings, KafkaSettings
from pipeline.kafka.protocols import Runner
from pipeline.observability import Check, CheckedClock, Health, Metrics
from pipeline.outbound import Circuits
from pipeline.settings import Settings
from pipeline.storage import ObjectStore

log = structlog.get_logger(__name__)

Service = Callable[[], Coroutine[Any, Any, Any]]
"""Runs beside a part until it is cancelled; an error in it stops the process."""


class Part(Protocol):
    """One component of a process."""

    @property
    def name(self) -> str:
        """Name in health checks and log lines."""
        ...

    @property
    def checks(self) -> Mapping[str, Check]:
        """Readiness checks by name."""
        ...

    @property
    def alarms(self) -> Mapping[str, Check]:
        """Checks, by name, of things that only one partner needs. They are shown, but do not affect readiness."""
        ...

    @property
    def alive(self) -> Check:
        """Liveness: whether its loop still runs."""
        ...

    @property
    def started(self) -> bool:
        """Whether it is doing its work."""
        ...

    @property
    def url(self) -> str | None:
        """The URL at which it receives webhooks; None if it receives none."""
        ...

    async def serve(self) -> None:
        """Work until :meth:`stop` has finished. An exception from here stops the process."""
        ...

    async def stop(self) -> None:
        """Stop in an orderly way. When this returns, no work is left, and the part accepts no more."""
        ...


@dataclass(frozen=True, slots=True)
class Shared:
    """The objects that all parts of a process share.

    Attributes:
        kafka: The cluster: the configured one, or the embedded broker.
        remember: Called with each new secret, so that logs mask it.
        stack: Closes the resources that the parts open.
        circuits: The circuit breakers of the hosts.
        clock: The machine's clock, which is compared with other clocks.
    """

    settings: Settings
    kafka: KafkaSettings
    consumer: ConsumerSettings
    publisher: ConnectedPublisher
    objects: ObjectStore
    metrics: Metrics
    remember: Callable[[SecretStr], None]
    stack: AsyncExitStack
    clock: CheckedClock
    ports: Ports = PORTS
    circuits: Circuits = field(default_factory=Circuits)


@dataclass
class Worker:
    """Members of consumer groups, with the services that run beside them."""

    name: str
    runners: Sequence[Runner]
    services: Sequence[Service] = ()
    alarms: Mapping[str, Check] = field(default_factory=dict)
    url: None = None
    _done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def checks(self) -> Mapping[str, Check]:
        """Check that every member has joined its group."""
        return {f"{self.name}-group": self._check_group}

    @property
    def started(self) -> bool:
        """Whether every member has joined its group."""
        return all(runner.ready for runner in self.runners)

    @property
    def alive(self) -> Check:
        """A check that every poll loop still runs."""
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


async def run_parts(parts: Sequence[Part], stop: asyncio.Event, on_started: Callable[[], None]) -> None:
    """Serve all parts until ``stop`` is set, then stop them all. Call ``on_started`` once, when all have started.

    Raises:
        FatalError: A part could not continue, or ended without being asked to.
        Exception: An unexpected error of a part.
    """
    stopping = False

    async def serve(part: Part) -> None:
        await part.serve()
        if not stopping:
            raise FatalError("part_ended", f"{part.name} ended without being asked to")

    async def announce() -> None:
        while not all(part.started for part in parts):  # noqa: ASYNC110 - parts have no event for this
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

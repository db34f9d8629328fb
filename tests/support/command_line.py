"""Running the command line in the test's own process, with a broker that only remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from click.testing import Result
from support.effects import NoticingPublisher, NoticingStore

from pipeline.app import Ports
from pipeline.app.ports import ConnectedPublisher
from pipeline.kafka import KafkaSettings
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics
from pipeline.storage import ObjectStore, StoreSettings


class Run(Protocol):
    """Runs one command line; what it prints, and its exit code, are in the result."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result: ...


class RememberingPublisher(MemoryPublisher):
    """Replaces KafkaPublisher; see :class:`RememberingPorts`.

    Attributes:
        made: All that were made; a test empties it.
    """

    made: list[RememberingPublisher] = []  # noqa: RUF012 - shared on purpose: commands make their own

    problem = None

    def __init__(self, settings: KafkaSettings, *, client_id: str) -> None:
        super().__init__()
        self.settings = settings
        self.client_id = client_id
        self.made.append(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


class RememberingPorts(Ports):
    """Ports whose broker only remembers."""

    def publisher(
        self, kafka: KafkaSettings, *, client_id: str, metrics: Metrics | None = None
    ) -> RememberingPublisher:
        del metrics
        return RememberingPublisher(kafka, client_id=client_id)


class Killed(Exception):
    """The command ends here, as by kill -9: nothing of ours expects it."""


@dataclass
class Kill:
    """Ends a command at one of its effects, and counts the effects before it."""

    at: int = -1
    points: list[str] = field(default_factory=list)

    @contextmanager
    def around(self, effect: str) -> Iterator[None]:
        self._reach(f"before:{effect}")
        yield
        self._reach(f"after:{effect}")

    def _reach(self, point: str) -> None:
        self.points.append(point)
        if len(self.points) - 1 == self.at:
            raise Killed(point)


class KillingPorts(Ports):
    """Ports whose broker only remembers, and whose effects are where a command may be killed."""

    def __init__(self, kill: Kill) -> None:
        self._kill = kill

    @asynccontextmanager
    async def publisher(
        self, kafka: KafkaSettings, *, client_id: str, metrics: Metrics | None = None
    ) -> AsyncIterator[ConnectedPublisher]:
        del metrics
        yield NoticingPublisher(RememberingPublisher(kafka, client_id=client_id), self._kill.around)

    def store(self, settings: StoreSettings) -> ObjectStore:
        return NoticingStore(super().store(settings), self._kill.around)

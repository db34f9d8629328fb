"""Running the command line in the test's own process, with a broker that only remembers."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from click.testing import Result

from pipeline.app import Ports
from pipeline.kafka import KafkaSettings
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics


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

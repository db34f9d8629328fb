"""The ports of a process: its connections to the outside world, for reading and writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol

from pydantic import SecretStr

from pipeline.contracts import TopicName
from pipeline.errors import PipelineError
from pipeline.jobs.partners import Notifications, NotifierContext, Resume
from pipeline.jobs.transfer import Transfers, open_transfers
from pipeline.kafka import (
    ConsumerSettings,
    GroupClient,
    KafkaGroupClient,
    KafkaPublisher,
    KafkaSettings,
    Publisher,
    topic_bounds,
)
from pipeline.observability import CheckedClock, Metrics
from pipeline.outbound import Circuits, http_date
from pipeline.settings import JobIntegration, Settings
from pipeline.storage import ObjectStore, StoreSettings, open_store


class ConnectedPublisher(Publisher, Protocol):
    """A publisher that knows whether it has a broker."""

    @property
    def problem(self) -> PipelineError | None:
        """Why no broker is connected; None if one is."""
        ...


class Ports:
    """Opens the ports. Tests override the methods whose port they replace or wrap."""

    def now(self) -> datetime:
        """Return the time of the machine's clock, in UTC."""
        return datetime.now(UTC)

    def publisher(
        self, kafka: KafkaSettings, *, client_id: str, metrics: Metrics | None = None
    ) -> AbstractAsyncContextManager[ConnectedPublisher]:
        """Return the publisher of a process; it connects when it is entered."""
        return KafkaPublisher(kafka, client_id=client_id, metrics=metrics)

    async def group(
        self, name: str, topics: Sequence[TopicName], kafka: KafkaSettings, consumer: ConsumerSettings
    ) -> GroupClient:
        """Return a connected client for one member of a consumer group; raises as ``KafkaGroupClient.connect`` does."""
        return await KafkaGroupClient.connect(name, topics, kafka, consumer)

    async def partitions(self, topic: TopicName, kafka: KafkaSettings) -> int:
        """Return how many partitions a topic has now; raises as ``topic_bounds`` does."""
        return len(await topic_bounds(kafka, topic))

    def store(self, settings: StoreSettings) -> ObjectStore:
        """Return the object store of the jobs and the audit log; the caller closes it."""
        return open_store(settings)

    def transfers(
        self,
        settings: Settings,
        integration: JobIntegration,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        circuits: Circuits,
    ) -> AbstractAsyncContextManager[Transfers]:
        """Return the downloads and uploads of one integration."""
        return open_transfers(
            settings.transfer.parameters(),
            rules=integration.hosts,
            network=settings.network,
            clock=clock,
            metrics=metrics,
            circuit_of=partial(circuits.of, integration.name),
        )

    def notifications(
        self,
        settings: Settings,
        integration: JobIntegration,
        *,
        clock: CheckedClock,
        metrics: Metrics,
        remember: Callable[[SecretStr], None],
        resume: Resume,
    ) -> AbstractAsyncContextManager[Notifications]:
        """Return the callbacks of one integration. They pass each token to ``remember``, and call ``resume``."""
        return integration.partner.open_notifications(
            NotifierContext(
                integration=integration.name,
                hosts=integration.hosts,
                network=settings.network,
                metrics=metrics,
                clock=clock,
                remember=remember,
                resume=resume,
                saw_date=partial(compare_date, clock, integration.name),
            )
        )


def compare_date(clock: CheckedClock, witness: str, header: str | None, began: datetime) -> None:
    """Compare the clock with the ``Date`` header of an answer; ``began`` is the clock's time before the request."""
    date = http_date(header or "")
    if date is not None:
        clock.compare(witness, date, began=began, ended=clock(), precision=timedelta(seconds=1))


PORTS: Final = Ports()
"""The ports of production."""

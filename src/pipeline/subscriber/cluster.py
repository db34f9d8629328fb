"""What a subscriber needs of a Kafka cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from pipeline.contracts import Record, TopicName
from pipeline.kafka import KafkaPublisher, KafkaSettings, Publisher, missing_topics, read_back
from pipeline.observability import SubscriberMetrics
from pipeline.subscriber.settings import SubscriberSettings

_CLOCK_TOLERANCE_MS: Final = 3_600_000
"""Times of records may run backwards by so much (ingress processes with wrong clocks) without a repeat being missed."""


class Cluster(Protocol):
    """Where topics are; tests have their own."""

    async def missing(self, topics: Sequence[TopicName]) -> list[str]:
        """Return the names of those that are not there. Raises BrokerUnavailable."""
        ...

    def publisher(self) -> AbstractAsyncContextManager[Publisher]:
        """Give what publishes dead letters."""
        ...

    def read_back(self, first: Record) -> AsyncIterator[Record]:
        """Yield the records before one that its window needs. Raises BrokerUnavailable."""
        ...


class KafkaCluster:
    """Implements :class:`Cluster` on Kafka."""

    def __init__(
        self, kafka: KafkaSettings, settings: SubscriberSettings, *, group: str, metrics: SubscriberMetrics
    ) -> None:
        self._kafka = kafka
        self._settings = settings
        self._group = group
        self._metrics = metrics

    async def missing(self, topics: Sequence[TopicName]) -> list[str]:
        """See Cluster."""
        return await missing_topics(self._kafka, topics)

    def publisher(self) -> AbstractAsyncContextManager[Publisher]:
        """See Cluster."""
        return KafkaPublisher(self._kafka, client_id=f"card-pipeline-{self._group}", metrics=self._metrics)

    def read_back(self, first: Record) -> AsyncIterator[Record]:
        """See Cluster."""
        milliseconds = round(self._settings.repeat_seconds * 1000) + _CLOCK_TOLERANCE_MS
        return read_back(self._kafka, first, most=self._settings.repeat_records, milliseconds=milliseconds)

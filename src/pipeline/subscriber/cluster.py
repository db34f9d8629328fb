"""The parts of a Kafka cluster that a subscriber uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from pipeline.contracts import Record, TopicName
from pipeline.kafka import KafkaPublisher, KafkaSettings, Publisher, missing_topics, read_back
from pipeline.observability import SubscriberMetrics
from pipeline.subscriber.settings import SubscriberSettings

_CLOCK_TOLERANCE_MS: Final = 3_600_000
"""How far times of records may go back (ingress processes with wrong clocks) without missing a repeat."""


class Cluster(Protocol):
    """A cluster with topics. Tests have their own implementation."""

    async def missing(self, topics: Sequence[TopicName]) -> list[str]:
        """Return the names of the topics that do not exist. Raises BrokerUnavailable."""
        ...

    def publisher(self) -> AbstractAsyncContextManager[Publisher]:
        """Open a publisher for dead letters."""
        ...

    def read_back(self, first: Record) -> AsyncIterator[Record]:
        """Yield the records before ``first`` that the window needs. Raises BrokerUnavailable."""
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

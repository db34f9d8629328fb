"""The gauges of a group member: its work in progress, and the lag of each of its partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from pipeline.kafka.partition import HeldPartition
from pipeline.kafka.protocols import GroupClient, Partition
from pipeline.observability import KafkaMetrics

_ENDS_EVERY: Final = 5.0
"""Seconds between two queries for the ends of paused partitions, because no fetch returns them."""


class MemberGauges:
    """Sets the gauges of one member, and removes those of partitions that it no longer has.

    Args:
        metrics: The metrics that contain the gauges.
        stage: The group, which is their label.
        held: The partitions of the member (a live view).
    """

    def __init__(self, metrics: KafkaMetrics, stage: str, held: Mapping[Partition, HeldPartition]) -> None:
        self._metrics = metrics
        self._stage = stage
        self._held = held
        self._shown: set[Partition] = set()

    def update(self, client: GroupClient) -> None:
        """Set all gauges to the current values."""
        stage, metrics = self._stage, self._metrics
        metrics.consumer_heartbeat_age_seconds.labels(stage=stage).set(client.heartbeat_age)
        metrics.consumer_paused.labels(stage=stage).set(sum(held.paused for held in self._held.values()))
        metrics.consumer_in_flight.labels(stage=stage).set(sum(held.work.busy for held in self._held.values()))
        self._forget(self._shown - self._held.keys())
        for partition, held in self._held.items():
            labels = _labels(stage, partition)
            self._shown.add(partition)
            metrics.consumer_span.labels(*labels).set(held.work.offsets.span)
            end, done = client.end(partition), held.work.offsets.to_commit
            if end is not None and done is not None:
                metrics.consumer_lag.labels(*labels).set(max(0, end - done))

    async def follow_paused(self, client: Callable[[], GroupClient]) -> NoReturn:
        """Ask for the ends of paused partitions every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_ENDS_EVERY)
            paused = [partition for partition, held in self._held.items() if held.paused]
            if paused:
                await client().refresh_ends(paused)

    def end(self) -> None:
        """Show that the member has no partitions and no work."""
        self._metrics.consumer_paused.labels(stage=self._stage).set(0)
        self._metrics.consumer_in_flight.labels(stage=self._stage).set(0)
        self._forget(set(self._shown))

    def _forget(self, gone: set[Partition]) -> None:
        self._shown -= gone
        for partition in gone:
            for gauge in (self._metrics.consumer_span, self._metrics.consumer_lag):
                try:
                    gauge.remove(*_labels(self._stage, partition))
                except KeyError:
                    continue  # its lag was never known


def _labels(stage: str, partition: Partition) -> tuple[str, str, str]:
    return stage, partition.topic, str(partition.number)

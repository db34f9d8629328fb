"""Consuming events for somebody else's handler: what a gate lets through, in order per key, within a hard bound."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.contracts import TopicName
from pipeline.kafka._event_work import EventWork, Surroundings
from pipeline.kafka._group import GroupFactory, Partition
from pipeline.kafka._held import Held, PartitionWork
from pipeline.kafka._lease import Tenure
from pipeline.kafka._member import GroupMember
from pipeline.kafka.dead_letters import DeadLetters
from pipeline.kafka.protocols import GateFactory, Handle
from pipeline.kafka.settings import ConsumerSettings, KafkaSettings
from pipeline.observability import Metrics


class EventConsumer(GroupMember):
    """A group member that asks a gate about each record, in offset order, and hands on what it admits, one per key.

    Differs from :class:`~pipeline.kafka.consumer.Consumer`: nothing is noted on arrival; records that lie ``max_span``
    offsets or more behind the *committed* offset are not begun, so that after ``kill -9`` no others can be handled
    again; workers take from queues instead of one task per record (several times faster for a handler that does
    little). Records without a key are in no order.

    Memory: records of at most ``max_span_bytes`` bytes and three ``max_span`` of each partition, plus one fetch.

    Args:
        handle: Does the work of one record.
        gate: Makes a gate for each partition that the member is given, anew each time it is given.
        dead_letters: Where records go that cannot be handled.
        group: Name of the group; also the stage in metrics.
        connect: Makes a client; tests give their own.
    """

    def __init__(
        self,
        handle: Handle,
        *,
        gate: GateFactory,
        dead_letters: DeadLetters,
        group: str,
        topics: Sequence[TopicName],
        kafka: KafkaSettings,
        settings: ConsumerSettings,
        metrics: Metrics | None = None,
        connect: GroupFactory | None = None,
    ) -> None:
        super().__init__(group=group, topics=topics, kafka=kafka, settings=settings, metrics=metrics, connect=connect)
        self._gate = gate
        self._around = Surroundings(
            group=group,
            handle=handle,
            settings=settings,
            slots=asyncio.Semaphore(settings.slots),
            dead_letters=dead_letters,
            metrics=self._metrics,
            start=self._start,
            want_commit=self._commit_wanted.set,
        )

    def _open(self, partition: Partition, lease: Tenure) -> PartitionWork:
        gate = self._gate(partition.topic, partition.number)
        return EventWork(self._around, gate=gate, lease=lease, progressed=lambda: self._progressed(partition))

    def _full(self, held: Held) -> bool:
        return isinstance(held.work, EventWork) and held.work.full

    def _has_room(self, held: Held) -> bool:
        return isinstance(held.work, EventWork) and held.work.roomy

    def _note_commit(self, held: Held, offset: int) -> None:
        super()._note_commit(held, offset)
        if isinstance(held.work, EventWork):
            held.work.note_commit(offset)

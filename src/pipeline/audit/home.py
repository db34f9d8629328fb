"""Keeps each audit event in one chain, even when its topic gets more partitions later.

A chain knows only the ids of its own partition. When a topic grows, new events of a key may go to another partition. A
repeated event would go there too, and would be logged twice. So the log remembers how many partitions the topic had at
the beginning. Each event belongs to the partition that its key had then; events in other partitions are sent there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.contracts import OutgoingRecord, Record, Topic
from pipeline.errors import FatalError, most_severe
from pipeline.kafka.protocols import Lease, Publisher
from pipeline.storage import ObjectNotFound, ObjectStore

log = structlog.get_logger(__name__)

KEY: Final = f"audit-settings/{Topic.AUDIT_EVENTS}.json"
_AT_ONCE: Final = 100
"""Number of records sent to their partitions at the same time."""


class _Began(BaseModel):
    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    partitions: int = Field(ge=1)


class HomePartitions:
    """Knows to which partition of ``audit.events`` an event belongs, and sends it there.

    Args:
        store: Holds the log, and the number of partitions with which it began.
        publisher: Publishes records to the partition that they name.
        count: Returns how many partitions the topic has now.
        partition_of: Returns the partition that producers choose for a key, given the number of partitions.
    """

    def __init__(
        self,
        store: ObjectStore,
        publisher: Publisher,
        *,
        count: Callable[[], Awaitable[int]],
        partition_of: Callable[[str, int], int],
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._count = count
        self._partition_of = partition_of
        self._began: int | None = None

    async def prepare(self) -> None:
        """Read how many partitions the topic had when the log began; the very first call stores that number.

        Raises:
            FatalError: The topic has fewer partitions now (``audit_partitions_missing``), or the stored number is
                damaged (``audit_settings_damaged``).
            TransientError: The store or the broker is unavailable.
        """
        if self._began is not None:
            return
        now = await self._count()
        wanted = _Began(partitions=now)
        if await self._store.create(KEY, wanted.model_dump_json().encode()):
            began = now
        else:
            began = await self._read()
        if now < began:
            raise FatalError(
                "audit_partitions_missing",
                f"{Topic.AUDIT_EVENTS} has {now} partitions, but its log began with {began} ({KEY} in the store). "
                f"Give the topic at least {began} partitions; otherwise a repeated event could be logged twice.",
            )
        if now > began:
            log.info("audit_partitions_grown", partitions=now, began_with=began)
        self._began = began

    async def _read(self) -> int:
        try:
            return _Began.model_validate_json(await self._store.get(KEY)).partitions
        except (ObjectNotFound, ValidationError):
            raise FatalError(
                "audit_settings_damaged",
                f"{KEY} in the store is damaged or was just deleted. Restore it from the store's versions or a backup",
            ) from None

    async def keep_own(self, records: Sequence[Record], lease: Lease) -> list[Record]:
        """Return the records that are in the right partition; send the others to theirs.

        A repeated call sends them again. The chain of their partition recognises their ids.
        """
        await self.prepare()
        own: list[Record] = []
        others: list[OutgoingRecord] = []
        for record in records:
            home = self._partition_of(record.key, self._began or 1)
            if home == record.partition:
                own.append(record)
            else:
                others.append(OutgoingRecord(record.topic, record.key, record.value, record.headers, home))
        for start in range(0, len(others), _AT_ONCE):
            await lease.ensure()
            await self._send(others[start : start + _AT_ONCE])
        return own

    async def _send(self, records: Sequence[OutgoingRecord]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for record in records:
                    group.create_task(_publish(self._publisher, record))
        except BaseExceptionGroup as errors:
            raise most_severe(errors) from None  # the runner handles single errors


async def _publish(publisher: Publisher, record: OutgoingRecord) -> None:
    await publisher.publish(record)

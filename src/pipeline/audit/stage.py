"""AUDIT: appends every audit event, and one event per accepted webhook, once to the hash chain of its partition."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from pydantic import JsonValue, TypeAdapter, ValidationError

from pipeline.audit import MAX_EVENT_BYTES, Appended, Chain, Entry, Writing
from pipeline.audit.home import HomePartitions
from pipeline.contracts import AuditEvent, Record, Topic, TopicName, accepted_event
from pipeline.errors import LeaseLost, PoisonRecord
from pipeline.kafka.dead_letters import DeadLetters
from pipeline.kafka.protocols import Lease
from pipeline.observability import Metrics

_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class AuditStage:
    """A :class:`~pipeline.kafka.protocols.BatchHandler`: a batch becomes a segment.

    When :meth:`handle_batch` returns, the chain holds each event of the batch, and invalid records of ``audit.events``
    are in the dead-letter topic. From the records of other topics, the stage builds the events of accepted webhooks,
    and ignores the rest, which other stages handle. Any process may repeat a batch at any time.

    Args:
        writing: Store, settings, signing key, time.
        dead_letters: Takes records that cannot be decoded.
        metrics: Counts events, segments and cuts of the window of known ids.
        home: Sends records of ``audit.events`` to the partition where they belong.
    """

    def __init__(self, writing: Writing, dead_letters: DeadLetters, metrics: Metrics, home: HomePartitions) -> None:
        """Begin without partitions."""
        self._home = home
        self._writing = writing
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._chains: dict[tuple[TopicName, int], Chain] = {}

    async def assigned(self, topic: TopicName, partition: int) -> None:
        """Find the end of the partition's chain. Other members may have extended it since this one last had it.

        Raises:
            FatalError: The end is damaged (``audit_chain_damaged``), or the topic lost partitions
                (``audit_partitions_missing``).
            TransientError: The store or the broker is unavailable. Try again.
        """
        if topic == Topic.AUDIT_EVENTS:
            await self._home.prepare()
        self._chains.pop((topic, partition), None)
        self._chains[topic, partition] = await Chain.open(self._writing, str(topic), partition)

    async def handle_batch(self, records: Sequence[Record], lease: Lease) -> None:
        """Append the events of one partition's records, in offset order; see BatchHandler."""
        topic, partition = records[0].topic, records[0].partition
        if topic == Topic.AUDIT_EVENTS and not (records := await self._home.keep_own(records, lease)):
            return
        decode = _decode_all if topic == Topic.AUDIT_EVENTS else _accepted_webhooks
        entries, poison = await asyncio.to_thread(decode, records)
        for record, error in poison:
            await lease.ensure()
            await self._dead_letters.write(record, error)
        if (topic, partition) not in self._chains:
            await self.assigned(topic, partition)
        try:
            result = await self._chains[topic, partition].append(entries, lease)
        except LeaseLost:
            # another writer extended the chain: find its end again before the next batch
            self._chains.pop((topic, partition), None)
            raise
        self._count(result)

    def _count(self, result: Appended) -> None:
        self._metrics.audit_events.labels(result="appended").inc(result.appended)
        self._metrics.audit_events.labels(result="repeated").inc(result.repeated)
        self._metrics.audit_segments.inc(result.segments)
        self._metrics.audit_window_cuts.inc(result.forgotten)


_Decoded = tuple[list[Entry], list[tuple[Record, PoisonRecord]]]


def _accepted_webhooks(records: Sequence[Record]) -> _Decoded:
    entries: list[Entry] = []
    for record in records:
        event = accepted_event(record)
        if event is not None:
            fields = event.model_dump(mode="json")
            entries.append(Entry(record.offset, event, fields, len(json.dumps(fields))))
    return entries, []


def _decode_all(records: Sequence[Record]) -> _Decoded:
    entries: list[Entry] = []
    poison: list[tuple[Record, PoisonRecord]] = []
    for record in records:
        try:
            entries.append(_decode(record))
        except PoisonRecord as error:
            poison.append((record, error))
    return entries, poison


def _decode(record: Record) -> Entry:
    if len(record.value) > MAX_EVENT_BYTES:
        raise PoisonRecord(
            "audit_event_too_large",
            f"The record has {len(record.value)} bytes; an audit event has at most {MAX_EVENT_BYTES}",
        )
    try:
        event = AuditEvent.model_validate_json(record.value)
        fields = _OBJECT.validate_json(record.value)
        json.dumps(fields, allow_nan=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = first["loc"][0] if first["loc"] else "value"
        raise PoisonRecord(
            "audit_event_invalid", f"The record is not an audit event: {field}: {first['msg']}"
        ) from None
    except ValueError as error:
        raise PoisonRecord(
            "audit_event_invalid", "The record holds NaN or an infinite number, which JSON does not allow"
        ) from error
    return Entry(record.offset, event, fields, len(record.value))

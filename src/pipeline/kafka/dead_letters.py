"""Records that can never be handled: kept in dead-letter topics, with the reason, so that they block no other."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pipeline.contracts import SPECS, Headers, OutgoingRecord, Record, TopicName
from pipeline.errors import FatalError, PermanentError
from pipeline.kafka.errors import RecordTooLarge
from pipeline.kafka.protocols import Publisher
from pipeline.observability import KafkaMetrics, get_logger

log = get_logger(__name__)

_MESSAGE_LIMIT: Final = 1000
"""Characters of the reason that fit the room that dead letters have."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that can never be handled."""

    record: Record
    error: PermanentError
    group: str
    at: datetime


OnDeadLetter = Callable[[DeadLetter], Awaitable[None]]
"""Called after a dead letter was written and before its offset counts as finished; again after a transient error."""


class DeadLetters:
    """Writes dead letters: value, key and headers unchanged, plus ``dlq_*`` headers with position and reason.

    Of a record that is too large for that, only the ``dlq_*`` headers, with the value's length and hash.

    Args:
        publisher: Publishes them.
        group: The consumer group that cannot handle the records, e.g. ``process``.
        on_dead_letter: Called with each, e.g. to record it in the audit trail.
        address: Returns the dead-letter topic of a topic.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        group: str,
        metrics: KafkaMetrics,
        on_dead_letter: OnDeadLetter | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        address: Callable[[TopicName], TopicName] | None = None,
    ) -> None:
        self._address = address or dead_letter_topic
        self._publisher = publisher
        self._group = group
        self._metrics = metrics
        self._on_dead_letter = on_dead_letter
        self._clock = clock

    def topic_for(self, topic: TopicName) -> TopicName:
        """Return where dead letters of a topic go. Raises ValueError for a topic that has none."""
        return self._address(topic)

    async def write(self, record: Record, error: PermanentError) -> None:
        """Write one dead letter; at least once, so repeating it after an error is safe.

        Raises:
            TransientError, Overloaded: Repeat it: the record must not be finished before it is kept.
            FatalError: Not even a notice of it can be kept.
        """
        letter = DeadLetter(record, error, self._group, self._clock())
        outgoing = _whole(letter, self.topic_for(record.topic))
        try:
            await self._publisher.publish(outgoing)
        except RecordTooLarge:
            # no producer can stop a topic's readers by one record; the record itself stays in its topic
            await self._publish_notice(letter)
        if self._on_dead_letter:
            await self._on_dead_letter(letter)
        self._metrics.consumer_dead_letters.labels(stage=self._group, topic=record.topic, code=error.code).inc()
        log.error(
            "record_dead_lettered",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            attempt=record.attempt,
            code=error.code,
            message=error.message,
            kept_in=outgoing.topic,
        )

    async def _publish_notice(self, letter: DeadLetter) -> None:
        record = letter.record
        try:
            await self._publisher.publish(_notice(letter, self.topic_for(record.topic)))
        except RecordTooLarge as too_large:
            raise FatalError(
                "dead_letter_too_large",
                f"Of {record.topic}, partition {record.partition}, offset {record.offset} not even a notice can be "
                "kept: let the dead-letter topic take larger records than kafka.max_record_bytes (by 16384 bytes).",
            ) from too_large


def dead_letter_topic(topic: TopicName) -> TopicName:
    """Return the table's dead-letter topic of a topic. Raises ValueError for a topic that no stage consumes."""
    found = SPECS[topic].dead_letter if topic in SPECS else None
    if found is None:
        raise ValueError(f"{topic} has no dead-letter topic: no stage consumes it")
    return found


def _whole(letter: DeadLetter, topic: TopicName) -> OutgoingRecord:
    record = letter.record
    headers = (*record.headers, *_encoded(_facts(letter)))
    return OutgoingRecord(topic, record.key, record.value, headers)


def _notice(letter: DeadLetter, topic: TopicName) -> OutgoingRecord:
    """Return the notice of a record that is too large for its dead-letter topic: its position, and the reason."""
    record = letter.record
    cut = {"dlq_value_bytes": str(len(record.value)), "dlq_value_sha256": hashlib.sha256(record.value).hexdigest()}
    return OutgoingRecord(topic, "", b"", _encoded(_facts(letter) | cut))


def _encoded(facts: Mapping[str, str]) -> Headers:
    return tuple((name, value.encode()) for name, value in facts.items())


def _facts(letter: DeadLetter) -> dict[str, str]:
    record, error = letter.record, letter.error
    return {
        "dlq_topic": record.topic,
        "dlq_partition": str(record.partition),
        "dlq_offset": str(record.offset),
        "dlq_timestamp": str(record.timestamp_ms),
        "dlq_group": letter.group,
        "dlq_attempts": str(record.attempt),
        "dlq_code": error.code,
        "dlq_message": error.message[:_MESSAGE_LIMIT],
        "dlq_at": letter.at.isoformat().replace("+00:00", "Z"),
    }

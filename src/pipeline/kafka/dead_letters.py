"""Keeps records that can never be handled in dead-letter topics, with the reason, so that they block no others.

Consumers write them; ``pipeline dead-letters`` reads and replays them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pipeline.contracts import (
    INTEGRATION_HEADER,
    REPLAY_GROUP_HEADER,
    REPLAYED_FROM_HEADER,
    RETRY_ATTEMPT_HEADER,
    RETRY_CODE_HEADER,
    RETRY_COUNT_HEADER,
    RETRY_DEADLINE_HEADER,
    RETRY_FIRST_AT_HEADER,
    RETRY_GROUP_HEADER,
    SPECS,
    Headers,
    OutgoingRecord,
    Record,
    RecordPosition,
    TopicName,
    first_values,
    stable_hash,
)
from pipeline.errors import FatalError, PermanentError, PoisonRecord
from pipeline.kafka.errors import RecordTooLarge
from pipeline.kafka.protocols import Publisher
from pipeline.observability import KafkaMetrics, get_logger, mask_text, record_fields

log = get_logger(__name__)

_MESSAGE_LIMIT: Final = 1000
"""Maximum length of the reason, which must fit into the extra room of dead letters."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that can never be handled."""

    record: Record
    error: PermanentError
    group: str
    at: datetime


OnDeadLetter = Callable[[DeadLetter], Awaitable[None]]
"""Called after a dead letter was written and before its offset is finished.

It is called again after a transient error.
"""


class DeadLetters:
    """Writes dead letters: value, key and headers unchanged, plus ``dlq_*`` headers with position and reason.

    If a record is too large for that, it writes only the ``dlq_*`` headers, with the value's length and hash.

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
        """Return the dead-letter topic of a topic. Raises ValueError for a topic that has none."""
        return self._address(topic)

    async def write(self, record: Record, error: PermanentError) -> None:
        """Write one dead letter; at least once, so repeating it after an error is safe.

        Raises:
            TransientError, Overloaded: Repeat the call. The record must not be finished before it is kept.
            FatalError: Not even a notice of the record can be kept.
        """
        letter = DeadLetter(record, error, self._group, self._clock())
        outgoing = _whole(letter, self.topic_for(record.topic))
        try:
            await self._publisher.publish(outgoing)
        except RecordTooLarge:
            # a too large record must not stop the readers of a topic; it stays in its topic
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
            **record_fields(record),
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
        "dlq_message": mask_text(error.message)[:_MESSAGE_LIMIT],
        "dlq_at": letter.at.isoformat().replace("+00:00", "Z"),
    }


_FACTS: Final = "dlq_"
_VALUE_CUT: Final = "dlq_value_sha256"
_IDENTITY: Final = ("dlq_group", "dlq_topic", "dlq_partition", "dlq_offset", "dlq_timestamp")
"""The time is included because a topic that was created again begins with the same offsets."""
_OF_COPIES: Final = frozenset(
    {REPLAY_GROUP_HEADER, REPLAYED_FROM_HEADER}
    | {RETRY_GROUP_HEADER, RETRY_COUNT_HEADER, RETRY_FIRST_AT_HEADER, RETRY_CODE_HEADER}
    | {RETRY_ATTEMPT_HEADER, RETRY_DEADLINE_HEADER}
)
"""Headers of a copy that was published for one group. A replay sets its own."""


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A record as it is stored in a dead-letter topic.

    Attributes:
        id: The same for a letter that was written twice. A record that fails again after its replay has another id.
        position: The position of the letter.
        record: The original record that could not be handled, with its position.
        group: The consumer group that could not handle it.
        code: Why; see docs/reference/errors.md.
        attempts: Number of tries of the group.
        at: When the letter was written.
        value_missing: Whether the letter is only a notice, because the record was too large for its topic.
    """

    id: str
    position: RecordPosition
    record: Record
    group: str
    code: str
    message: str
    attempts: int
    at: datetime
    value_missing: bool

    @property
    def integration(self) -> str | None:
        """The integration of the record: from its header, or from the beginning of its key."""
        named = first_values(self.record.headers).get(INTEGRATION_HEADER)
        beginning, slash, _ = self.record.key.partition("/")
        return named or (beginning if slash else None)

    def replay(self) -> OutgoingRecord:
        """Return the record to publish again: to its topic, for the one group that could not handle it.

        Raises:
            PermanentError: The letter does not have the record's value.
        """
        if self.value_missing:
            raise PermanentError(
                "dead_letter_cut",
                "The record was too large for the dead-letter topic, which has a notice only: let the group read the "
                "record again (`pipeline events rewind`)",
            )
        kept = tuple(header for header in self.record.headers if header[0] not in _OF_COPIES)
        where = f"{self.position.topic}/{self.position.partition}/{self.position.offset}"
        own = ((REPLAYED_FROM_HEADER, where.encode()), (REPLAY_GROUP_HEADER, self.group.encode()))
        return OutgoingRecord(self.record.topic, self.record.key, self.record.value, (*kept, *own))


def read_dead_letter(letter: Record) -> StoredDeadLetter:
    """Read a record of a dead-letter topic.

    A dead letter that failed to be handled itself has two sets of ``dlq_*`` headers: the last set is its own.

    Raises:
        PoisonRecord: A header is missing or malformed, so no consumer of the pipeline wrote it.
    """
    begin, end = _own_facts(letter.headers)
    facts = first_values(letter.headers[begin:end])
    kept = (*letter.headers[:begin], *letter.headers[end:])
    try:
        record = replace(
            letter,
            topic=facts["dlq_topic"],
            partition=int(facts["dlq_partition"]),
            offset=int(facts["dlq_offset"]),
            headers=kept,
            timestamp_ms=int(facts["dlq_timestamp"]),
        )
        at = datetime.fromisoformat(facts["dlq_at"])
        return StoredDeadLetter(
            id=stable_hash(*(facts[name] for name in _IDENTITY)),
            position=RecordPosition(letter.topic, letter.partition, letter.offset),
            record=record,
            group=facts["dlq_group"],
            code=facts["dlq_code"],
            message=facts["dlq_message"],
            attempts=int(facts["dlq_attempts"]),
            at=at if at.tzinfo else at.replace(tzinfo=UTC),
            value_missing=_VALUE_CUT in facts,
        )
    except (KeyError, ValueError) as error:
        raise PoisonRecord(
            "dead_letter_unreadable", "A dlq_* header of the dead letter is missing or malformed"
        ) from error


def _own_facts(headers: Headers) -> tuple[int, int]:
    """Return begin and end of the last set of ``dlq_*`` headers: consecutive headers with different names."""
    end = max((index for index, (name, _) in enumerate(headers, 1) if name.startswith(_FACTS)), default=0)
    begin, seen = end, set[str]()
    while begin and headers[begin - 1][0].startswith(_FACTS) and headers[begin - 1][0] not in seen:
        begin -= 1
        seen.add(headers[begin][0])
    return begin, end

"""Records as the pipeline sees them, free of any Kafka client."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.contracts.headers import Headers
from pipeline.contracts.topics import TopicName


@dataclass(frozen=True, slots=True)
class Record:
    """One consumed record.

    Attributes:
        topic: Logical topic (without prefix or renaming).
        key: The partition key; records of equal key are handled one after another.
        timestamp_ms: Broker or producer time, epoch milliseconds.
        attempt: 1 on the first delivery to a handler, counted up by retries within this process.
    """

    topic: TopicName
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Headers
    timestamp_ms: int
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """One record to publish."""

    topic: TopicName
    key: str
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """Where a published record stands."""

    topic: TopicName
    partition: int
    offset: int

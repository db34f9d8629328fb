"""Records, independent of any Kafka client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.contracts.headers import REPLAY_GROUP_HEADER, RETRY_GROUP_HEADER, Headers
from pipeline.contracts.topics import TopicName

_GROUP_HEADERS: Final = (RETRY_GROUP_HEADER, REPLAY_GROUP_HEADER)


@dataclass(frozen=True, slots=True)
class Record:
    """One consumed record.

    Attributes:
        topic: Logical topic (without prefix or renaming).
        key: The partition key; records with equal keys are handled one after another.
        timestamp_ms: Broker or producer time, epoch milliseconds.
        attempt: 1 for the first call of a handler; each retry in this process adds 1.
    """

    topic: TopicName
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Headers
    timestamp_ms: int
    attempt: int = 1
    _named: Mapping[str, bytes] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def named(self) -> Mapping[str, bytes]:
        """The first value of each header, by name. Computed once for each record."""
        if self._named is None:
            object.__setattr__(
                self, "_named", dict(reversed(self.headers))
            )  # in a dict the last one of equal names wins
        return self._named or {}

    def text(self, header: str) -> str:
        """Return the first value of a header as text; empty if the header is missing. Invalid bytes become U+FFFD."""
        return self.named.get(header, b"").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """One record to publish.

    Attributes:
        partition: The partition to append to; None: the partition of the key.
    """

    topic: TopicName
    key: str
    value: bytes
    headers: Headers
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """The position of a published record.

    Attributes:
        appended_ms: The broker's time of the append, in epoch milliseconds; None if the broker does not report it.
    """

    topic: TopicName
    partition: int
    offset: int
    appended_ms: int | None = field(default=None, compare=False)


def is_for(record: Record, group: str) -> bool:
    """Return whether a consumer group must handle a record; False for a copy for another group.

    A retried or replayed record is published to its topic again. The other groups of the topic have handled the
    original, so they skip the copy.
    """
    named = record.named
    if RETRY_GROUP_HEADER not in named and REPLAY_GROUP_HEADER not in named:
        return True  # almost every record: not a copy
    return all(value == group.encode() for name, value in record.headers if name in _GROUP_HEADERS)

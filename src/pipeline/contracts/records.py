"""Records as the pipeline sees them, free of any Kafka client."""

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
    _named: Mapping[str, bytes] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def named(self) -> Mapping[str, bytes]:
        """The first value of each header, by its name. Made once for each record."""
        if self._named is None:
            object.__setattr__(self, "_named", dict(reversed(self.headers)))  # of equal names the last one stays
        return self._named or {}

    def text(self, header: str) -> str:
        """Return the first value of a header as text; empty if there is none. Undecodable bytes become U+FFFD."""
        return self.named.get(header, b"").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    """One record to publish.

    Attributes:
        partition: The partition to append to; None: that of the key.
    """

    topic: TopicName
    key: str
    value: bytes
    headers: Headers
    partition: int | None = None


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """Where a published record stands.

    Attributes:
        appended_ms: The broker's time of the append, epoch milliseconds; None where the broker does not say it.
    """

    topic: TopicName
    partition: int
    offset: int
    appended_ms: int | None = field(default=None, compare=False)


def is_for(record: Record, group: str) -> bool:
    """Return whether a consumer group handles a record: False for a copy that was published for another group.

    A retried or replayed record goes to its topic again. The other groups that read the topic have handled the first
    one, so they finish the copy untouched.
    """
    named = record.named
    if RETRY_GROUP_HEADER not in named and REPLAY_GROUP_HEADER not in named:
        return True  # almost every record: it is no copy
    return all(value == group.encode() for name, value in record.headers if name in _GROUP_HEADERS)

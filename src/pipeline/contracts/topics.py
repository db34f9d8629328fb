"""The one table of topics: what flows where, for how long, and who may read it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_HOUR: Final = 3_600_000
_DAY: Final = 24 * _HOUR


class Topic(StrEnum):
    """Logical topic names; settings may add a prefix or rename each (``kafka.topics``)."""

    BATCH_REQUESTED = "card-batch.requested"
    BATCH_PROCESSED = "card-batch.processed"
    BATCH_UPLOADED = "card-batch.uploaded"
    BATCH_FAILED = "card-batch.failed"
    BATCH_COMPLETED = "card-batch.completed"
    BATCH_QUARANTINE = "card-batch.quarantine"
    BATCH_DEAD_LETTER = "card-batch.dead-letter"
    AUDIT_EVENTS = "audit.events"
    AUDIT_DEAD_LETTER = "audit.dead-letter"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How one topic is created and checked.

    Attributes:
        partitions: Default number of partitions; an upper bound of the consumers that can share the work.
        retention_ms: How long a record is kept, in milliseconds.
        sensitive: Values hold bearer URLs or tokens: tight access, short retention.
        dead_letter: Where a record of this topic goes that can never be handled; None for topics nobody here consumes.
        about: One line for the docs.
    """

    topic: Topic
    partitions: int
    retention_ms: int
    sensitive: bool
    dead_letter: Topic | None
    about: str


TOPICS: Final[tuple[TopicSpec, ...]] = (
    TopicSpec(
        Topic.BATCH_REQUESTED,
        12,
        3 * _DAY,
        sensitive=True,
        dead_letter=Topic.BATCH_DEAD_LETTER,
        about="Announcements of card batch jobs, body as received: holds pre-signed URLs",
    ),
    TopicSpec(
        Topic.BATCH_PROCESSED,
        12,
        3 * _DAY,
        sensitive=False,
        dead_letter=Topic.BATCH_DEAD_LETTER,
        about="All cards of a job are decided; the result waits in the job store",
    ),
    TopicSpec(
        Topic.BATCH_UPLOADED,
        12,
        3 * _DAY,
        sensitive=False,
        dead_letter=Topic.BATCH_DEAD_LETTER,
        about="The result lies at the pre-signed URL; the job's outcome is `completed`",
    ),
    TopicSpec(
        Topic.BATCH_FAILED,
        12,
        3 * _DAY,
        sensitive=False,
        dead_letter=Topic.BATCH_DEAD_LETTER,
        about="The job's outcome is `failed`, with its reason",
    ),
    TopicSpec(
        Topic.BATCH_COMPLETED,
        12,
        7 * _DAY,
        sensitive=False,
        dead_letter=None,
        about="ECS was told the outcome, or refuses to hear it: the end of a job, for other services",
    ),
    TopicSpec(
        Topic.BATCH_QUARANTINE,
        3,
        7 * _DAY,
        sensitive=True,
        dead_letter=None,
        about="Authentic but invalid announcements, body as received: holds pre-signed URLs",
    ),
    TopicSpec(
        Topic.BATCH_DEAD_LETTER,
        3,
        7 * _DAY,
        sensitive=True,
        dead_letter=None,
        about="Records of the card-batch topics that can never be handled, with the reason",
    ),
    TopicSpec(
        Topic.AUDIT_EVENTS,
        6,
        7 * _DAY,
        sensitive=False,
        dead_letter=Topic.AUDIT_DEAD_LETTER,
        about="Every step of every job; the audit stage appends them to the hash chain",
    ),
    TopicSpec(
        Topic.AUDIT_DEAD_LETTER,
        1,
        30 * _DAY,
        sensitive=False,
        dead_letter=None,
        about="Audit events that could not be decoded, with the reason",
    ),
)
"""All topics. Replication is a property of the cluster (``kafka.replication_factor``), not of the topic."""

SPECS: Final[dict[Topic, TopicSpec]] = {spec.topic: spec for spec in TOPICS}

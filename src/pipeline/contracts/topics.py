"""The table of all topics: contents, retention, sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_MINUTE: Final = 60_000
_DAY: Final = 24 * 60 * _MINUTE

TopicName = str
"""A logical topic name: a :class:`Topic`, or a name from the configuration (``webhook-events.<source>`` for a source,
``<group>.dead-letter`` for a subscriber's group)."""


class Topic(StrEnum):
    """Logical topic names. Settings may add a prefix, or rename a topic (``kafka.topics``)."""

    BATCH_REQUESTED = "card-batch.requested"
    BATCH_CHUNKS = "card-batch.chunks"
    BATCH_PROCESSED = "card-batch.processed"
    BATCH_UPLOADED = "card-batch.uploaded"
    BATCH_FAILED = "card-batch.failed"
    BATCH_COMPLETED = "card-batch.completed"
    BATCH_QUARANTINE = "card-batch.quarantine"
    BATCH_DEAD_LETTER = "card-batch.dead-letter"
    EVENTS_CORPORATES = "card-events.corporates"
    EVENTS_CONSUMERS = "card-events.consumers"
    EVENTS_MANAGED_CARDS = "card-events.managed-cards"
    EVENTS_MANAGED_ACCOUNTS = "card-events.managed-accounts"
    EVENTS_LINKED_ACCOUNTS = "card-events.linked-accounts"
    EVENTS_TRANSFERS = "card-events.transfers"
    EVENTS_SEND = "card-events.send"
    EVENTS_OUTGOING_WIRE_TRANSFERS = "card-events.outgoing-wire-transfers"
    EVENTS_MANUAL_TRANSACTIONS = "card-events.manual-transactions"
    EVENTS_FEES = "card-events.fees"
    EVENTS_LOGIN = "card-events.login"
    EVENTS_STEPUP = "card-events.stepup"
    EVENTS_AUTHENTICATION_FACTORS = "card-events.authentication-factors"
    EVENTS_BENEFICIARIES = "card-events.beneficiaries"
    EVENTS_BULK_OPERATIONS = "card-events.bulk-operations"
    EVENTS_AUTH_USERS = "card-events.auth-users"
    EVENTS_IBANS = "card-events.ibans"
    EVENTS_CORRESPONDENT_BANK_TRANSFERS = "card-events.correspondent-bank-transfers"
    EVENTS_QUARANTINE = "card-events.quarantine"
    EVENTS_STEPUP_QUARANTINE = "card-events.stepup.quarantine"
    WEBHOOK_QUARANTINE = "webhook-events.quarantine"
    AUDIT_EVENTS = "audit.events"
    AUDIT_DEAD_LETTER = "audit.dead-letter"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """The definition of a topic.

    Attributes:
        partitions: Default number of partitions, and so the maximum number of consumers that share the work.
        retention_ms: How long a record is kept, in milliseconds.
        sensitive: Whether values hold bearer URLs or tokens. Such a topic needs tight access and a short retention.
        dead_letter: The topic for records that nobody can handle; None for topics that the pipeline does not consume.
        about: One line for the docs.
        key: The meaning of the partition key, for the docs.
        numbered: Its keys end in ``#<number>``, and records with consecutive numbers go to consecutive partitions.
    """

    topic: TopicName
    partitions: int
    retention_ms: int
    sensitive: bool
    dead_letter: Topic | None
    about: str
    key: str = "job"
    numbered: bool = False


def event_topic(topic: TopicName, about: str, key: str, *, partitions: int = 3) -> TopicSpec:
    """Return the definition of a topic of events for subscribers."""
    return TopicSpec(topic, partitions, 7 * _DAY, sensitive=False, dead_letter=None, about=about, key=key)


_EVENTS: Final = (
    event_topic(Topic.EVENTS_CORPORATES, "KYB, activation and deactivation of corporates", "corporate"),
    event_topic(Topic.EVENTS_CONSUMERS, "KYC, activation and deactivation of consumers", "consumer"),
    event_topic(
        Topic.EVENTS_MANAGED_CARDS,
        "Cards: state, authorisations, settlements, adjustments, expiries, replacements, payments",
        "card",
        partitions=12,
    ),
    event_topic(
        Topic.EVENTS_MANAGED_ACCOUNTS, "Managed accounts: state, deposits, low balance", "account", partitions=6
    ),
    event_topic(Topic.EVENTS_LINKED_ACCOUNTS, "Linked accounts and their verification", "linked account"),
    event_topic(Topic.EVENTS_TRANSFERS, "Transfers between accounts of one owner", "transfer", partitions=6),
    event_topic(Topic.EVENTS_SEND, "Sends between accounts of different owners", "send", partitions=6),
    event_topic(Topic.EVENTS_OUTGOING_WIRE_TRANSFERS, "Outgoing wire transfers", "wire transfer", partitions=6),
    event_topic(Topic.EVENTS_MANUAL_TRANSACTIONS, "Adjustments of balances by hand", "card or account"),
    event_topic(Topic.EVENTS_FEES, "Fees charged", "card or account", partitions=6),
    event_topic(Topic.EVENTS_LOGIN, "Logins", "credential", partitions=6),
    TopicSpec(
        Topic.EVENTS_STEPUP,
        6,
        15 * _MINUTE,
        sensitive=True,
        dead_letter=None,
        about="Step-up challenges; holds `authToken`, which is a bearer secret",
        key="credential",
    ),
    event_topic(Topic.EVENTS_AUTHENTICATION_FACTORS, "Enrolment of authentication factors", "credential"),
    event_topic(Topic.EVENTS_BENEFICIARIES, "Batches of trusted beneficiaries", "beneficiary batch"),
    event_topic(Topic.EVENTS_BULK_OPERATIONS, "Ends of bulk processes", "bulk process"),
    event_topic(Topic.EVENTS_AUTH_USERS, "Deactivation of users", "user"),
    event_topic(Topic.EVENTS_IBANS, "IBANs: state and details", "IBAN"),
    event_topic(Topic.EVENTS_CORRESPONDENT_BANK_TRANSFERS, "Correspondent bank transfers", "correspondent transfer"),
    TopicSpec(
        Topic.EVENTS_QUARANTINE,
        3,
        7 * _DAY,
        sensitive=True,
        dead_letter=None,
        about="Authentic Weavr events that do not fit their model, or are of an unknown kind, body as received",
        key="integration",
    ),
    TopicSpec(
        Topic.EVENTS_STEPUP_QUARANTINE,
        1,
        15 * _MINUTE,
        sensitive=True,
        dead_letter=None,
        about="The same for step-up challenges: same access and retention as their topic",
        key="integration",
    ),
    TopicSpec(
        Topic.WEBHOOK_QUARANTINE,
        1,
        7 * _DAY,
        sensitive=True,
        dead_letter=None,
        about="Authentic webhooks of configured sources that could not be identified, body as received",
        key="source",
    ),
)

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
        Topic.BATCH_CHUNKS,
        12,
        3 * _DAY,
        sensitive=False,
        dead_letter=Topic.BATCH_DEAD_LETTER,
        about="Chunks of large files, for any worker of PROCESS; the records hold no card data",
        key="job and chunk",
        numbered=True,
    ),
    TopicSpec(
        Topic.BATCH_PROCESSED,
        12,
        3 * _DAY,
        sensitive=False,
        dead_letter=Topic.BATCH_DEAD_LETTER,
        about="All cards of a job have a result, which is in the job store",
    ),
    TopicSpec(
        Topic.BATCH_UPLOADED,
        12,
        3 * _DAY,
        sensitive=False,
        dead_letter=Topic.BATCH_DEAD_LETTER,
        about="The result is uploaded to the pre-signed URL; the job's outcome is `completed`",
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
        about="ECS accepted or refused the notification of the outcome: the end of a job, for other services",
    ),
    TopicSpec(
        Topic.BATCH_QUARANTINE,
        3,
        7 * _DAY,
        sensitive=True,
        dead_letter=None,
        about="Authentic but invalid announcements, body as received: holds pre-signed URLs",
        key="integration",
    ),
    TopicSpec(
        Topic.BATCH_DEAD_LETTER,
        3,
        7 * _DAY,
        sensitive=True,
        dead_letter=None,
        about="Records of the card-batch topics that nobody can handle, with the reason",
    ),
    *_EVENTS,
    TopicSpec(
        Topic.AUDIT_EVENTS,
        6,
        7 * _DAY,
        sensitive=False,
        dead_letter=Topic.AUDIT_DEAD_LETTER,
        about="Every step of every job; the audit stage appends it to the hash chain",
        key="job, or what the step is about",
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

SPECS: Final[dict[TopicName, TopicSpec]] = {spec.topic: spec for spec in TOPICS}

SOURCE_TOPICS: Final = "webhook-events."
"""Prefix of the topics of configured sources; the source's name follows, unless its settings name another topic."""

DEAD_LETTER_ENDING: Final = ".dead-letter"
"""Ending of every dead-letter topic, also of those of subscribers' groups."""


def segment_ms(spec: TopicSpec) -> int | None:
    """Return the time in milliseconds after which Kafka must close a segment, or None for the broker's default.

    Kafka deletes only closed segments. With its default of seven days, a topic with a retention of minutes would keep
    its records for days.
    """
    return max(_MINUTE, spec.retention_ms // 5) if spec.retention_ms < _DAY else None

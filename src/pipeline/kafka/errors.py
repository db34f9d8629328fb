"""The errors of Kafka that the rest of the code handles."""

from __future__ import annotations

from pipeline.errors import FatalError, PermanentError, TransientError


class BrokerUnavailable(TransientError):
    """Kafka failed, or did not confirm in time. Repeating is safe, but a topic may then hold the record twice.

    The code names the cause where it is known (docs/reference/errors.md, codes that begin with ``kafka_``).
    """


class TopicMissing(BrokerUnavailable):
    """A topic that this installation needs does not exist, or may not be described. Creating it is enough."""

    def __init__(self, what: str) -> None:
        """Say which, and how it is created."""
        super().__init__(
            "kafka_topic_missing",
            f"{what}: there is no such topic, or this user may not describe it. Run pipeline topics create.",
        )


class NotAuthorized(BrokerUnavailable):
    """The cluster refuses a right to the user of the settings. Granting it is enough."""

    def __init__(self, what: str) -> None:
        """Say for what."""
        super().__init__(
            "kafka_not_authorized",
            f"{what}: Kafka refuses this to the user of these settings. "
            "Grant the right (docs/explanation/security.md).",
        )


class RecordTooLarge(PermanentError):
    """The record is larger than brokers accept. Nothing was sent, and repeating never helps."""


class RecordsLost(FatalError):
    """Records were deleted before this group read them: retention was too short, or the topic was recreated.

    Attributes:
        first: Lowest offset that was lost.
        next_kept: Lowest offset that still exists, or the next one to be written.
    """

    def __init__(self, topic: str, partition: int, first: int, next_kept: int) -> None:
        """Say which records, and what lets the group go on."""
        which = (
            f"offsets {first} to {next_kept - 1} expired before they were read"
            if first < next_kept
            else f"the group is at offset {first} but the topic ends at {next_kept}: it was recreated"
        )
        super().__init__(
            "kafka_records_lost",
            f"{topic}, partition {partition}: {which}. "
            "Find out what was lost. To continue, stop the group and run: "
            f"pipeline events rewind --group GROUP --topic {topic} --to earliest --execute",
        )
        self.first = first
        self.next_kept = next_kept


class BatchUndecodable(FatalError):
    """A batch of records cannot be decoded: unknown codec, missing codec library, wrong checksum, damaged content.

    Attributes:
        topic: Logical name.
        offset: Position of the reader. Every record before it was returned.
        next_offset: The offset after the batch; None if the batch does not say it.
    """

    def __init__(self, topic: str, partition: int, offset: int, next_offset: int | None, why: str) -> None:
        """Name the batch, and the command that lets a group go on past it."""
        super().__init__(
            "kafka_batch_undecodable",
            f"{topic}, partition {partition}, offset {offset}: the batch cannot be decoded ({why}). Nothing is "
            "committed past it. Find out who wrote it, and whether a codec library is missing here. To give up its "
            f"records: pipeline topics skip --topic {topic} --partition {partition} --offset {offset} --group GROUP.",
        )
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.next_offset = next_offset
        self.why = why

    @property
    def position(self) -> dict[str, str | int | None]:
        """Which batch, for the log."""
        return {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "next_offset": self.next_offset,
        }


class GroupBusy(PermanentError):
    """The group has live members, which would overwrite the new offsets."""

    def __init__(self, group: str, members: str) -> None:
        """Say what to do."""
        super().__init__("group_busy", f"{group} has {members}: stop them first; nothing was changed")


class GroupUnknown(PermanentError):
    """No such group has committed anything."""


class TopicUnknown(PermanentError):
    """There is no such topic in the cluster."""


class SkipRefused(PermanentError):
    """The skip would affect records outside the one batch that cannot be decoded."""


class EmbeddedMissing(FatalError):
    """The embedded broker's library is not installed."""

    def __init__(self) -> None:
        """Name the extra."""
        super().__init__(
            "embedded_broker_missing",
            'The embedded broker needs the extra "embedded": pip install "card-pipeline[embedded]"',
        )


class OAuthMissing(FatalError):
    """The library that fetches tokens is not installed."""

    def __init__(self) -> None:
        """Name the extra."""
        super().__init__(
            "kafka_oauth_missing",
            'kafka.sasl: OAUTHBEARER needs the extra "oauth": pip install "card-pipeline[oauth]"',
        )

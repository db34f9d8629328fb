"""What can go wrong with Kafka, as the rest of the code sees it."""

from __future__ import annotations

from pipeline.errors import FatalError, PermanentError, TransientError


class BrokerUnavailable(TransientError):
    """No acknowledgement in time. Repeating is safe; the record may stand twice then."""


class RecordTooLarge(PermanentError):
    """The record exceeds what brokers take. Nothing was sent; repeating never helps."""


class RecordsLost(FatalError):
    """Records that this group had not read are gone: retention was shorter than the delay, or the topic was recreated.

    Attributes:
        first: Lowest offset that is gone.
        next_kept: Lowest offset that still exists, or is written next.
    """

    def __init__(self, topic: str, partition: int, first: int, next_kept: int) -> None:
        """Say which records, and what lets the group go on."""
        which = (
            f"offsets {first} to {next_kept - 1} expired before they were read"
            if first < next_kept
            else f"the group stands at offset {first} but the topic ends at {next_kept}: it was recreated"
        )
        super().__init__(
            "kafka_records_lost",
            f"{topic}, partition {partition}: {which}. "
            "Find out what was lost, then reset the group's offset to the earliest record to go on.",
        )
        self.first = first
        self.next_kept = next_kept


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

"""Settings of a subscriber. The defaults suit a handler that writes to a database."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.kafka import ConsumerSettings
from pipeline.retry import RetrySettings
from pipeline.units import Bytes, Count, Seconds


class SubscriberRetry(RetrySettings):
    """How often a handler is called for one event, and how long the subscriber waits between two calls."""

    max_tries: Count = Field(
        default=5,
        ge=1,
        le=1000,
        description="How often a handler is called for one event before the event is dead-lettered",
    )


class SubscriberSettings(BaseModel):
    """How one member of a subscriber's group works; docs/reference/subscribers.md explains them."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    retry: SubscriberRetry = Field(default=SubscriberRetry(), description="How a handler that fails is called again")
    max_dead_letters: Count = Field(
        default=100,
        ge=0,
        description="The subscriber stops after this many dead letters in a row, because the events are then not the cause",
    )
    concurrency: Count = Field(
        default=16,
        ge=1,
        le=1000,
        description="Maximum number of events of one partition, with different keys, that are handled at the same time",
    )
    slots: Count = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Maximum number of events that are handled at the same time in this process, over all its partitions",
    )
    max_span: Count = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Maximum distance in offsets between the committed and the highest event in work. A crash repeats at most this many events of a partition",
    )
    max_span_bytes: Bytes = Field(
        default=8_000_000,
        ge=1,
        description="A partition is paused while its fetched, unfinished events are larger than this in total",
    )
    repeat_seconds: Seconds = Field(
        default=21_600.0,
        ge=0,
        le=604_800,
        description="Window of the repeat rule in time: a record is recognised as a repeat if the previous record of its event is at most this much older",
    )
    repeat_records: Count = Field(
        default=100_000,
        ge=0,
        le=5_000_000,
        description="Window of the repeat rule in offsets: a record is recognised as a repeat if the previous record of its event is at most this many offsets before it. Each offset takes 200 bytes of memory per partition",
    )
    stop_grace_seconds: Seconds = Field(
        default=25.0, ge=0, le=86_400, description="How long handlers may continue when the process is stopped"
    )
    session_timeout_seconds: Seconds = Field(
        default=10.0,
        ge=1,
        le=300,
        description="A member without a heartbeat for this long loses its partitions to other members",
    )
    commit_interval_seconds: Seconds = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Longest time between two commits of offsets. Raise it to spare the brokers if there are many members",
    )
    fetch_wait_seconds: Seconds = Field(
        default=0.5,
        gt=0,
        le=5,
        description="How long a broker may hold back an empty answer. Lower it only for a broker that delays records too",
    )
    lost_records: Literal["stop", "report"] = Field(
        default="stop",
        description="If records expired before they were read: stop and name them, or log records_lost and continue behind the gap",
    )
    signals: bool = Field(
        default=True, description="Whether SIGTERM and SIGINT stop the subscriber; set false outside the main thread"
    )

    def for_consumer(self) -> ConsumerSettings:
        """Return the settings of the group member."""
        return ConsumerSettings(
            session_timeout_seconds=self.session_timeout_seconds,
            concurrency=self.concurrency,
            slots=self.slots,
            max_span=self.max_span,
            max_span_bytes=self.max_span_bytes,
            max_poll_records=min(500, 10 * self.max_span),
            stop_grace_seconds=self.stop_grace_seconds,
            retry=RetrySettings(first_seconds=self.retry.first_seconds, max_seconds=self.retry.max_seconds),
            commit_interval_seconds=self.commit_interval_seconds,
            fetch_wait_seconds=self.fetch_wait_seconds,
            lost_records=self.lost_records,
        )

"""Every publication may show whether the clock is right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.app.clock import ComparingPublisher
from pipeline.app.ports import compare_date
from pipeline.contracts import OutgoingRecord, RecordPosition, Topic
from pipeline.observability import CheckedClock, Metrics

NOW = datetime(2026, 1, 21, 12, tzinfo=UTC)
RECORD = OutgoingRecord(Topic.AUDIT_EVENTS, "k", b"v", ())


class Broker:
    """Appends at its own time."""

    problem = None

    def __init__(self, at: datetime | None) -> None:
        self.at = at

    async def publish(self, record: OutgoingRecord) -> RecordPosition:
        return RecordPosition(record.topic, 0, 0, round(self.at.timestamp() * 1000) if self.at else None)


async def test_the_brokers_time_of_an_append_is_compared_with_the_clock() -> None:
    clock = CheckedClock(lambda: NOW, Metrics().clock_offset_seconds)
    broker = Broker(NOW - timedelta(minutes=10))
    publisher = ComparingPublisher(broker, clock)
    assert publisher.problem is None
    assert (await publisher.publish(RECORD)).offset == 0
    assert clock.check().message == "the clock of this machine is 600 s ahead of kafka: set it, e.g. by NTP"


async def test_a_broker_without_append_times_says_nothing() -> None:
    clock = CheckedClock(lambda: NOW, Metrics().clock_offset_seconds)
    await ComparingPublisher(Broker(None), clock).publish(RECORD)
    assert clock.check().message == "not compared with others yet"


async def test_a_topic_without_append_times_is_asked_once_a_second_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock is read before each comparison, and after it if the broker states a time."""
    now, reads, broker = 100.0, 0, Broker(None)
    monkeypatch.setattr("pipeline.app.clock.time.monotonic", lambda: now)

    def read() -> datetime:
        nonlocal reads
        reads += 1
        return NOW

    publisher = ComparingPublisher(broker, CheckedClock(read, Metrics().clock_offset_seconds, monotonic=lambda: now))
    for _ in range(3):
        await publisher.publish(RECORD)
    assert reads == 1
    await publisher.publish(OutgoingRecord(Topic.BATCH_REQUESTED, "k", b"v", ()))
    assert reads == 2
    now, broker.at = 101.0, NOW
    for _ in range(3):
        await publisher.publish(RECORD)
    assert reads == 4


def test_the_date_of_a_partners_answer_is_compared_with_the_clock() -> None:
    """A header that is no date says nothing; a date has whole seconds."""
    metrics = Metrics()
    clock = CheckedClock(lambda: NOW + timedelta(milliseconds=900), metrics.clock_offset_seconds)
    for header in (None, "", "yesterday"):
        compare_date(clock, "acme", header, NOW)
    assert clock.check().message == "not compared with others yet"
    compare_date(clock, "acme", "Wed, 21 Jan 2026 12:00:00 GMT", NOW + timedelta(milliseconds=800))
    assert metrics.registry.get_sample_value("pipeline_clock_offset_seconds", {"witness": "acme"}) == 0
    compare_date(clock, "acme", "Wed, 21 Jan 2026 11:50:00 GMT", NOW)
    assert not clock.check().ok

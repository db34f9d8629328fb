"""CloudEvents 1.0 in binary mode, as records carry it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.contracts import EventHeaders, Headers, Record, Topic, first_values, is_for

EVENT = EventHeaders(
    id="0123",
    source="/webhooks/ecs/acme",
    type="card-batch.requested",
    subject="cffde776-1d2a-4614-8023-a5148e411462",
    time=datetime(2026, 1, 21, 12, 0, 0, 250_000, tzinfo=UTC),
    partition_key="acme/cffde776-1d2a-4614-8023-a5148e411462",
)


def test_the_attributes_have_the_names_of_the_kafka_binding() -> None:
    assert dict(EVENT.encode()) == {
        "ce_specversion": b"1.0",
        "ce_id": b"0123",
        "ce_source": b"/webhooks/ecs/acme",
        "ce_type": b"card-batch.requested",
        "ce_subject": b"cffde776-1d2a-4614-8023-a5148e411462",
        "ce_time": b"2026-01-21T12:00:00.250000Z",
        "ce_partitionkey": b"acme/cffde776-1d2a-4614-8023-a5148e411462",
        "content-type": b"application/json",
    }


def test_a_trace_goes_along_where_there_is_one() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event = EventHeaders(
        id="1", source="/s", type="t", subject="s", time=EVENT.time, partition_key="k", traceparent=trace
    )
    assert dict(event.encode())["traceparent"] == trace.encode()


def test_further_headers_come_last_and_keep_their_bytes() -> None:
    extra = [("pipeline_integration", b"acme"), ("X-Signature", b"\xff\x00")]
    assert EVENT.encode(extra)[-2:] == tuple(extra)


def test_a_time_elsewhere_keeps_its_offset() -> None:
    there = EVENT.time.astimezone(timezone(timedelta(hours=2)))
    event = EventHeaders(id="1", source="/s", type="t", subject="s", time=there, partition_key="k")
    assert dict(event.encode())["ce_time"] == b"2026-01-21T14:00:00.250000+02:00"


def test_the_first_of_equal_names_counts_and_wrong_bytes_do_no_harm() -> None:
    values = first_values((("ce_id", b"first"), ("ce_id", b"second"), ("odd", b"\xff")))
    assert values == {"ce_id": "first", "odd": "\ufffd"}


@pytest.mark.parametrize(
    ("headers", "mine"),
    [
        ((), True),
        ((("retry_group", b"process"),), True),
        ((("retry_group", b"watch"),), False),
        ((("replay_group", b"process"), ("ce_id", b"1")), True),
        ((("ce_id", b"1"), ("replay_group", b"audit")), False),
        ((("retry_group", b"process"), ("replay_group", b"audit")), False),
        ((("retry_group", b"\xff"),), False),
    ],
)
def test_a_copy_for_one_group_is_for_no_other(headers: Headers, *, mine: bool) -> None:
    record = Record(Topic.BATCH_REQUESTED, 0, 7, "acme/1", b"{}", headers, 0)
    assert is_for(record, "process") is mine

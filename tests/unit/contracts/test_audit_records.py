"""Audit events as records."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.audit_log import JOB, START, entry

from pipeline.contracts import (
    AuditAction,
    AuditEvent,
    EventHeaders,
    Headers,
    OutgoingRecord,
    Topic,
    TopicName,
    accepted_event,
    audit_record,
    first_values,
)

MARKS: Headers = (
    ("pipeline_client", b"198.51.100.9"),
    ("pipeline_verified_by", b"current"),
    ("pipeline_facts", b'{"record_count":3}'),
    ("pipeline_integration", b"acme"),
)


def test_an_event_of_a_job_has_the_jobs_key_and_its_id_as_ce_id() -> None:
    event = entry(1).event
    record = audit_record(event, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    headers = first_values(record.headers)
    assert record.topic is Topic.AUDIT_EVENTS
    assert record.key == f"acme/{JOB}" == headers["ce_partitionkey"]
    assert headers["ce_id"] == event.id
    assert headers["ce_type"] == "audit.job.processed"
    assert headers["ce_source"] == "/pipeline/process"
    assert headers["ce_subject"] == str(JOB)
    assert headers["ce_dataschema"] == "urn:card-pipeline:schema:audit.events:v1"
    assert headers["traceparent"].startswith("00-0af7")
    assert AuditEvent.model_validate_json(record.value) == event
    assert b"\n" not in record.value
    assert b'": ' not in record.value


def test_an_event_without_a_job_has_the_integrations_key_or_a_dash() -> None:
    refusals = AuditEvent(id="1", action=AuditAction.WEBHOOK_REFUSALS, at=START, actor="cli:jo hn", integration="acme")
    assert audit_record(refusals).key == "acme"
    nobody = audit_record(refusals.model_copy(update={"integration": None}))
    assert nobody.key == "-"
    assert first_values(nobody.headers)["ce_subject"] == "-"
    assert first_values(nobody.headers)["ce_source"] == "/pipeline/cli:jo%20hn"
    assert "traceparent" not in first_values(nobody.headers)


def webhook(
    *marks: tuple[str, bytes], topic: TopicName = Topic.BATCH_REQUESTED, key: str = f"acme/{JOB}"
) -> OutgoingRecord:
    """Return the record of an accepted webhook."""
    headers = EventHeaders(
        id="0f3c", source="/webhooks/ecs/acme", type="card-batch.requested", subject="-", time=START, partition_key=key
    )
    return OutgoingRecord(topic, key, b"4111111111111111", headers.encode(marks))


def test_the_record_of_a_webhook_implies_its_audit_event() -> None:
    event = accepted_event(webhook(*MARKS))
    assert event == AuditEvent(
        id=AuditEvent.id_of(AuditAction.WEBHOOK_ACCEPTED, "acme", "0f3c"),
        action=AuditAction.WEBHOOK_ACCEPTED,
        at=START,
        actor="ingress",
        integration="acme",
        job_guid=JOB,
        detail={
            "body_sha256": "9bbef19476623ca56c17da75fd57734dbf82530686043a6e491c6d71befe8f6e",
            "bytes": 16,
            "client": "198.51.100.9",
            "verified_by": "current",
            "event_id": "0f3c",
            "record_count": 3,
        },
    )


@pytest.mark.parametrize("without", ["pipeline_client", "pipeline_verified_by", "pipeline_integration"])
def test_a_record_without_the_marks_implies_none(without: str) -> None:
    """Such as one that an older ingress published together with its audit event, or a released one."""
    assert accepted_event(webhook(*(mark for mark in MARKS if mark[0] != without))) is None


@pytest.mark.parametrize(
    "headers",
    [
        ((name, b"\xff\xfe") for name in ("ce_id", "ce_time")),
        ((("pipeline_integration", b"Not A Name"), *MARKS[:3])),
        (),
    ],
    ids=["no time", "no name", "none"],
)
def test_a_record_that_is_no_webhook_implies_none(headers: Headers) -> None:
    record = webhook(*MARKS)
    hostile = (*headers, *record.headers) if headers else ()
    assert accepted_event(replace(record, headers=tuple(hostile))) is None


@pytest.mark.parametrize("facts", [b"", b"[]", b"\xff", b'{"a": NaN}', b"{" * 5000, b'{"a": "%b"}' % (b"x" * 20_000)])
def test_facts_that_the_ingress_did_not_write_cost_no_audit_event(facts: bytes) -> None:
    event = accepted_event(webhook(*(mark for mark in MARKS if mark[0] != "pipeline_facts"), ("pipeline_facts", facts)))
    assert event is not None
    assert set(event.detail) == {"body_sha256", "bytes", "client", "verified_by", "event_id"}


def test_facts_of_a_source_do_not_replace_what_the_ingress_saw() -> None:
    """Somebody's source may take its facts from the body."""
    facts = b'{"client":"x","verified_by":"x","event_id":"x","body_sha256":"x","bytes":0,"record_count":3}'
    event = accepted_event(webhook(*(mark for mark in MARKS if mark[0] != "pipeline_facts"), ("pipeline_facts", facts)))
    assert event == accepted_event(webhook(*MARKS))


@pytest.mark.parametrize(
    ("topic", "key"),
    [(Topic.BATCH_REQUESTED, "acme/no-guid"), (Topic.BATCH_REQUESTED, ""), ("webhook-events.shop", f"acme/{JOB}")],
)
def test_only_the_key_of_an_announcement_names_a_job(topic: TopicName, key: str) -> None:
    event = accepted_event(webhook(*MARKS, topic=topic, key=key))
    assert event is not None
    assert event.job_guid is None

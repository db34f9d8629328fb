"""Audit events as records."""

from __future__ import annotations

from support.audit_log import JOB, START, entry

from pipeline.contracts import AuditAction, AuditEvent, Topic, audit_record, first_values


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

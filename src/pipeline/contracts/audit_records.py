"""An audit event as a record of ``audit.events``."""

from __future__ import annotations

from urllib.parse import quote

from pipeline.contracts.audit_events import AuditEvent
from pipeline.contracts.headers import EventHeaders, schema_uri
from pipeline.contracts.jobs import job_key
from pipeline.contracts.records import OutgoingRecord
from pipeline.contracts.topics import Topic


def audit_record(event: AuditEvent, *, traceparent: str | None = None) -> OutgoingRecord:
    """Return the record to publish before the source's offset is committed.

    All events of a job have the job's key, so one partition holds them in order. Events about an integration have its
    name as key, others ``-``.

    Args:
        event: Its id is deterministic, so the log holds a repeated publication once.
        traceparent: W3C trace context of the work that the event is about.
    """
    key = _key(event)
    headers = EventHeaders(
        id=event.id,
        source=f"/pipeline/{quote(event.actor, safe=':')}",
        type=f"audit.{event.action.value}",
        subject=str(event.job_guid or event.integration or "-"),
        time=event.at,
        partition_key=key,
        traceparent=traceparent,
        dataschema=schema_uri(Topic.AUDIT_EVENTS),
    )
    return OutgoingRecord(Topic.AUDIT_EVENTS, key, event.model_dump_json().encode(), headers.encode())


def _key(event: AuditEvent) -> str:
    if event.integration is None:
        return "-"
    return event.integration if event.job_guid is None else job_key(event.integration, event.job_guid)

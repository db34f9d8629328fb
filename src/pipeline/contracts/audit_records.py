"""Turns an audit event into a record of ``audit.events``, and a webhook's record into its audit event."""

from __future__ import annotations

import hashlib
import json
from typing import Final
from urllib.parse import quote
from uuid import UUID

from pydantic import ConfigDict, JsonValue, TypeAdapter, ValidationError

from pipeline.contracts.audit_events import AuditAction, AuditEvent
from pipeline.contracts.headers import (
    CLIENT_HEADER,
    FACTS_HEADER,
    INTEGRATION_HEADER,
    VERIFIED_BY_HEADER,
    EventHeaders,
    first_values,
    schema_uri,
)
from pipeline.contracts.jobs import job_key
from pipeline.contracts.records import OutgoingRecord, Record
from pipeline.contracts.topics import Topic

_ACTOR: Final = "ingress"
_MAX_FACTS: Final = 16_384
"""Maximum length of the facts of a webhook in the audit log, in characters; those of ECS have about 150."""
_OBJECT: Final[TypeAdapter[dict[str, JsonValue]]] = TypeAdapter(
    dict[str, JsonValue], config=ConfigDict(defer_build=True)
)


def audit_record(event: AuditEvent, *, traceparent: str | None = None) -> OutgoingRecord:
    """Return the record of an audit event. Publish it before you commit the offset of the source record.

    All events of a job have the job's key, so one partition holds them in order. Events about an integration have its
    name as key, others ``-``.

    Args:
        event: Its id is deterministic, so the log holds a repeated publication once.
        traceparent: W3C trace context of the audited work.
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


def accepted_event(record: Record | OutgoingRecord) -> AuditEvent | None:
    """Return the audit event of an accepted webhook, built from the webhook's own record.

    Of the value it contains only length and hash. Repeated records of one webhook have the same id.

    Returns:
        None if the record lacks :data:`VERIFIED_BY_HEADER`, or is not a webhook: it then has no audit event.
    """
    headers = first_values(record.headers)
    try:
        integration, event_id = headers[INTEGRATION_HEADER], headers["ce_id"]
        return AuditEvent.model_validate(
            {
                "id": AuditEvent.id_of(AuditAction.WEBHOOK_ACCEPTED, integration, event_id),
                "action": AuditAction.WEBHOOK_ACCEPTED,
                "at": headers["ce_time"],
                "actor": _ACTOR,
                "integration": integration,
                "job_guid": _job_guid(record, integration),
                "detail": {
                    **_facts(headers.get(FACTS_HEADER, "{}")),
                    "body_sha256": hashlib.sha256(record.value).hexdigest(),
                    "bytes": len(record.value),
                    "client": headers[CLIENT_HEADER],
                    "verified_by": headers[VERIFIED_BY_HEADER],
                    "event_id": event_id,
                },
            }
        )
    except (KeyError, ValidationError):
        return None


def _job_guid(record: Record | OutgoingRecord, integration: str) -> UUID | None:
    """Return the job that an announcement's key names."""
    if record.topic != Topic.BATCH_REQUESTED:
        return None
    try:
        return UUID(record.key.removeprefix(f"{integration}/"))
    except ValueError:
        return None


def _facts(text: str) -> dict[str, JsonValue]:
    """Return the facts; none if the ingress did not write them."""
    if len(text) > _MAX_FACTS:
        return {}
    try:
        facts = _OBJECT.validate_json(text)
        json.dumps(facts, allow_nan=False)
    except ValueError:
        return {}
    return facts

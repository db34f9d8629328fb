"""What is published of a request: the record of the event, the record of quarantine, the audit events."""

from __future__ import annotations

import hashlib
from typing import Final

from pydantic import JsonValue

from pipeline.contracts import (
    INTEGRATION_HEADER,
    PATH_HEADER,
    AuditAction,
    AuditEvent,
    EventHeaders,
    Headers,
    OutgoingRecord,
    event_id,
)
from pipeline.contracts.strict_json import InvalidBody
from pipeline.webhooks.sources import Identified
from pipeline.webhooks.webhook import Received

REASONS: Final = "pipeline_quarantine_reasons"
QUARANTINED_TYPE: Final = "webhook.quarantined"
ACTOR: Final = "ingress"

_MAX_REASONS: Final = 16


def accepted(received: Received, found: Identified) -> OutgoingRecord:
    """Return the record of an event: the body as received, everything known about it in headers."""
    headers = EventHeaders(
        id=found.id,
        source=received.source.path,
        type=found.type,
        subject=found.subject,
        time=received.at,
        partition_key=found.key,
        content_type=received.content_type,
        traceparent=received.trace.traceparent,
        dataschema=found.dataschema,
    )
    return OutgoingRecord(found.topic, found.key, received.delivery.body, headers.encode(_extra(received)))


def quarantined(received: Received, invalid: InvalidBody) -> OutgoingRecord:
    """Return the record of quarantine. Its id is that of the delivery, so that a repeat is recognised."""
    integration = received.source.integration
    headers = EventHeaders(
        id=_quarantine_id(received, invalid),
        source=received.source.path,
        type=QUARANTINED_TYPE,
        subject=integration,
        time=received.at,
        partition_key=integration,
        content_type=received.content_type,
        traceparent=received.trace.traceparent,
    )
    extra = (*_extra(received), (REASONS, ",".join(_reasons(invalid)).encode()))
    topic = received.source.provider.quarantine(received.delivery)
    return OutgoingRecord(topic, integration, received.delivery.body, headers.encode(extra))


def _quarantine_id(received: Received, invalid: InvalidBody) -> str:
    return invalid.id or event_id(received.source.integration, received.delivery.body)


def _extra(received: Received) -> Headers:
    delivery = received.delivery
    integration = (INTEGRATION_HEADER, received.source.integration.encode())
    path = ((PATH_HEADER, delivery.path.encode()),) if delivery.path else ()
    return (integration, *path, *delivery.headers)


def _reasons(invalid: InvalidBody) -> list[str]:
    return [f"{finding.field or 'body'}:{finding.rule}" for finding in invalid.findings[:_MAX_REASONS]]


def accepted_event(received: Received, found: Identified) -> AuditEvent:
    """Return the audit event of an accepted webhook; a repeat of the same body has the same id."""
    integration = received.source.integration
    return AuditEvent(
        id=AuditEvent.id_of(AuditAction.WEBHOOK_ACCEPTED, integration, found.id),
        action=AuditAction.WEBHOOK_ACCEPTED,
        at=received.at,
        actor=ACTOR,
        integration=integration,
        job_guid=found.job_guid,
        detail=_detail(received) | {"event_id": found.id, **found.facts},
    )


def quarantined_event(received: Received, invalid: InvalidBody) -> AuditEvent:
    """Return the audit event of an authentic but invalid webhook; its repeat has the same id."""
    integration = received.source.integration
    return AuditEvent(
        id=AuditEvent.id_of(AuditAction.WEBHOOK_QUARANTINED, integration, _quarantine_id(received, invalid)),
        action=AuditAction.WEBHOOK_QUARANTINED,
        at=received.at,
        actor=ACTOR,
        integration=integration,
        detail=_detail(received) | {"reasons": [*_reasons(invalid)]},
    )


def _detail(received: Received) -> dict[str, JsonValue]:
    return {
        "body_sha256": hashlib.sha256(received.delivery.body).hexdigest(),
        "bytes": len(received.delivery.body),
        "client": received.delivery.client,
        "verified_by": received.verified_by,
    }

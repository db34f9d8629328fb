"""Quarantined requests, which were authentic but invalid: decodes, shows and releases them. Does no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic import JsonValue

from pipeline.contracts import (
    ENCODING_HEADER,
    INTEGRATION_HEADER,
    PATH_HEADER,
    AuditAction,
    AuditEvent,
    EventHeaders,
    Headers,
    OutgoingRecord,
    Record,
    RecordPosition,
    Topic,
    first_values,
)
from pipeline.contracts.strict_json import Finding, InvalidBody
from pipeline.errors import PoisonRecord
from pipeline.observability import FOREIGN_DIGITS, mask_text
from pipeline.outbound import FIELDS, redact
from pipeline.webhooks.records import REASONS
from pipeline.webhooks.sources import Source, WebhookRequest

_CORE: Final = frozenset(
    {"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "ce_partitionkey"}
    | {"ce_dataschema", "content-type", ENCODING_HEADER, "traceparent", REASONS}
)
"""Headers that a release rewrites or drops."""

_HIDDEN: Final = "(not shown)"
_URLS: Final = frozenset(FIELDS.values())
_GUIDS: Final = frozenset({"job_guid", "merchant_guid"})
_TEXTS: Final = frozenset({"partner_reference_id", "expires_at"})
_MAX_TEXT: Final = 200


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One record of quarantine.

    Attributes:
        id: Identifier of the request, equal for its repeats. Commands use it.
        integration: The integration whose webhook received it.
        path: That webhook's path.
        at: When it was received.
        reasons: The broken rules at that time, as ``field:rule``.
        request: The stored part of the request. It contains bearer URLs, personal data and tokens.
        traceparent: Trace context of the request.
        kept: The record's other headers: integration, path, signature.
        position: The position of its record.
    """

    id: str
    integration: str
    path: str
    at: datetime
    reasons: tuple[str, ...]
    request: WebhookRequest
    traceparent: str | None
    kept: Headers = field(repr=False)
    position: RecordPosition


@dataclass(frozen=True, slots=True)
class Release:
    """The records that a release publishes: first the event, then the audit event."""

    record: OutgoingRecord
    event: AuditEvent


def read_quarantined(record: Record) -> Quarantined:
    """Decode a record of a quarantine topic.

    Raises:
        PoisonRecord: A header is missing or unreadable, so the ingress did not write the record.
    """
    headers = first_values(record.headers)
    kept = tuple((name, value) for name, value in record.headers if name not in _CORE)
    received = tuple(header for header in kept if header[0] not in (INTEGRATION_HEADER, PATH_HEADER))
    try:
        return Quarantined(
            id=headers["ce_id"],
            integration=headers[INTEGRATION_HEADER],
            path=headers["ce_source"],
            at=datetime.fromisoformat(headers["ce_time"]),
            reasons=tuple(reason for reason in headers[REASONS].split(",") if reason),
            request=WebhookRequest(
                headers.get(PATH_HEADER, ""),
                received,
                record.value,
                content_type=headers["content-type"],
                encoding=headers.get(ENCODING_HEADER, ""),
            ),
            traceparent=headers.get("traceparent"),
            kept=kept,
            position=RecordPosition(record.topic, record.partition, record.offset),
        )
    except (KeyError, ValueError) as error:
        raise PoisonRecord(
            "quarantine_unreadable", "A header of the quarantined record is missing or malformed"
        ) from error


def shown(item: Quarantined) -> dict[str, JsonValue]:
    """Return a masked view, without queries of URLs, runs of digits, unknown fields and signatures."""
    return {
        "id": item.id,
        "integration": item.integration,
        "path": item.path,
        "at": item.at.isoformat(),
        "reasons": [*item.reasons],
        "content_type": mask_text(item.request.content_type, digits=FOREIGN_DIGITS)[:_MAX_TEXT],
        "content_encoding": item.request.encoding or None,
        "bytes": len(item.request.body),
        "sha256": hashlib.sha256(item.request.body).hexdigest(),
        "body": _masked_body(item),
    }


def findings_now(item: Quarantined, source: Source) -> tuple[Finding, ...]:
    """Return its faults under the current configuration; empty if it can be released."""
    try:
        source.identify(item.request)
    except InvalidBody as invalid:
        return invalid.findings
    return ()


def release(item: Quarantined, source: Source, *, now: datetime, actor: str) -> Release:
    """Return the records to publish as if the request had been accepted when it arrived.

    They are deterministic, except for the audit event's time. The record has the id that the ingress would give the
    same request today, so a release, its repetition and a repeat by the sender are one event.

    Args:
        item: The quarantined request.
        source: The currently configured source of its integration.
        now: Aware UTC time.
        actor: Who releases it, e.g. ``cli:operator``.

    Raises:
        InvalidBody: It is still invalid.
    """
    found = source.identify(item.request)
    headers = EventHeaders(
        id=found.id,
        source=item.path,
        type=found.type,
        subject=found.subject,
        time=item.at,
        partition_key=found.key,
        content_type=item.request.content_type,
        traceparent=item.traceparent,
        dataschema=found.dataschema,
        content_encoding=item.request.encoding,
    )
    event = AuditEvent(
        id=AuditEvent.id_of(AuditAction.QUARANTINE_RELEASED, item.integration, found.id),
        action=AuditAction.QUARANTINE_RELEASED,
        at=now,
        actor=actor,
        integration=item.integration,
        job_guid=found.job_guid,
        detail={**found.facts, "event_id": found.id, "quarantine_id": item.id, "received_at": item.at.isoformat()},
    )
    return Release(OutgoingRecord(found.topic, found.key, item.request.body, headers.encode(item.kept)), event)


def _masked_body(item: Quarantined) -> dict[str, JsonValue] | None:
    """Return the masked body. Known fields exist only for announcements."""
    known = item.position.topic == Topic.BATCH_QUARANTINE
    try:
        body = item.request.json_body
    except InvalidBody:
        return None
    return masked_announcement(body, _KNOWN if known else {})


def masked_announcement(body: bytes, names: Mapping[str, None] | None = None) -> dict[str, JsonValue] | None:
    """Return the known fields of an announcement, masked, and the number of others; None if it is not a JSON object.

    Args:
        body: As received.
        names: The known fields; default: those of ECS's announcements.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    names = _KNOWN if names is None else names
    known: dict[str, JsonValue] = {name: _masked(name, data[name]) for name in names if name in data}
    return known | {"other_fields": len(data) - len(known)}


def _masked(name: str, value: Any) -> JsonValue:
    if name in _URLS and isinstance(value, str):
        return redact(value)
    if name in _GUIDS and isinstance(value, str):
        return _guid(value)
    if name in _TEXTS and isinstance(value, str):
        return mask_text(value, digits=FOREIGN_DIGITS)[:_MAX_TEXT]
    if name == "record_count" and isinstance(value, int):
        return value if abs(value) < _LARGEST_COUNT else _HIDDEN
    if name == "external_location_ids" and isinstance(value, list):
        return f"{len(value)} elements"
    return f"({type(value).__name__}, not shown)"


def _guid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        return _HIDDEN


_LARGEST_COUNT: Final = 1_000_000_000
_KNOWN: Final[Mapping[str, None]] = dict.fromkeys(
    [
        "job_guid",
        "merchant_guid",
        "partner_reference_id",
        "external_location_ids",
        "record_count",
        "expires_at",
        *sorted(_URLS),
    ]
)

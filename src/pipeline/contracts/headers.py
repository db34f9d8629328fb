"""Record headers: CloudEvents 1.0 binary mode for Kafka, plus ``traceparent``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

Headers = tuple[tuple[str, bytes], ...]
"""Kafka record headers: ordered, names may repeat, values are bytes."""

SPEC_VERSION = "1.0"

INTEGRATION_HEADER = "pipeline_integration"
"""Record header with the name of the integration that received the webhook."""

PATH_HEADER = "pipeline_path"
"""Record header with the path relative to the webhook's path, e.g. ``/managed_cards/watch``; absent if empty."""

ENCODING_HEADER = "content-encoding"
"""Record header with the compression of the value, e.g. ``gzip``; absent if the value is not compressed."""

CLIENT_HEADER = "pipeline_client"
"""Record header with the client address of a webhook. Only records from which AUDIT builds an event have it."""

VERIFIED_BY_HEADER = "pipeline_verified_by"
"""Record header that names what proved a webhook authentic, e.g. a key's id. AUDIT handles only records with it."""

FACTS_HEADER = "pipeline_facts"
"""Record header with facts about the webhook for its audit event, as a JSON object: counts, ids, times."""

RETRY_GROUP_HEADER = "retry_group"
"""Record header with the only consumer group that must handle a retried record."""

RETRY_COUNT_HEADER = "retry_count"
"""Record header that counts, from 1, how often the record has waited outside its topic."""

RETRY_FIRST_AT_HEADER = "retry_first_at"
"""Record header with the time when the record first began to wait (ISO 8601, UTC)."""

RETRY_CODE_HEADER = "retry_code"
"""Record header with the error code that caused the latest wait."""

RETRY_ATTEMPT_HEADER = "retry_attempt"
"""Record header with the attempt of the job that waited; only where its announcement is stored."""

RETRY_DEADLINE_HEADER = "retry_deadline"
"""Record header with the job's deadline as it was when the record began to wait (ISO 8601, UTC); as the attempt."""

REPLAY_GROUP_HEADER = "replay_group"
"""Record header with the only consumer group that must handle a replayed dead letter."""

REPLAYED_FROM_HEADER = "replayed_from"
"""Record header with the position of the dead letter that was replayed: ``<topic>/<partition>/<offset>``."""


def schema_uri(name: str, version: int = 1) -> str:
    """Return the URI of a published schema (``ce_dataschema``), the ``$id`` of its file in ``schemas/``."""
    return f"urn:card-pipeline:schema:{name}:v{version}"


@dataclass(frozen=True, slots=True)
class EventHeaders:
    """The CloudEvents attributes of one record (Kafka protocol binding, binary content mode).

    Attributes:
        id: Deterministic; equal ids mean the same event.
        source: URI reference of the origin, e.g. ``/webhooks/ecs/acme`` or ``/stages/process``.
        type: e.g. ``card-batch.requested``.
        subject: The subject of the event, e.g. the job GUID.
        time: When the event was received or happened.
        partition_key: Equal to the record's key (CloudEvents partitioning extension).
        content_type: Media type of the value.
        traceparent: W3C trace context, or None.
        dataschema: URI of the value's schema (``$id`` of a file in ``schemas/``), or None.
        content_encoding: Compression of the value, e.g. ``gzip``; empty for none.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    partition_key: str
    content_type: str = "application/json"
    traceparent: str | None = None
    dataschema: str | None = None
    content_encoding: str = ""

    def encode(self, extra: Iterable[tuple[str, bytes]] = ()) -> Headers:
        """Return the record headers, ``extra`` last."""
        named = {
            "ce_specversion": SPEC_VERSION,
            "ce_id": self.id,
            "ce_source": self.source,
            "ce_type": self.type,
            "ce_subject": self.subject,
            "ce_time": self.time.isoformat().replace("+00:00", "Z"),
            "ce_partitionkey": self.partition_key,
            "content-type": self.content_type,
        }
        if self.content_encoding:
            named[ENCODING_HEADER] = self.content_encoding
        if self.dataschema:
            named["ce_dataschema"] = self.dataschema
        if self.traceparent:
            named["traceparent"] = self.traceparent
        return (*((name, value.encode()) for name, value in named.items()), *extra)


def first_values(headers: Headers) -> Mapping[str, str]:
    """Return the first value of each header name as text; undecodable bytes become U+FFFD."""
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name, value.decode("utf-8", "replace"))
    return found

"""What crosses a wire: event models, topics, keys, record headers. Pure."""

from pipeline.contracts.audit_events import AuditAction, AuditEvent
from pipeline.contracts.audit_records import audit_record
from pipeline.contracts.headers import INTEGRATION_HEADER, PATH_HEADER, EventHeaders, Headers, first_values, schema_uri
from pipeline.contracts.jobs import (
    BatchCompleted,
    BatchFailed,
    BatchProcessed,
    BatchRequested,
    BatchUploaded,
    CallbackBody,
    IntegrationName,
    JobMessage,
    OutcomeMessage,
    event_id,
    job_key,
    stable_hash,
)
from pipeline.contracts.records import OutgoingRecord, Record, RecordPosition
from pipeline.contracts.topics import (
    DEAD_LETTER_ENDING,
    SOURCE_TOPICS,
    SPECS,
    TOPICS,
    Topic,
    TopicName,
    TopicSpec,
    event_topic,
    segment_ms,
)

__all__ = [
    "DEAD_LETTER_ENDING",
    "INTEGRATION_HEADER",
    "PATH_HEADER",
    "SOURCE_TOPICS",
    "SPECS",
    "TOPICS",
    "AuditAction",
    "AuditEvent",
    "BatchCompleted",
    "BatchFailed",
    "BatchProcessed",
    "BatchRequested",
    "BatchUploaded",
    "CallbackBody",
    "EventHeaders",
    "Headers",
    "IntegrationName",
    "JobMessage",
    "OutcomeMessage",
    "OutgoingRecord",
    "Record",
    "RecordPosition",
    "Topic",
    "TopicName",
    "TopicSpec",
    "audit_record",
    "event_id",
    "event_topic",
    "first_values",
    "job_key",
    "schema_uri",
    "segment_ms",
    "stable_hash",
]

"""What crosses a wire: event models, topics, keys, record headers. Pure."""

from pipeline.contracts.audit_events import AuditAction, AuditEvent
from pipeline.contracts.headers import INTEGRATION_HEADER, EventHeaders, Headers, first_values
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
)
from pipeline.contracts.topics import SPECS, TOPICS, Topic, TopicSpec

__all__ = [
    "INTEGRATION_HEADER",
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
    "Topic",
    "TopicSpec",
    "event_id",
    "first_values",
    "job_key",
]

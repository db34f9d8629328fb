"""The records that stages exchange. They are built from receipts, so that a repeated record has the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from pipeline.contracts import (
    INTEGRATION_HEADER,
    BatchChunk,
    BatchCompleted,
    BatchFailed,
    BatchProcessed,
    BatchUploaded,
    EventHeaders,
    JobMessage,
    OutgoingRecord,
    Record,
    Topic,
    chunk_key,
    event_id,
    first_values,
    job_key,
    schema_uri,
)
from pipeline.errors import PoisonRecord
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.receipts import Announcement, NotificationResult, Outcome, Plan, Processed
from pipeline.kafka.protocols import Lease
from pipeline.observability import parse_traceparent

M = TypeVar("M", bound=JobMessage)


@dataclass(frozen=True, slots=True)
class StageMessage:
    """A record about one job, as a stage received it.

    Attributes:
        lease: Checked before each effect.
        traceparent: Trace context of the record.
    """

    ref: JobRef
    lease: Lease
    traceparent: str | None

    @classmethod
    def of(cls, record: Record, ref: JobRef, lease: Lease) -> StageMessage:
        """Return the message of a record."""
        # the header may hold any text, and every record of the job repeats it: use it only if it is valid
        trace = parse_traceparent(first_values(record.headers).get("traceparent"))
        return cls(ref, lease, trace.traceparent if trace else None)


def decode(record: Record, model: type[M]) -> M:
    """Return the message of a stage's record.

    Raises:
        PoisonRecord: The record is not such a message; the error names the field, never its value.
    """
    try:
        return model.model_validate_json(record.value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "value"
        raise PoisonRecord("message_invalid", f"not a {model.__name__}: {where}: {first['msg']}") from None


def receipt_missing(ref: JobRef, name: str) -> PoisonRecord:
    """Return the error for a message whose receipt does not exist: the step never happened, or someone deleted it.

    The record is dead-lettered: one wrong record must not stop a partition, and the deadline watch still gives the job
    an outcome.
    """
    return PoisonRecord(
        "receipt_missing",
        f"{ref.work}{name} does not exist, although this record says that the step was done. Was the store emptied, or "
        "does another program write to this topic?",
    )


def ref_of(message: JobMessage) -> JobRef:
    """Return the attempt of the job that a message is about."""
    return JobRef(message.integration, message.job_guid, message.attempt)


def processed_record(stage_message: StageMessage, announcement: Announcement, receipt: Processed) -> OutgoingRecord:
    """Return the record that starts UPLOAD."""
    ref = stage_message.ref
    message = BatchProcessed(
        integration=ref.integration,
        job_guid=ref.job_guid,
        attempt=ref.attempt,
        merchant_guid=announcement.request.merchant_guid,
        partner_reference_id=announcement.request.partner_reference_id,
        announcement=receipt.announcement,
        at=receipt.at,
        generation=receipt.generation,
        parts=receipt.parts,
        records=receipt.records,
        records_ok=receipt.ok,
        records_failed=receipt.failed,
        result_bytes=receipt.result_bytes,
    )
    return _outgoing(Topic.BATCH_PROCESSED, message, "process", stage_message.traceparent)


def chunk_record(
    stage_message: StageMessage, announcement: Announcement, plan: Plan, generation: str, number: int
) -> OutgoingRecord:
    """Return the record that lets any worker process one chunk; copies of it are equal."""
    ref = stage_message.ref
    message = BatchChunk(
        integration=ref.integration,
        job_guid=ref.job_guid,
        attempt=ref.attempt,
        merchant_guid=announcement.request.merchant_guid,
        partner_reference_id=announcement.request.partner_reference_id,
        announcement=plan.announcement,
        at=plan.at,
        generation=generation,
        number=number,
    )
    facts = (generation, str(number))
    key = chunk_key(ref.integration, ref.job_guid, number)
    return _outgoing(Topic.BATCH_CHUNKS, message, "process", stage_message.traceparent, *facts, key=key)


def outcome_record(
    ref: JobRef, announcement: Announcement, outcome: Outcome, traceparent: str | None, again: str | None = None
) -> OutgoingRecord:
    """Return the record that makes CONFIRM notify the partner of the outcome."""
    shared = {
        "integration": ref.integration,
        "job_guid": ref.job_guid,
        "attempt": ref.attempt,
        "merchant_guid": announcement.request.merchant_guid,
        "partner_reference_id": announcement.request.partner_reference_id,
        "announcement": outcome.announcement,
        "at": outcome.at,
        "again": again,
    }
    if outcome.outcome == "failed":
        failed = BatchFailed(**shared, reason=outcome.reason or "unknown", error_message=outcome.message or "")
        return _outgoing(Topic.BATCH_FAILED, failed, outcome.decided_by, traceparent, again or "")
    uploaded = BatchUploaded(
        **shared,
        records=outcome.records,
        records_ok=outcome.ok,
        records_failed=outcome.failed,
        result_bytes=outcome.result_bytes,
        result_etag=outcome.result_etag,
    )
    return _outgoing(Topic.BATCH_UPLOADED, uploaded, outcome.decided_by, traceparent, again or "")


def completed_record(
    ref: JobRef,
    announcement: Announcement,
    outcome: Outcome,
    result: NotificationResult,
    *,
    again: str | None,
    traceparent: str | None,
) -> OutgoingRecord:
    """Return the record that ends the job for other services."""
    message = BatchCompleted(
        integration=ref.integration,
        job_guid=ref.job_guid,
        attempt=ref.attempt,
        merchant_guid=announcement.request.merchant_guid,
        partner_reference_id=announcement.request.partner_reference_id,
        announcement=outcome.announcement,
        at=result.at,
        outcome=outcome.outcome,
        reason=outcome.reason,
        told=result.told,
        records_processed=outcome.ok + outcome.failed,
        records_failed=outcome.failed,
    )
    return _outgoing(Topic.BATCH_COMPLETED, message, "confirm", traceparent, again or "", result.told)


def repeated_announcement(
    ref: JobRef, announcement: Announcement, *, identity: str, actor: str, at: datetime
) -> OutgoingRecord:
    """Return a record that repeats an announcement of a job under a new id.

    Args:
        ref: An attempt of the job.
        announcement: The announcement to repeat.
        identity: Distinguishes this repetition from others; equal identities give the same announcement.
        actor: Who repeats the announcement.
        at: When.
    """
    key = job_key(ref.integration, ref.job_guid)
    headers = EventHeaders(
        id=event_id(Topic.BATCH_REQUESTED.value, ref.integration, str(ref.job_guid), identity),
        source=f"/pipeline/{quote(actor, safe=':')}",
        type=Topic.BATCH_REQUESTED.value,
        subject=str(ref.job_guid),
        time=at,
        partition_key=key,
    )
    extra = ((INTEGRATION_HEADER, ref.integration.encode()),)
    return OutgoingRecord(Topic.BATCH_REQUESTED, key, announcement.value or b"", headers.encode(extra))


def _outgoing(
    topic: Topic, message: JobMessage, actor: str, traceparent: str | None, *facts: str, key: str | None = None
) -> OutgoingRecord:
    key = key or job_key(message.integration, message.job_guid)
    guid = str(message.job_guid)
    headers = EventHeaders(
        id=event_id(topic.value, message.integration, guid, str(message.attempt), *facts),
        source=f"/pipeline/{quote(actor, safe=':')}",
        type=topic.value,
        subject=guid,
        time=message.at,
        partition_key=key,
        traceparent=traceparent,
        dataschema=schema_uri(topic),
    )
    return OutgoingRecord(topic, key, message.model_dump_json().encode(), headers.encode())

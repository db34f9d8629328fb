"""The identity of a job, and the messages of the card-batch topics."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

_INTEGRATION: Final = r"[a-z0-9][a-z0-9-]{0,62}"

IntegrationName = Annotated[str, Field(pattern=rf"^{_INTEGRATION}$")]
"""Lower case letters, digits and dashes, because URLs, topic keys and store paths contain the name."""

_JOB_KEY: Final = re.compile(
    rf"(?P<integration>{_INTEGRATION})/(?P<guid>[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})(?P<chunk>#[0-9]+)?"
)

_TIMES: Final = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
"""Accepted years. They leave room for margins and pauses, and a minute has twelve digits in a store key."""


class BatchRequested(BaseModel):
    """The announcement of a card batch job, as eCard Systems sends it.

    Unknown fields are kept, because the webhook is in beta. The two file URLs are bearer secrets: only the job store
    and the topics marked sensitive hold them.
    """

    model_config = ConfigDict(defer_build=True, extra="allow", frozen=True, hide_input_in_errors=True)

    job_guid: UUID
    partner_reference_id: str = Field(max_length=1024)
    merchant_guid: UUID
    external_location_ids: tuple[str, ...] = Field(max_length=10_000)
    record_count: int = Field(ge=0, le=10**12, strict=True)
    input_file_url: str = Field(repr=False, max_length=8192)
    result_upload_url: str = Field(repr=False, max_length=8192)
    expires_at: AwareDatetime
    callback_url: str = Field(repr=False, max_length=8192)

    @field_validator("expires_at", mode="before")
    @classmethod
    def _iso_only(cls, value: object) -> object:
        # pydantic would read a number as a Unix time; ECS sends ISO timestamps, and a wrong unit would lose jobs
        if not isinstance(value, str | datetime):
            raise ValueError("an ISO 8601 timestamp with a zone is needed, e.g. 2026-01-22T22:43:59.295Z")  # noqa: TRY004 - pydantic turns ValueError into a finding
        return value

    @field_validator("expires_at")
    @classmethod
    def _calculable(cls, value: datetime) -> datetime:
        if not _TIMES[0] <= value < _TIMES[1]:
            raise ValueError("must be a time between the years 2000 and 2200")
        return value


class JobMessage(BaseModel):
    """The fields of every later card-batch record. Free of URLs and card data."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    integration: IntegrationName
    job_guid: UUID
    attempt: int = Field(default=1, ge=1, le=1_000_000)
    """1; more if a failed job was announced again and the integration allows a new attempt."""
    merchant_guid: UUID
    partner_reference_id: str
    announcement: str
    """Identifier of the announcement that caused this record (16 hex digits)."""
    at: AwareDatetime


class BatchProcessed(JobMessage):
    """Every card of the job has a result; the result parts are in the job store."""

    generation: str
    parts: int = Field(ge=0)
    records: int = Field(ge=0)
    records_ok: int = Field(ge=0)
    records_failed: int = Field(ge=0)
    result_bytes: int = Field(ge=0)


class BatchChunk(JobMessage):
    """One chunk of a large file, for any worker to process. The job store holds the chunk's position."""

    generation: str = Field(pattern=r"^[0-9a-f]{16}$")
    number: int = Field(ge=0, lt=10**8)


class OutcomeMessage(JobMessage):
    """The job has its outcome, and the partner must be notified.

    ``again`` identifies a repeated notification of the same outcome, which a later announcement or a command requests.
    """

    again: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")


class BatchUploaded(OutcomeMessage):
    """The result is uploaded to ECS, and the job has the outcome ``completed``."""

    records: int = Field(ge=0)
    records_ok: int = Field(ge=0)
    records_failed: int = Field(ge=0)
    result_bytes: int = Field(ge=0)
    result_etag: str


class BatchFailed(OutcomeMessage):
    """The job has the outcome ``failed``; ``reason`` is the stable error code (docs/reference/errors.md)."""

    reason: str
    error_message: str


class BatchCompleted(JobMessage):
    """ECS accepted the callback, or refuses it for good. The job is finished unless somebody requests more."""

    outcome: Literal["completed", "failed"]
    reason: str | None = None
    told: Literal["confirmed", "refused"]
    records_processed: int = Field(ge=0)
    records_failed: int = Field(ge=0)


class CallbackBody(BaseModel):
    """The body of the callback to ECS. Every attempt sends the same bytes, which ``outcome.json`` holds."""

    model_config = ConfigDict(defer_build=True, frozen=True)

    success: bool
    records_processed: int = Field(ge=0)
    records_failed: int = Field(ge=0)
    error_message: str | None = Field(default=None, max_length=1200)


def job_key(integration: str, job_guid: UUID) -> str:
    """Return the partition key of a job, which keeps all its records in order."""
    return f"{integration}/{job_guid}"


def chunk_key(integration: str, job_guid: UUID, number: int) -> str:
    """Return the partition key of a chunk. Chunks spread over the partitions; copies of a chunk stay in order."""
    return f"{job_key(integration, job_guid)}#{number}"


def parse_job_key(key: str) -> tuple[str, UUID] | None:
    """Return the integration and the job in a partition key; None if it is not the key of a job or chunk."""
    match = _JOB_KEY.fullmatch(key)
    return (match["integration"], UUID(match["guid"])) if match else None


def event_id(*facts: str | bytes) -> str:
    """Return the id of an event (``ce_id``). Equal facts give equal ids, also after a restart."""
    return stable_hash(*facts)


def stable_hash(*parts: str | bytes) -> str:
    """Return a hash of the parts (32 hex digits) that is the same in every process and every version.

    The hash covers the length of each part, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()[:32]

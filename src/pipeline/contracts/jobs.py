"""What identifies a job, and what the card-batch topics carry about it."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

_INTEGRATION: Final = r"[a-z0-9][a-z0-9-]{0,62}"

IntegrationName = Annotated[str, Field(pattern=rf"^{_INTEGRATION}$")]
"""Lower case letters, digits and dashes: it is part of URLs, topic keys and store paths."""

_JOB_KEY: Final = re.compile(
    rf"(?P<integration>{_INTEGRATION})/(?P<guid>[0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})(?P<chunk>#[0-9]+)?"
)

_TIMES: Final = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
"""Between them a margin can be taken off, a retry added, and the minute written as a store key of twelve digits."""


class BatchRequested(BaseModel):
    """The announcement of a card batch job, as eCard Systems sends it.

    Unknown fields are kept: the webhook is in beta. The two file URLs are bearer secrets and never leave the job store
    and the topics marked sensitive.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

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
        # pydantic would take a number for a Unix time; ECS sends ISO timestamps, and guessing a unit loses jobs
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
    """What every later card-batch record says about its job. Free of URLs and card data."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    integration: IntegrationName
    job_guid: UUID
    attempt: int = Field(default=1, ge=1, le=1_000_000)
    """1, or more where the integration asks for a new attempt after a failed one was announced again."""
    merchant_guid: UUID
    partner_reference_id: str
    announcement: str
    """Identifier of the announcement that led here (16 hex digits)."""
    at: AwareDatetime


class BatchProcessed(JobMessage):
    """Every card of the job is decided; the result parts are in the job store."""

    generation: str
    parts: int = Field(ge=0)
    records: int = Field(ge=0)
    records_ok: int = Field(ge=0)
    records_failed: int = Field(ge=0)
    result_bytes: int = Field(ge=0)


class BatchChunk(JobMessage):
    """One chunk of a large file is to be processed, by any worker; the job store says where the chunk is."""

    generation: str = Field(pattern=r"^[0-9a-f]{16}$")
    number: int = Field(ge=0, lt=10**8)


class OutcomeMessage(JobMessage):
    """The outcome is decided and the partner is to be notified.

    ``again`` names one more notification of the same outcome, requested by a later announcement or by a command.
    """

    again: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,64}$")


class BatchUploaded(OutcomeMessage):
    """The result lies at ECS and the outcome ``completed`` is decided."""

    records: int = Field(ge=0)
    records_ok: int = Field(ge=0)
    records_failed: int = Field(ge=0)
    result_bytes: int = Field(ge=0)
    result_etag: str


class BatchFailed(OutcomeMessage):
    """The outcome ``failed`` is decided; ``reason`` is the stable error code (docs/reference/errors.md)."""

    reason: str
    error_message: str


class BatchCompleted(JobMessage):
    """ECS answered the callback, or refuses it for good: nothing more happens unless someone asks for it."""

    outcome: Literal["completed", "failed"]
    reason: str | None = None
    told: Literal["confirmed", "refused"]
    records_processed: int = Field(ge=0)
    records_failed: int = Field(ge=0)


class CallbackBody(BaseModel):
    """The body of the callback to ECS. Every attempt sends the same bytes, those in ``outcome.json``."""

    model_config = ConfigDict(frozen=True)

    success: bool
    records_processed: int = Field(ge=0)
    records_failed: int = Field(ge=0)
    error_message: str | None = Field(default=None, max_length=1200)


def job_key(integration: str, job_guid: UUID) -> str:
    """Return the partition key of a job: all its records stay in order."""
    return f"{integration}/{job_guid}"


def chunk_key(integration: str, job_guid: UUID, number: int) -> str:
    """Return the partition key of one chunk of a job: the chunks spread over the partitions, copies stay in order."""
    return f"{job_key(integration, job_guid)}#{number}"


def parse_job_key(key: str) -> tuple[str, UUID] | None:
    """Return the integration and the job that a partition key names, or None if it is the key of no job or chunk."""
    match = _JOB_KEY.fullmatch(key)
    return (match["integration"], UUID(match["guid"])) if match else None


def event_id(*facts: str | bytes) -> str:
    """Return the id of an event (``ce_id``): the same facts give the same id after any restart."""
    return stable_hash(*facts)


def stable_hash(*parts: str | bytes) -> str:
    """Return a hash (32 hex digits) of the parts that is equal in every process and every version.

    It hashes each part with its length, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()[:32]

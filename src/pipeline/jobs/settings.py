"""Limits of a job, and policies for files that differ from their announcement."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.retry import FirstSeconds, MaxSeconds, RetrySettings
from pipeline.secret_files import KeyPath
from pipeline.units import Bytes, Count, Days, Hours, Seconds, Share


class JobLimits(BaseModel):
    """Limits of one job that the stages enforce.

    The limits of a file's bytes and records are in the ``csv`` settings.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    chunks_in_flight: Count = Field(
        default=1,
        ge=1,
        le=64,
        description="Chunks of one job processed at the same time. Raise it for a slow card service; a crash repeats up to this many chunks",
    )
    fanout_bytes: Bytes = Field(
        default=67_108_864,
        ge=0,
        description="One worker splits an uncompressed input file above this size, and all PROCESS workers share its chunks. Raise it if only one worker per job may call your card service; 0 turns sharing off",
    )
    fanout_chunks: Count = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Chunks of one shared file that may be in work at a time, over all workers. Lower it to limit the load that one job puts on the card service; otherwise keep it at several times the number of workers",
    )
    max_job_hours: Hours = Field(
        default=48.0,
        gt=0,
        le=60,
        description="A job fails this long after its announcement was accepted, however late its URLs expire. Keep it below the 72 hours that card-batch.requested keeps a record",
    )
    max_expiry_days: Days = Field(
        default=14.0,
        gt=0,
        le=366,
        description="An announcement whose expires_at is further ahead is refused, because a callback may be due until then. If your partner's URLs live longer, raise it together with retention.receipts_days",
    )
    deadline_margin_seconds: Seconds = Field(
        default=30.0,
        ge=0,
        description="Work on a job ends this long before its URLs expire, so that the callback is in time. Raise it if your callbacks are slow",
    )


class ProcessSettings(BaseModel):
    """How `work process` shares its machine among jobs."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    chunk_slots: Count = Field(
        default=24,
        ge=1,
        le=10_000,
        description="Chunks that the process works on at a time, over all its jobs. A job holds a slot only for one chunk, so a long job lets short ones through. With several integrations, each gets at most two thirds of the slots. Raise it for slow card services; lower it to save memory",
    )


class JobPolicies(BaseModel):
    """Choices that the partner's documents leave open."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    record_count_mismatch: Literal["fail", "warn"] = Field(
        default="fail",
        description="If the file holds more or fewer records than announced: fail the job, or log a warning and continue",
    )
    empty_file: Literal["fail", "complete"] = Field(
        default="fail",
        description="If the file holds no record: fail the job, or upload an empty result (an announced record_count of 0 always completes)",
    )
    max_failed_share: Share = Field(
        default=1.0,
        description="Share of failed cards above which the whole job fails; 0.1 means more than 10 %, 1.0 means never",
    )
    records_processed: Literal["all", "ok"] = Field(
        default="all",
        description="What records_processed in the callback counts: all cards with an outcome, or only those that are ok",
    )
    reannouncement_after_failure: Literal["repeat_outcome", "new_attempt"] = Field(
        default="repeat_outcome",
        description="If a failed job is announced again: repeat its outcome, or start a new attempt",
    )
    callback_retry_seconds: Seconds = Field(
        default=86_400.0,
        ge=0,
        description="How long after expires_at (the expiry of the file URLs) a callback is repeated after 5xx, time-outs, 401, 403, redirects and answers that are not about the job. After that the job is refused. Raise it if ECS may be unavailable for longer",
    )


class WatchSettings(BaseModel):
    """The deadline watch: it runs in `work confirm` and fails jobs whose deadline has passed."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    interval_seconds: Seconds = Field(
        default=5.0,
        gt=0,
        le=60,
        description="Pause between two checks of the open jobs. Keep it below limits.deadline_margin_seconds, so that a failure is reported before the URLs expire. Raise it to spare a slow store, lower it for jobs that last seconds",
    )


class ParkingRetry(RetrySettings):
    """How long a job waits in the job store before its next try."""

    first_seconds: FirstSeconds = 30.0
    max_seconds: MaxSeconds = 900.0


class ParkingSettings(BaseModel):
    """Parking: a job that cannot be done now waits in the job store, where it blocks no other job."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    retry: ParkingRetry = Field(default=ParkingRetry(), description="How long a parked job waits before its next try")


class PartKeySettings(BaseModel):
    """One key that encrypts parts."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    id: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        examples=["2026-01"],
        description="Name of the key. Parts name it, so never use an id again for another key",
    )
    file: KeyPath = Field(
        description="File that holds 32 random bytes in base64, e.g. of `openssl rand -base64 32`. PROCESS and UPLOAD read it at their start"
    )


class PartSettings(BaseModel):
    """Encryption of parts, which hold card numbers (docs/explanation/data-at-rest.md)."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    encryption: Literal["aes-256-gcm", "off"] = Field(
        default="aes-256-gcm",
        description='How new parts are encrypted. "off" stores card numbers in clear: use it only if the store itself is encrypted and that is enough for you',
    )
    keys: tuple[PartKeySettings, ...] = Field(
        default=(),
        max_length=16,
        description="The first key encrypts, all decrypt. To change the key, add the new one at the end, then move it to the front, then remove the old one when no part needs it (docs/how-to/manage-the-key-of-parts.md)",
    )

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        ids = [key.id for key in self.keys]
        if len(set(ids)) < len(ids):
            raise ValueError("keys: two keys have the same id; give each key its own id")
        return self

"""What an integration allows its jobs, and what happens when a file is not as announced."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.units import Count, Hours, Seconds, Share


class JobLimits(BaseModel):
    """Limits of one job that the stages enforce (those of the file's bytes and records are in ``csv`` settings)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunks_in_flight: Count = Field(
        default=1,
        ge=1,
        le=64,
        description="Chunks of one job processed at the same time; after a crash up to this many are processed again",
    )
    waiting_jobs: Count = Field(
        default=1000,
        ge=1,
        description="Jobs of this integration that may wait for a retry at once in one worker; one more ends in a failure callback",
    )
    max_job_hours: Hours = Field(
        default=48.0,
        gt=0,
        le=60,
        description="A job must be done this many hours after its announcement was accepted, however late its URLs expire; less than the 72 hours that card-batch.requested keeps a record",
    )
    deadline_margin_seconds: Seconds = Field(
        default=30.0,
        ge=0,
        description="Work ends this many seconds before the announced expiry, so that the outcome is told in time",
    )


class JobPolicies(BaseModel):
    """What counts as failed where the partner's documents are silent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_count_mismatch: Literal["fail", "warn"] = Field(
        default="fail",
        description="The file holds more or fewer records than announced: fail the job, or go on and log a warning",
    )
    empty_file: Literal["fail", "complete"] = Field(
        default="fail",
        description="The file holds no record: fail the job, or upload an empty result (an announced record_count of 0 always completes)",
    )
    max_failed_share: Share = Field(
        default=1.0,
        description="Share of failed cards above which the job fails: 0.1 means more than 10 %; 1.0 never",
    )
    records_processed: Literal["all", "ok"] = Field(
        default="all",
        description="What records_processed in the callback counts: all cards that were decided, or only those that are ok",
    )
    reannouncement_after_failure: Literal["repeat_outcome", "new_attempt"] = Field(
        default="repeat_outcome",
        description="A failed job is announced anew: tell the same outcome again, or try again from the start",
    )
    callback_retry_seconds: Seconds = Field(
        default=86_400.0,
        ge=0,
        description="How long after expires_at the callback is still tried (the expiry concerns the file URLs)",
    )


class WatchSettings(BaseModel):
    """The deadline watch, which runs inside CONFIRM."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interval_seconds: Seconds = Field(
        default=5.0,
        gt=0,
        le=60,
        description="Seconds between two looks at the open jobs; less than limits.deadline_margin_seconds, so that a failure is told before the expiry",
    )

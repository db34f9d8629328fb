"""Timeouts, minimum rate and tries of file transfers."""

from __future__ import annotations

from aiohttp import ClientTimeout
from pydantic import BaseModel, ConfigDict, Field

from pipeline.retry import FirstSeconds, MaxSeconds, RetrySettings
from pipeline.units import Bytes, BytesPerSecond, Count, Seconds


class TransferRetry(RetrySettings):
    """How often a request is repeated within one download or upload, and how long the pauses are.

    Where the other side asks for a pause above ``max_seconds``, the job is retried later as a whole, so that no slot
    waits for it.
    """

    first_seconds: FirstSeconds = 0.5
    max_seconds: MaxSeconds = 8.0
    max_tries: Count = Field(
        default=4,
        ge=1,
        description="Tries within one download or upload before the job is retried later; good progress resets the count",
    )


class TransferSettings(BaseModel):
    """How patiently files are moved. The job's deadline bounds all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect_timeout_seconds: Seconds = Field(
        default=10.0, gt=0, description="Time for resolving, connecting and TLS, in seconds"
    )
    read_timeout_seconds: Seconds = Field(
        default=30.0, gt=0, description="Longest silence of the other side while it is to send something, in seconds"
    )
    min_bytes_per_second: BytesPerSecond = Field(
        default=1024,
        ge=0,
        description="A connection slower than this over rate_window_seconds is given up and made anew; 0 tolerates any",
    )
    rate_window_seconds: Seconds = Field(
        default=60.0, gt=0, description="Time over which the minimum rate is measured, in seconds"
    )
    retry: TransferRetry = Field(default=TransferRetry(), description="Tries within one download or upload")
    max_not_found_tries: Count = Field(
        default=5, ge=1, description="Tries for an input file that is not there (yet) before the job fails"
    )
    read_ahead_bytes: Bytes = Field(
        default=1_048_576,
        ge=65_536,
        le=67_108_864,
        description="Bytes of a download that are taken from the network before they are asked for",
    )
    idle_close_seconds: Seconds = Field(
        default=15.0,
        gt=0,
        description="A download that nobody took bytes from for so many seconds lets go of its connection and goes on by Range later",
    )
    expect_continue: bool = Field(
        default=True, description="Whether an upload waits for 100 Continue, so that a refusal comes before the body"
    )

    @property
    def connecting_timeout(self) -> ClientTimeout:
        """Timeouts of connecting alone, for who watches the rest himself."""
        connect = self.connect_timeout_seconds
        return ClientTimeout(total=None, connect=connect, sock_connect=connect)

    @property
    def client_timeout(self) -> ClientTimeout:
        """Timeouts of one request. No total: a big file takes what it takes, within its deadline."""
        connect = self.connect_timeout_seconds
        return ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=self.read_timeout_seconds)

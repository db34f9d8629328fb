"""Timeouts, minimum rate and tries of file transfers: settings of operators, and constants."""

from __future__ import annotations

from aiohttp import ClientTimeout
from pydantic import BaseModel, ConfigDict, Field

from pipeline.retry import FirstSeconds, MaxSeconds, RetrySettings
from pipeline.units import Bytes, BytesPerSecond, Count, Seconds


class TransferRetry(RetrySettings):
    """How often a request is repeated within one download or upload, and how long the pauses are.

    If the other side asks for a pause above ``max_seconds``, the whole job is retried later, so that it blocks no slot.
    """

    first_seconds: FirstSeconds = 0.5
    max_seconds: MaxSeconds = 8.0
    max_tries: Count = Field(default=4, ge=1)
    """Tries before the whole job is retried later; good progress resets the count."""


class TransferSettings(BaseModel):
    """Timeouts of downloads and uploads. The deadline of the job bounds all of them."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    read_timeout_seconds: Seconds = Field(
        default=30.0,
        gt=0,
        description="How long to wait for the next bytes of the other side. Raise it for a server that prepares its files slowly",
    )
    min_bytes_per_second: BytesPerSecond = Field(
        default=1024,
        ge=0,
        description="If the average rate over a minute is lower, the connection is closed and the transfer continues on a new one. 0 accepts any rate, for very slow networks",
    )
    max_not_found_tries: Count = Field(
        default=5,
        ge=1,
        description="How often a missing input file is requested before the job fails. Raise it for a partner that announces files before they are readable",
    )
    read_ahead_bytes: Bytes = Field(
        default=1_048_576,
        ge=65_536,
        le=67_108_864,
        description="How much of each download is kept in memory ahead of the processor. Lower it to save memory, raise it for fast, distant servers",
    )
    idle_close_seconds: Seconds = Field(
        default=15.0,
        gt=0,
        description="If the processor reads nothing from a download for this time, the download closes its connection; later it continues with a Range request. Lower it for servers that drop idle connections sooner",
    )
    expect_continue: bool = Field(
        default=True,
        description="Whether an upload waits for 100 Continue, so that a refusal arrives before the body is sent. Set false for servers that do not answer it",
    )

    etag_is_md5: bool = Field(
        default=True,
        description="Whether an ETag of 32 hexadecimal digits must be the MD5 of the uploaded result, if the answer names neither encryption with other keys nor another checksum. Set false for a store whose ETags are something else and that does not answer HEAD with the URL of an upload",
    )

    def parameters(self) -> TransferParameters:
        """Return what a download or upload needs."""
        return TransferParameters(**{name: getattr(self, name) for name in type(self).model_fields})


class TransferParameters(TransferSettings):
    """Parameters of downloads and uploads. :meth:`TransferSettings.parameters` creates them.

    The values that are not settings are the same everywhere, for the reasons given beside them.
    """

    connect_timeout_seconds: Seconds = Field(default=10.0, gt=0)
    """For name lookup, connection and TLS handshake together. A longer attempt rarely succeeds, and is tried again."""
    rate_window_seconds: Seconds = Field(default=60.0, gt=0)
    """Time over which the minimum rate is averaged: long enough for a short stall, short against any deadline."""
    retry: TransferRetry = Field(default=TransferRetry())
    """For short faults only: the retry of the whole job (`consumer.retry`) covers longer ones."""

    @property
    def connecting_timeout(self) -> ClientTimeout:
        """Timeouts of connecting only, for a caller that limits the rest itself."""
        connect = self.connect_timeout_seconds
        return ClientTimeout(total=None, connect=connect, sock_connect=connect)

    @property
    def client_timeout(self) -> ClientTimeout:
        """Timeouts of one request. There is no total: a large file may take until its deadline."""
        connect = self.connect_timeout_seconds
        return ClientTimeout(total=None, connect=connect, sock_connect=connect, sock_read=self.read_timeout_seconds)

"""Which hosts are talked to, by which way, and how patiently."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from aiohttp import ClientTimeout
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from pipeline.transfer.hosts import HostPattern, MalformedUrl, split_url

Purpose = Literal["input", "result", "callback"]
"""What a URL is for; also the name of the list in :class:`HostRules` that its host must stand in."""


class HostRules(BaseModel):
    """Hosts that an integration's URLs may name. An empty list allows none: no address from a message is trusted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: tuple[str, ...] = Field(
        default=(),
        description="Hosts of input_file_url: a name, name:port, *.suffix (any name below it) or an IP address; without a port only the scheme's default one",
    )
    result: tuple[str, ...] = Field(default=(), description="Hosts of result_upload_url, written as for input")
    callback: tuple[str, ...] = Field(default=(), description="Hosts of callback_url, written as for input")
    allow_http: bool = Field(
        default=False, description="Whether URLs may be http:// (cards and tokens then go unencrypted)"
    )
    allow_private: bool = Field(
        default=False,
        description="Whether hosts may be at private or loopback addresses; link-local, multicast and reserved ones are never connected to",
    )

    @field_validator("input", "result", "callback")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                HostPattern.parse(pattern)
            except MalformedUrl as error:
                raise ValueError(
                    f"{pattern!r} {error.rule}; write files.example.com, files.example.com:8443, *.example.com or 192.0.2.7"
                ) from None
        return patterns

    def patterns(self, purpose: Purpose) -> tuple[HostPattern, ...]:
        """Return the hosts allowed for a purpose."""
        texts = {"input": self.input, "result": self.result, "callback": self.callback}[purpose]
        return tuple(HostPattern.parse(text) for text in texts)


class NetworkSettings(BaseModel):
    """The way out of this network, for file transfers, callbacks and the ``http`` processor alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust instead of the system's; a bundle holds several",
    )
    proxy: SecretStr | None = Field(
        default=None,
        description="URL of the egress proxy (http://[user:password@]host:port), for all hosts; the proxy then resolves names, so it must keep private addresses out",
    )

    @field_validator("proxy")
    @classmethod
    def _proxy_url(cls, proxy: SecretStr | None) -> SecretStr | None:
        if proxy is None:
            return None
        scheme, _, rest = proxy.get_secret_value().partition("://")
        try:
            split_url(f"{scheme}://{rest.rpartition('@')[2]}")
        except MalformedUrl as error:
            raise ValueError(f"the proxy {error.rule}; write http://proxy.example.com:3128") from None
        return proxy


class TransferSettings(BaseModel):
    """How patiently files are moved. The job's deadline bounds all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connect_timeout_seconds: float = Field(
        default=10.0, gt=0, description="Time for resolving, connecting and TLS, in seconds"
    )
    read_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Longest silence of the other side while it is to send something, in seconds"
    )
    min_bytes_per_second: int = Field(
        default=1024,
        ge=0,
        description="A connection slower than this over rate_window_seconds is given up and made anew; 0 tolerates any",
    )
    rate_window_seconds: float = Field(
        default=60.0, gt=0, description="Time over which the minimum rate is measured, in seconds"
    )
    max_tries: int = Field(
        default=4,
        ge=1,
        description="Tries within one download or upload before the job is put off; counted anew after good progress",
    )
    max_not_found_tries: int = Field(
        default=5, ge=1, description="Tries for an input file that is not there (yet) before the job fails"
    )
    backoff_seconds: float = Field(
        default=0.5, ge=0, description="Longest pause before the second try, in seconds; doubled for each further one"
    )
    max_backoff_seconds: float = Field(
        default=8.0,
        ge=0,
        description="Longest pause within one download or upload, in seconds; where the other side asks for more, the job is put off",
    )
    read_ahead_bytes: int = Field(
        default=1_048_576,
        ge=65_536,
        le=67_108_864,
        description="Bytes of a download that are taken from the network before they are asked for",
    )
    idle_close_seconds: float = Field(
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

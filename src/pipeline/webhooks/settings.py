"""How the ingress listens, what it reads, how long it waits."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork

from pipeline.units import Bytes, Count, Port, Seconds


class IngressSettings(BaseModel):
    """The public server. Which webhooks it takes stands with the integrations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on; 0.0.0.0 in a container, where a proxy with TLS stands before it",
    )
    port: Port = Field(default=8080, description="Port to listen on; 0 takes a free one")
    max_body_bytes: Bytes = Field(
        default=524_288,
        ge=1024,
        le=16_777_216,
        description="Size of a request's body in bytes, above which it is refused with 413; less than the broker's record limit. Memory is bounded by it times max_in_flight",
    )
    read_timeout_seconds: Seconds = Field(
        default=10.0, gt=0, description="Time in which the whole body must have come, in seconds; else 408"
    )
    idle_timeout_seconds: Seconds = Field(
        default=75.0,
        gt=0,
        description="A connection without a request is closed after this many seconds; longer than the idle timeout of the proxy before it",
    )
    deadline_seconds: Seconds = Field(
        default=8.0,
        gt=0,
        description="Time in which the event must be durable on every in-sync replica, in seconds; else 503",
    )
    max_in_flight: Count = Field(
        default=512, ge=1, description="Requests handled at once; one more is answered 503 at once"
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        description="Networks (CIDR) of the proxies whose X-Forwarded-For is believed; by default no proxy's",
    )
    refusals_interval_seconds: Seconds = Field(
        default=60.0,
        gt=0,
        description="Unauthenticated requests are counted, and told to the audit log once in so many seconds",
    )
    capture_dir: Path | None = Field(
        default=None,
        description="Folder where `pipeline sources capture` and the ingress processes of this machine meet; default: nothing can be captured. What is captured may hold secrets: a folder of the ingress's user alone",
    )
    alarm_interval_seconds: Seconds = Field(
        default=60.0,
        gt=0,
        description="Every alarm is counted, but logged at most once in so many seconds for each source and kind",
    )
    drain_seconds: Seconds = Field(
        default=5.0,
        ge=0,
        description="After SIGTERM the ingress is not ready but goes on serving for so many seconds, until no proxy sends to it any more",
    )
    stop_grace_seconds: Seconds = Field(
        default=15.0,
        ge=0,
        description="Time that requests in work have to finish after that, in seconds; longer than deadline_seconds",
    )

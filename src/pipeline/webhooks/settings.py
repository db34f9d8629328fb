"""Where the ingress listens, how much it reads and how long it waits."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork

from pipeline.units import Bytes, Count, Port, Seconds


class IngressSettings(BaseModel):
    """The public server. The webhooks it accepts are configured per integration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Set 0.0.0.0 in a container, behind a proxy that terminates TLS",
    )
    port: Port = Field(default=8080, description="Port to listen on; 0 takes a free one")
    max_body_bytes: Bytes = Field(
        default=524_288,
        ge=1024,
        le=16_777_216,
        description="A larger request body is refused with 413. Keep it below kafka.max_record_bytes. max_body_bytes times max_in_flight bounds the memory",
    )
    read_timeout_seconds: Seconds = Field(
        default=10.0,
        gt=0,
        description="How long a request may take to send its body, else it is answered 408. Raise it for senders on slow networks",
    )
    idle_timeout_seconds: Seconds = Field(
        default=75.0,
        gt=0,
        description="An idle connection is closed after this time. Make it longer than the idle timeout of the proxy in front, so that the proxy never uses a connection that is being closed",
    )
    deadline_seconds: Seconds = Field(
        default=8.0,
        gt=0,
        description="How long a webhook may wait for every in-sync replica to store it, else it is answered 503. Keep it below the timeout of the sender",
    )
    max_in_flight: Count = Field(
        default=512,
        ge=1,
        description="Requests handled at the same time; further ones are answered 503 at once. Lower it to save memory",
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        description="Networks (CIDR) of the proxies whose X-Forwarded-For is believed; by default none",
    )
    capture_dir: Path | None = Field(
        default=None,
        description="Folder in which `pipeline sources capture` talks to the ingress processes of this machine; default: capturing is off. Captured requests may hold secrets: give the folder to the user of the ingress alone",
    )
    alarm_interval_seconds: Seconds = Field(
        default=60.0,
        gt=0,
        description="An alarm of one source and kind is logged at most once in this time; the metric counts every one. Raise it if each line pages a person",
    )
    drain_seconds: Seconds = Field(
        default=5.0,
        ge=0,
        description="How long the ingress keeps serving after SIGTERM, while it reports not ready. Make it as long as your proxy needs to stop sending requests",
    )

    @property
    def stop_grace_seconds(self) -> float:
        """How long requests may still run after ``drain_seconds``: as long as one takes at most, so that none is cut."""
        return self.read_timeout_seconds + self.deadline_seconds

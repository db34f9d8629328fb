"""Where the ingress listens, how much it reads and how long it waits."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, model_validator

from pipeline.contracts.bodies import LARGEST_BODY
from pipeline.units import Bytes, Count, Port, Seconds


class IngressSettings(BaseModel):
    """The public server. The webhooks it accepts are configured per integration. Limits hold per process."""

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
        le=LARGEST_BODY,
        description="A larger request body is refused with 413. Keep it below kafka.max_record_bytes",
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
    max_connections: Count = Field(
        default=4096,
        ge=16,
        description="Connections open at the same time; for each one more an idle one is closed, and no request in work. The limit of open files (`ulimit -n`) must allow 256 more, else the ingress warns and keeps to fewer",
    )
    max_in_flight: Count = Field(
        default=512,
        ge=1,
        description="Requests handled at the same time; further ones are answered 503 at once. With several sources, one alone gets two thirds of them",
    )
    max_in_flight_bytes: Bytes = Field(
        default=67_108_864,
        ge=1024,
        description="Bytes of bodies held at the same time; a request that finds no room is answered 503. Lower it to save memory, to no less than four times max_body_bytes. With several sources, one alone gets two thirds of them",
    )
    source_requests_per_second: Count = Field(
        default=1000,
        ge=1,
        description="Authentic requests that one source may send per second to one ingress process, on average; it may burst for two seconds, then it is answered 503. A source's own requests_per_second overrides it. With a single source it does not apply: no other needs room",
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

    @model_validator(mode="after")
    def _bodies_fit(self) -> Self:
        least = 4 * self.max_body_bytes
        if self.max_in_flight_bytes < least:
            raise ValueError(
                f"max_in_flight_bytes: {self.max_in_flight_bytes} is less than four times max_body_bytes, so a large "
                f"body might never find room; write at least {least}, or lower max_body_bytes"
            )
        return self

    @property
    def stop_grace_seconds(self) -> float:
        """How long requests may still run after ``drain_seconds``: as long as one takes at most, so that none is cut."""
        return self.read_timeout_seconds + self.deadline_seconds

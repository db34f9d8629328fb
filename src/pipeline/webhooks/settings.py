"""Settings of the ingress: address, sizes, times."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, model_validator

from pipeline.contracts.bodies import LARGEST_BODY
from pipeline.units import Bytes, Count, Port, Seconds


class IngressSettings(BaseModel):
    """The public server. The webhooks it accepts are configured per integration. Limits apply to each process."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Set 0.0.0.0 in a container, behind a proxy that terminates TLS",
    )
    port: Port = Field(default=8080, description="Port to listen on; 0 picks a free port")
    max_body_bytes: Bytes = Field(
        default=524_288,
        ge=1024,
        le=LARGEST_BODY,
        description="Maximum size of a request body; a larger one is refused with 413. Keep it below kafka.max_record_bytes",
    )
    read_timeout_seconds: Seconds = Field(
        default=10.0,
        gt=0,
        description="How long the body of a request may take to arrive; a slower request is answered with 408. Raise it for senders on slow networks",
    )
    idle_timeout_seconds: Seconds = Field(
        default=75.0,
        gt=0,
        description="An idle connection is closed after this time. Make it longer than the idle timeout of the proxy in front, so that the proxy never uses a connection that is being closed",
    )
    deadline_seconds: Seconds = Field(
        default=8.0,
        gt=0,
        description="How long a webhook may wait until every in-sync replica has stored it; after that it is answered with 503. Keep it below the timeout of the sender",
    )
    max_connections: Count = Field(
        default=4096,
        ge=16,
        description="Maximum number of open connections. For each further one the ingress closes an idle connection, never one with a request in work. The limit of open files (`ulimit -n`) must be 256 higher; otherwise the ingress warns and allows fewer connections",
    )
    max_in_flight: Count = Field(
        default=512,
        ge=1,
        description="Maximum number of requests in work; further requests are answered with 503 at once. With several sources, a single one gets at most two thirds",
    )
    max_in_flight_bytes: Bytes = Field(
        default=67_108_864,
        ge=1024,
        description="Maximum number of bytes of bodies in memory; a request without room is answered with 503. Lower it to save memory, but not below four times max_body_bytes. With several sources, a single one gets at most two thirds",
    )
    source_requests_per_second: Count = Field(
        default=1000,
        ge=1,
        description="Authentic requests that one source may send per second to one ingress process, on average. It may send the requests of two seconds at once; further ones are answered with 503. A source's own requests_per_second overrides it. It does not apply if only one source is configured, because there is no other source to protect",
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        description="Networks (CIDR) of the proxies whose X-Forwarded-For the ingress trusts; default: none",
    )
    capture_dir: Path | None = Field(
        default=None,
        description="Folder in which `pipeline sources capture` and the ingress processes of this machine exchange files; default: capturing is off. Captured requests may contain secrets, so only the user of the ingress may have access to the folder",
    )
    alarm_interval_seconds: Seconds = Field(
        default=60.0,
        gt=0,
        description="Minimum time between two log lines for the same kind of alarm of the same source; the metric counts every alarm. Raise it if each line pages a person",
    )
    drain_seconds: Seconds = Field(
        default=5.0,
        ge=0,
        description="How long the ingress continues to serve after SIGTERM, while it reports not ready. Set it to the time that your proxy needs to stop sending requests",
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
        """How long requests may run after ``drain_seconds``: the maximum duration of a request, so that none is cut."""
        return self.read_timeout_seconds + self.deadline_seconds

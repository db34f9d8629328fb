"""Settings of the management server and of log lines."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.units import Port


class ManagementSettings(BaseModel):
    """The server for probes and metrics. It is separate from the public server, so neither can block or expose the other."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Set 0.0.0.0 in a container, where probes come from outside",
    )
    port: Port = Field(
        default=8081,
        description="Port of /healthz/live, /healthz/ready and /metrics; 0 picks a free port",
    )


class LoggingSettings(BaseModel):
    """Log lines. They go to stderr, because stdout is for results."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Lowest level of the pipeline's own lines. Libraries never log below info, since their debug lines hold raw payloads; in the console format they log warnings only, unless this is debug",
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="json: one object per line, for machines; console: aligned text, for people; auto: console on a terminal, json elsewhere",
    )

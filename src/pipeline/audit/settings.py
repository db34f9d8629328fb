"""How the audit log is written."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pipeline.units import Count, Days


class AuditSettings(BaseModel):
    """Segments, their signatures, and how far back a repeated event is recognised."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    signing_key: SecretStr | None = Field(
        default=None,
        description="Ed25519 private key (PEM, PKCS #8) that signs the closing hash of every segment; none: not signed",
    )
    id_window_days: Days = Field(
        default=10.0,
        gt=0,
        le=400,
        description="Days for which event ids are remembered, so that a repeat is appended once: the retention of audit.events plus the longest of the topics whose redelivery repeats audit events (7 + 3)",
    )
    id_window_max: Count = Field(
        default=500_000,
        ge=1,
        description="Most event ids remembered per partition (about 120 bytes each); when it cuts, a log line and a metric say so",
    )

    @property
    def id_window(self) -> timedelta:
        """The window as a span of time."""
        return timedelta(days=self.id_window_days)

"""Settings of the audit log."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pipeline.units import Count, Days


class AuditSettings(BaseModel):
    """Signature of the audit log, and how long repeated events are recognised."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    signing_key: SecretStr | None = Field(
        default=None,
        description="Ed25519 private key (PEM, PKCS #8) that signs every segment; without it, segments are not signed",
    )
    id_window_days: Days = Field(
        default=10.0,
        gt=0,
        le=400,
        description="How long the log remembers event ids, so that it writes a repeated event only once. Set at least the retention of audit.events plus the longest retention of a topic whose redelivery repeats audit events (7 + 3 days), and at least the retention of the topics of audited webhooks",
    )
    id_window_max: Count = Field(
        default=500_000,
        ge=1,
        description="Event ids remembered per partition at most, about 120 bytes each. Raise it if pipeline_audit_window_cuts_total rises",
    )

    @property
    def id_window(self) -> timedelta:
        """The window as a span of time."""
        return timedelta(days=self.id_window_days)

"""How long things are kept, and that no receipt goes before the last record that needs it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from pipeline.audit.settings import AuditSettings
from pipeline.contracts import TOPICS, Topic
from pipeline.units import WholeDays

_DAY_MS = 86_400_000


class RetentionSettings(BaseModel):
    """How long what is kept outside Kafka is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    receipts_days: WholeDays = Field(
        default=30,
        ge=1,
        description="Days that the store keeps the receipts of a job, by a lifecycle rule of your own; must be longer "
        "than every topic that could redeliver the job (config check compares)",
    )
    failed_parts_days: WholeDays = Field(
        default=7,
        ge=1,
        description="Days after which the result parts of failed jobs, and of jobs that ECS refuses to be told about, "
        "are deleted",
    )


def retention_problems(retention: RetentionSettings, audit: AuditSettings) -> Iterator[str]:
    """Yield one line for each memory that is shorter than what may come again."""
    kept = {spec.topic: spec.retention_ms / _DAY_MS for spec in TOPICS if spec.dead_letter is not None}
    for topic, days in kept.items():
        if retention.receipts_days <= days:
            yield (
                f"retention.receipts_days: {retention.receipts_days} days are not longer than the {days:g} days that "
                f"{topic} keeps a record, so a job could be done twice; write e.g. receipts_days = {int(days) + 1}"
            )
    again = kept.pop(Topic.AUDIT_EVENTS) + max(kept.values())
    if audit.id_window_days < again:
        yield (
            f"audit.id_window_days: {audit.id_window_days:g} days are shorter than the {again:g} days in which an "
            f"audit event may come again, so it could stand in the log twice; write e.g. id_window_days = {again:g}"
        )

"""How long things are kept, and that no receipt goes before the last record that needs it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from pipeline.contracts import TOPICS

_DAY_MS = 86_400_000


class RetentionSettings(BaseModel):
    """How long what is kept outside Kafka is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    receipts_days: int = Field(
        default=30,
        ge=1,
        description="Days that the store keeps the receipts of a job, by a lifecycle rule of your own; must be longer "
        "than every topic that could redeliver the job (config check compares)",
    )
    failed_parts_days: int = Field(
        default=7,
        ge=1,
        description="Days after which the result parts of failed jobs, and of jobs that ECS refuses to be told about, "
        "are deleted",
    )

    def problems(self) -> Iterator[str]:
        """Yield one line for each topic that could redeliver a job after its receipts are gone."""
        for spec in TOPICS:
            if spec.dead_letter is not None and spec.retention_ms >= self.receipts_days * _DAY_MS:
                days = spec.retention_ms // _DAY_MS
                yield (
                    f"retention.receipts_days: {self.receipts_days} days are not longer than the {days} days that "
                    f"{spec.topic} keeps a record; a job redelivered in between would be done twice; "
                    f"write e.g. receipts_days = {days + 1}"
                )

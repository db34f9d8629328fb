"""Everything that is configured for one ECS integration: the table ``[ecs.NAME]``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from pipeline.jobs.csv_engine.settings import CsvLimits, CsvSettings
from pipeline.jobs.ecs import CallbackSettings, EcsPartner
from pipeline.jobs.partners import Partner
from pipeline.jobs.processors.settings import ProcessorSettings
from pipeline.jobs.settings import JobLimits, JobPolicies
from pipeline.settings.files import resolved
from pipeline.webhooks.sources.settings import EcsOptions
from pipeline.webhooks.verification import Secret

WEBHOOK_PATH = r"^(/[A-Za-z0-9._~-]+)+$"


def with_default_path(data: Any, root: str, key: str = "webhook_path") -> Any:
    """Return a table with the path that its name makes, where it names none."""
    return {**data, key: f"{root}{data.get('name')}"} if isinstance(data, dict) and key not in data else data


class Limits(CsvLimits, JobLimits):
    """Bounds of a job: of its file, and of the work on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EcsIntegration(EcsOptions):
    """One eCard Systems integration. Its name is the key of its table."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    partner_guid: UUID = Field(
        description="Your partner GUID at ECS: on the sheet of the initial configuration. No announcement carries it, "
        "so nothing is compared with it"
    )
    webhook_path: str = Field(
        default="/webhooks/ecs/NAME",
        pattern=WEBHOOK_PATH,
        description="Path that ECS posts announcements to; NAME is the table's",
    )
    callback: CallbackSettings = Field(description="How ECS is told the outcome")
    csv: CsvSettings = Field(default=CsvSettings(), description="Format of the input and result files")
    limits: Limits = Field(default=Limits(), description="Bounds of a job")
    policies: JobPolicies = Field(default=JobPolicies(), description="What counts where the documents are silent")
    processor: ProcessorSettings = Field(default=ProcessorSettings(), description="What is done with each card")

    @model_validator(mode="before")
    @classmethod
    def _default_path(cls, data: Any) -> Any:
        return with_default_path(data, "/webhooks/ecs/")

    @property
    def partner(self) -> Partner:
        """ECS, as the stages ask it."""
        return EcsPartner(self.callback)

    def webhook_secrets(self) -> tuple[Secret, ...]:
        """Return the webhook secrets as their files hold them now.

        Raises:
            SecretUnreadable: A file went away since the settings were loaded.
        """
        return resolved(self.webhook.secrets)

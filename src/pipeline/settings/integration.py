"""Everything that is configured for one ECS integration: the table ``[ecs.NAME]``."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from pipeline.callback.settings import CallbackSettings
from pipeline.cards.settings import CsvLimits, CsvSettings
from pipeline.processors.settings import ProcessorSettings
from pipeline.settings.files import read_secret
from pipeline.signatures import SchemeSettings, Secret
from pipeline.stages.settings import JobLimits, JobPolicies
from pipeline.transfer import HostRules


def _number_of_text(value: object) -> object:
    # an environment variable is always text, and Literal compares without converting
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Limits(CsvLimits, JobLimits):
    """Bounds of a job: of its file, and of the work on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EcsIntegration(BaseModel):
    """One eCard Systems integration. Its name is the key of its table."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    partner_guid: UUID = Field(
        description="Your partner GUID at ECS: on the sheet of the initial configuration. No announcement carries it, "
        "so nothing is compared with it"
    )
    webhook_path: str = Field(
        default="/webhooks/ecs/NAME",
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        description="Path that ECS posts announcements to; NAME is the table's",
    )
    success_status: Annotated[Literal[200, 202, 204], BeforeValidator(_number_of_text)] = Field(
        default=202, description="HTTP status that tells ECS the announcement is safe"
    )
    webhook: SchemeSettings = Field(description="How announcements are verified")
    callback: CallbackSettings = Field(description="How ECS is told the outcome")
    hosts: HostRules = Field(default=HostRules(), description="Hosts that an announcement's URLs may name")
    csv: CsvSettings = Field(default=CsvSettings(), description="Format of the input and result files")
    limits: Limits = Field(default=Limits(), description="Bounds of a job")
    policies: JobPolicies = Field(default=JobPolicies(), description="What counts where the documents are silent")
    processor: ProcessorSettings = Field(default=ProcessorSettings(), description="What is done with each card")

    @model_validator(mode="before")
    @classmethod
    def _default_path(cls, data: Any) -> Any:
        if isinstance(data, dict) and "webhook_path" not in data:
            return {**data, "webhook_path": f"/webhooks/ecs/{data.get('name')}"}
        return data

    def webhook_secrets(self) -> tuple[Secret, ...]:
        """Return the webhook secrets as their files hold them now.

        Raises:
            SecretUnreadable: A file went away since the settings were loaded.
        """
        return tuple(
            Secret(one.name, read_secret(one.file), one.not_before, one.not_after) for one in self.webhook.secrets
        )

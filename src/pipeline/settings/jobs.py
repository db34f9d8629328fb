"""The settings of the jobs of an integration, for any partner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from pipeline.errors import FatalError, PipelineError
from pipeline.jobs.csv_engine.settings import CsvLimits, CsvSettings
from pipeline.jobs.partner_calls import ContainedPartner
from pipeline.jobs.partners import Partner, PartnerKind, load_partner_kind
from pipeline.jobs.processors.settings import ProcessorSettings
from pipeline.jobs.settings import JobLimits, JobPolicies
from pipeline.outbound import HostRules
from pipeline.plugins import Fault, contained_call
from pipeline.settings.refusals import ConfigError, refusal


class Limits(CsvLimits, JobLimits):
    """Limits of a job: for its file, and for the work on it."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class JobSettings(BaseModel):
    """The rules for the jobs of one integration."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    csv: CsvSettings = Field(default=CsvSettings(), description="Format of the input and result files")
    limits: Limits = Field(default=Limits(), description="Limits of a job")
    policies: JobPolicies = Field(
        default=JobPolicies(), description="Decisions that the partner's documents leave open"
    )
    processor: ProcessorSettings = Field(default=ProcessorSettings(), description="What is done with each card")


class AnnouncedJobs(JobSettings):
    """The jobs that a source's webhooks announce: the table ``[webhooks.NAME.jobs]``."""

    partner: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        examples=["example-bank"],
        description="Installed partner that reads the announcements and sends the callbacks",
    )
    options: dict[str, JsonValue] = Field(
        default={}, description="The partner's own settings; name secrets by the path of their file"
    )
    hosts: HostRules = Field(default=HostRules(), description="Hosts that an announcement's URLs may name")

    def kind_with_options(self, name: str) -> tuple[PartnerKind, BaseModel]:
        """Return the kind of partner, and its validated options.

        Raises:
            ConfigError: There is no such partner, it is broken, or it refuses an option.
        """
        key = f"webhooks.{name}.jobs"
        try:
            kind = load_partner_kind(self.partner)
        except FatalError as error:
            raise ConfigError([f"{key}.partner: {error.message}"]) from error
        try:
            return kind, kind.Options.model_validate(self.options)
        except ValidationError as error:
            raise ConfigError(list(option_refusals(error, kind.Options, f"{key}.options"))) from None

    def opened(self, name: str) -> Partner:
        """Return the partner, made with its validated options; raise as :meth:`kind_with_options`."""
        kind, options = self.kind_with_options(name)

        def failed(fault: Fault) -> ConfigError:
            return ConfigError(
                [f"webhooks.{name}.jobs.partner: {self.partner} cannot be used: its constructor raised {fault}"]
            )

        made = contained_call(lambda: kind.partner(name, options), failed, PipelineError, KeyboardInterrupt)
        return ContainedPartner(made, self.partner)


@dataclass(frozen=True, slots=True)
class JobIntegration:
    """One integration in the form that the stages use.

    Attributes:
        key: Its table in the settings, for messages.
    """

    name: str
    key: str
    partner: Partner
    hosts: HostRules
    csv: CsvSettings
    limits: Limits
    policies: JobPolicies
    processor: ProcessorSettings

    @classmethod
    def of(cls, name: str, key: str, partner: Partner, hosts: HostRules, settings: JobSettings) -> Self:
        """Return the integration of a table."""
        return cls(
            name=name,
            key=key,
            partner=partner,
            hosts=hosts,
            csv=settings.csv,
            limits=settings.limits,
            policies=settings.policies,
            processor=settings.processor,
        )


def option_refusals(error: ValidationError, model: type[BaseModel], key: str) -> Iterator[str]:
    """Yield one line for each validation error, with the key as in the settings file."""
    for one in error.errors(include_url=False):
        line = refusal(one, model)
        yield f"{key}.{line}" if one["loc"] else f"{key}: {line}"

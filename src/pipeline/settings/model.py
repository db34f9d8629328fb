"""All settings: one table per part of the pipeline, one per integration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.audit.settings import AuditSettings
from pipeline.contracts import SOURCE_TOPICS, SPECS, TOPICS, IntegrationName, Topic, TopicName, TopicSpec
from pipeline.jobs.settings import ParkingSettings, PartSettings, ProcessSettings, WatchSettings
from pipeline.jobs.transfer import TransferSettings
from pipeline.kafka.settings import KafkaSettings, WorkerSettings
from pipeline.observability import LoggingSettings, ManagementSettings
from pipeline.outbound import NetworkSettings
from pipeline.secret_files import SecretUnreadable
from pipeline.settings.integrations import EcsIntegration, WeavrIntegration, WebhookIntegration
from pipeline.settings.jobs import JobIntegration
from pipeline.settings.refusals import ConfigError
from pipeline.storage.settings import LocalSettings, StoreSettings
from pipeline.units import WholeDays
from pipeline.webhooks.settings import IngressSettings

ENV_PREFIX = "PIPELINE_"
ENV_DELIMITER = "__"

_SOURCES = ("ecs", "weavr", "webhooks")
"""Tables of sources of webhooks."""
_WEAVR_TOPICS = "card-events."
_TOPIC_PREFIXES = ("card-batch.", _WEAVR_TOPICS, SOURCE_TOPICS)
"""How the topics begin that only the sources of each of these tables need."""


class RetentionSettings(BaseModel):
    """How long data outside Kafka is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    receipts_days: WholeDays = Field(
        default=30,
        ge=1,
        description="How long the store keeps the receipts of a job: as long as your lifecycle rule says. Must be longer than every topic that can redeliver the job (`config check` compares them)",
    )
    failed_parts_days: WholeDays = Field(
        default=7,
        ge=1,
        description="Result parts of failed jobs are deleted after this time, and those of jobs whose callback ECS refuses. Raise it to have more time to look into failures",
    )


class Settings(BaseSettings):
    """What a settings file holds. Built by :func:`pipeline.settings.load_settings`; constructing it reads nothing."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
    )

    kafka: KafkaSettings | None = Field(default=None, description="The cluster; `pipeline dev` brings its own")
    consumer: WorkerSettings = Field(default=WorkerSettings(), description="How the workers read their topics")
    ingress: IngressSettings = Field(default=IngressSettings(), description="The server that receives webhooks")
    network: NetworkSettings = Field(
        default=NetworkSettings(), description="The proxy and the authorities of outgoing requests"
    )
    transfer: TransferSettings = Field(default=TransferSettings(), description="Downloads and uploads")
    store: StoreSettings = Field(default=LocalSettings(), description="The job store and the audit log")
    parts: PartSettings = Field(default=PartSettings(), description="How the job store keeps the results of cards")
    audit: AuditSettings = Field(default=AuditSettings(), description="How the audit log is written")
    management: ManagementSettings = Field(default=ManagementSettings(), description="Probes and metrics")
    logging: LoggingSettings = Field(default=LoggingSettings(), description="Log lines")
    process: ProcessSettings = Field(default=ProcessSettings(), description="How PROCESS shares its machine among jobs")
    watch: WatchSettings = Field(default=WatchSettings(), description="The deadline watch")
    parking: ParkingSettings = Field(default=ParkingSettings(), description="How jobs wait that cannot be done now")
    retention: RetentionSettings = Field(default=RetentionSettings(), description="How long data outside Kafka is kept")
    ecs: dict[IntegrationName, EcsIntegration] = Field(default={}, description="ECS integrations by name")
    weavr: dict[IntegrationName, WeavrIntegration] = Field(default={}, description="Weavr integrations by name")
    webhooks: dict[IntegrationName, WebhookIntegration] = Field(default={}, description="Other sources by name")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the constructor only: the loader merges the sources, to name all problems at once."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="before")
    @classmethod
    def _name_integrations(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {**data, **{key: _named(data[key]) for key in _SOURCES if isinstance(data.get(key), dict)}}

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        paths: dict[str, str] = {}
        for table, name, source in self._sources():
            if source.name != name:
                raise ValueError(f"{table}.name: {source.name!r} is not the key of its table; leave name out")
            other = paths.setdefault(source.webhook_path, table)
            if other != table:
                raise ValueError(
                    f"{table}.webhook_path: {source.webhook_path!r} is also that of {other}; write another"
                )
        for path, table in paths.items():
            for above in _above(path):
                if above in paths and paths[above].startswith("weavr."):
                    raise ValueError(
                        f"{table}.webhook_path: {path!r} lies below that of {paths[above]}, whose events come to paths "
                        "below its own; write another"
                    )
        return self

    @model_validator(mode="after")
    def _distinct_jobs(self) -> Self:
        for name, source in self.webhooks.items():
            if source.jobs is not None and name in self.ecs:
                raise ValueError(
                    f"webhooks.{name}.jobs: ecs.{name} has jobs under the same name, which is part of every job's key; "
                    "rename one"
                )
        return self

    @model_validator(mode="after")
    def _own_topics(self) -> Self:
        topics: dict[str, str] = {}
        for name, source in self.webhooks.items():
            other = topics.setdefault(source.topic, name)
            if other != name:
                raise ValueError(
                    f"webhooks.{name}.topic: {source.topic!r} is also that of webhooks.{other}; write another"
                )
        return self

    @property
    def all_topics(self) -> tuple[TopicSpec, ...]:
        """Every topic of the table, and those of configured sources."""
        return (*TOPICS, *(source.topic_spec() for source in self.webhooks.values() if source.events_topic))

    @property
    def topics(self) -> tuple[TopicSpec, ...]:
        """The topics that the configured sources and the audit log need; all topics if no source is configured."""
        configured = [bool(self.job_names), bool(self.weavr), bool(self.webhooks)]
        if not any(configured):
            return self.all_topics
        unused = tuple(prefix for prefix, is_used in zip(_TOPIC_PREFIXES, configured, strict=True) if not is_used)
        return tuple(spec for spec in self.all_topics if not spec.topic.startswith(unused))

    @property
    def audited_topics(self) -> tuple[TopicName, ...]:
        """The topics from whose records AUDIT builds the audit events of accepted webhooks.

        A topic that keeps a record for a shorter time than announcements is left out: AUDIT could come too late. So is a
        sensitive topic of events, which AUDIT has no right to read. The ingress publishes the audit events of these.
        """
        of_weavr = any(one.audit_accepted for one in self.weavr.values())
        of_sources = {one.topic for one in self.webhooks.values() if one.audit_accepted}
        kept_ms = SPECS[Topic.BATCH_REQUESTED].retention_ms
        return tuple(
            spec.topic
            for spec in self.topics
            if spec.topic == Topic.BATCH_REQUESTED
            or (
                spec.retention_ms >= kept_ms
                and not spec.sensitive
                and (spec.topic in of_sources or (of_weavr and spec.topic.startswith(_WEAVR_TOPICS)))
            )
        )

    def _sources(self) -> Iterator[tuple[str, str, EcsIntegration | WeavrIntegration | WebhookIntegration]]:
        """Yield table, key and table of every source of webhooks."""
        for kind in _SOURCES:
            for name, source in getattr(self, kind).items():
                yield f"{kind}.{name}", name, source

    @property
    def job_names(self) -> tuple[str, ...]:
        """Names of all integrations that have jobs."""
        return (*self.ecs, *(name for name, source in self.webhooks.items() if source.jobs))

    def job_integrations(self) -> dict[str, JobIntegration]:
        """Return all integrations that have jobs, by name.

        Raises:
            ConfigError: A partner is not installed, broken, or refuses an option.
        """
        found = {name: one.jobs() for name, one in self.ecs.items()}
        for name, source in self.webhooks.items():
            if (jobs := source.job_integration()) is not None:
                found[name] = jobs
        return found

    @property
    def cluster(self) -> KafkaSettings:
        """The Kafka cluster.

        Raises:
            ConfigError: None is configured.
        """
        if self.kafka is None:
            raise ConfigError(['kafka: is missing; write [kafka] with e.g. bootstrap_servers = "kafka-0:9092"'])
        return self.kafka

    def secrets(self) -> Iterator[SecretStr]:
        """Yield every secret value held here, for the redaction of logs; of webhooks those whose files are there."""
        yield from _secrets(self)
        for _, _, source in self._sources():
            with contextlib.suppress(SecretUnreadable):
                yield from [secret.value for secret in source.webhook_secrets()]


def _named(tables: dict[str, Any]) -> dict[str, Any]:
    return {name: {"name": name, **table} if isinstance(table, dict) else table for name, table in tables.items()}


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _secrets(value: object) -> Iterator[SecretStr]:
    if isinstance(value, SecretStr):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _secrets(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _secrets(inner)

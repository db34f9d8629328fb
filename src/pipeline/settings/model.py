"""All settings: a table for each part of the pipeline, and one for each integration."""

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
"""The tables that configure sources of webhooks."""
_WEAVR_TOPICS = "card-events."
_TOPIC_PREFIXES = ("card-batch.", _WEAVR_TOPICS, SOURCE_TOPICS)
"""Prefixes of the topics that only the sources of each table need."""


class RetentionSettings(BaseModel):
    """How long the store keeps data."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    receipts_days: WholeDays = Field(
        default=30,
        ge=1,
        description="How long your lifecycle rule keeps the receipts of a job in the store. Must be longer than the retention of every topic that can redeliver the job (`config check` compares them)",
    )
    failed_parts_days: WholeDays = Field(
        default=7,
        ge=1,
        description="Result parts of a failed job, or of a job whose callback ECS refuses, are deleted after this time. Raise it to have more time to look into failures",
    )


class Settings(BaseSettings):
    """All settings of a process. :func:`pipeline.settings.load_settings` makes it; the constructor reads no file."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
    )

    kafka: KafkaSettings | None = Field(default=None, description="The Kafka cluster; `pipeline dev` starts its own")
    consumer: WorkerSettings = Field(default=WorkerSettings(), description="How the workers read their topics")
    ingress: IngressSettings = Field(default=IngressSettings(), description="The server that receives webhooks")
    network: NetworkSettings = Field(
        default=NetworkSettings(), description="The proxy and the certificate authorities for outgoing requests"
    )
    transfer: TransferSettings = Field(default=TransferSettings(), description="Downloads and uploads")
    store: StoreSettings = Field(default=LocalSettings(), description="The job store and the audit log")
    parts: PartSettings = Field(default=PartSettings(), description="How the job store encrypts the results of cards")
    audit: AuditSettings = Field(default=AuditSettings(), description="How the audit log is written")
    management: ManagementSettings = Field(default=ManagementSettings(), description="Probes and metrics")
    logging: LoggingSettings = Field(default=LoggingSettings(), description="Log lines")
    process: ProcessSettings = Field(
        default=ProcessSettings(), description="How `work process` divides its machine among jobs"
    )
    watch: WatchSettings = Field(default=WatchSettings(), description="The deadline watch")
    parking: ParkingSettings = Field(default=ParkingSettings(), description="How a job waits that cannot run now")
    retention: RetentionSettings = Field(default=RetentionSettings(), description="How long the store keeps data")
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
        """Use only the constructor's values: the loader merges all sources first, so that it can report all problems."""
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
                raise ValueError(f"{table}.name: {source.name!r} differs from the key of its table; leave name out")
            other = paths.setdefault(source.webhook_path, table)
            if other != table:
                raise ValueError(
                    f"{table}.webhook_path: {source.webhook_path!r} is also the path of {other}; write another"
                )
        for path, table in paths.items():
            for above in _above(path):
                if above in paths and paths[above].startswith("weavr."):
                    raise ValueError(
                        f"{table}.webhook_path: {path!r} is below the path of {paths[above]}, which receives events on paths "
                        "below it; write another"
                    )
        return self

    @model_validator(mode="after")
    def _distinct_jobs(self) -> Self:
        for name, source in self.webhooks.items():
            if source.jobs is not None and name in self.ecs:
                raise ValueError(
                    f"webhooks.{name}.jobs: ecs.{name} also has jobs under this name, which is part of every job's key; "
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
                    f"webhooks.{name}.topic: {source.topic!r} is also the topic of webhooks.{other}; write another"
                )
        return self

    @property
    def all_topics(self) -> tuple[TopicSpec, ...]:
        """All fixed topics, and the topics of configured sources."""
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
        """The topics from which AUDIT reads accepted webhooks and builds their audit events.

        Two kinds of topic are left out: those that keep a record for a shorter time than announcements, because AUDIT
        could read it too late, and sensitive topics of events, which AUDIT may not read. For these, the ingress
        publishes the audit events.
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
        """Yield, for every source of webhooks, the table's kind, its key and its settings."""
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
            ConfigError: The settings have no cluster.
        """
        if self.kafka is None:
            raise ConfigError(['kafka: is missing; write [kafka] with e.g. bootstrap_servers = "kafka-0:9092"'])
        return self.kafka

    def secrets(self) -> Iterator[SecretStr]:
        """Yield every secret value for the redaction of logs; of webhook secrets, those whose files exist."""
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

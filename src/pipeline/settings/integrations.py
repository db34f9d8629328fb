"""The tables of the sources of webhooks: ``[ecs.NAME]``, ``[weavr.NAME]`` and ``[webhooks.NAME]``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, ValidationError, model_validator

from pipeline.contracts import DEAD_LETTER_ENDING, SOURCE_TOPICS, Topic, TopicSpec
from pipeline.errors import FatalError
from pipeline.jobs.ecs import CallbackSettings, EcsPartner
from pipeline.secret_files import read_secret
from pipeline.settings.jobs import AnnouncedJobs, JobIntegration, JobSettings
from pipeline.settings.refusals import ConfigError, refusal
from pipeline.units import Count, Days
from pipeline.webhooks.sources.loading import load_kind
from pipeline.webhooks.sources.protocols import SourceKind
from pipeline.webhooks.sources.settings import (
    EcsOptions,
    EventAttributes,
    RequestValues,
    RequestValuesOrText,
    Success,
    Unverified,
    WeavrOptions,
)
from pipeline.webhooks.verification import PRESETS, PresetName, Secret, SecretSettings, UrlCheck, check_named_apart

_WEBHOOK_PATH: Final = r"^(/[A-Za-z0-9._~-]+)+$"
_OWN_TABLES: Final = frozenset({"ecs", "weavr"})
_ATTRIBUTES: Final = tuple(EventAttributes.model_fields)
_DAY_MS: Final = 86_400_000

_RequestsPerSecond = Annotated[
    Count | None,
    Field(
        ge=1,
        examples=[200],
        description="Authentic requests that this source may send per second to one ingress process; default: ingress.source_requests_per_second",
    ),
]


def _with_default_path(data: Any, root: str, key: str = "webhook_path") -> Any:
    """Return a table with the default path for its name, unless the table sets a path."""
    return {**data, key: f"{root}{data.get('name')}"} if isinstance(data, dict) and key not in data else data


def _read_now(secrets: Iterable[SecretSettings]) -> tuple[Secret, ...]:
    """Return the secrets that are in the files now.

    Raises:
        SecretUnreadable: A file became unreadable since the settings were loaded.
    """
    return tuple(Secret(one.name, read_secret(one.file), one.not_before, one.not_after) for one in secrets)


class EcsIntegration(EcsOptions, JobSettings):
    """One eCard Systems integration. Its name is the key of its table."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    partner_guid: UUID | None = Field(
        default=None,
        description="Your partner GUID at ECS. `integration new ecs` prints it; announcements do not contain it",
    )
    webhook_path: str = Field(
        default="/webhooks/ecs/NAME",
        pattern=_WEBHOOK_PATH,
        description="Path to which ECS posts announcements; NAME is the name of the table",
    )
    requests_per_second: _RequestsPerSecond = None
    callback: CallbackSettings = Field(description="How ECS is notified of the outcome")

    @model_validator(mode="before")
    @classmethod
    def _default_path(cls, data: Any) -> Any:
        return _with_default_path(data, "/webhooks/ecs/")

    def jobs(self) -> JobIntegration:
        """Return the integration in the form that the stages use."""
        return JobIntegration.of(self.name, f"ecs.{self.name}", EcsPartner(self.callback), self.hosts, self)

    def webhook_secrets(self) -> tuple[Secret, ...]:
        """Return the webhook secrets that are in the files now.

        Raises:
            SecretUnreadable: A file became unreadable since the settings were loaded.
        """
        return _read_now(self.webhook.secrets)


class WeavrIntegration(WeavrOptions):
    """One Weavr integration. Its name is the key of its table."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    webhook_path: str = Field(
        default="/webhooks/weavr/NAME",
        pattern=_WEBHOOK_PATH,
        description="Path to which Weavr's event paths are appended; NAME is the name of the table",
    )
    requests_per_second: _RequestsPerSecond = None
    secrets: tuple[SecretSettings, ...] = Field(
        min_length=1,
        max_length=16,
        description="Your API keys at Weavr; during a change, both with their periods. Weavr signs with the key of your oldest API client",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_path(cls, data: Any) -> Any:
        return _with_default_path(data, "/webhooks/weavr/")

    @model_validator(mode="after")
    def _named_apart(self) -> WeavrIntegration:
        check_named_apart(self.secrets)
        return self

    def webhook_secrets(self) -> tuple[Secret, ...]:
        """Return the API keys that are in the files now.

        Raises:
            SecretUnreadable: A file became unreadable since the settings were loaded.
        """
        return _read_now(self.secrets)


class WebhookIntegration(BaseModel):
    """One source of webhooks, defined by settings alone. Its name is the key of its table."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    preset: PresetName | None = Field(
        default=None, description="A well-known sender with built-in rules; options override single rules"
    )
    source: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        examples=["standard-webhooks"],
        description="Kind of source, if you set no preset: hmac, standard-webhooks, or an installed kind",
    )
    options: dict[str, JsonValue] = Field(
        default={}, description="Options of the source; docs/reference/senders.md lists those of the built-in ones"
    )
    secrets: tuple[SecretSettings, ...] = Field(
        default=(),
        max_length=16,
        description="Secrets of the sender. A request is verified with each secret that is active when it arrives",
    )
    webhook_path: str = Field(
        default="/webhooks/sources/NAME",
        pattern=_WEBHOOK_PATH,
        description="Path to which the sender posts; NAME is the name of the table",
    )
    requests_per_second: _RequestsPerSecond = None
    url_checks: tuple[UrlCheck, ...] | None = Field(
        default=None,
        examples=[["head"]],
        description="How the sender checks the URL before it uses it. The ingress answers such requests and never publishes them. "
        "docs/reference/senders.md says which sender does what. Default: those of the preset, otherwise none",
    )
    url_check_token: SecretStr | None = Field(
        default=None,
        json_schema_extra={"read_by": "ingress"},
        description="Verify token for the URL check hub-challenge; enter the same token at the sender",
    )
    id: RequestValues | None = Field(
        default=None,
        description=str(EventAttributes.model_fields["id"].description),
        examples=["header:X-Event-Id"],
    )
    type: RequestValuesOrText | None = Field(
        default=None,
        description=str(EventAttributes.model_fields["type"].description),
        examples=["header:X-Event-Type"],
    )
    key: RequestValues | None = Field(
        default=None,
        description=str(EventAttributes.model_fields["key"].description),
        examples=["json:/account/id"],
    )
    topic: str = Field(
        default="webhook-events.NAME",
        pattern=r"^webhook-events\.[A-Za-z0-9._-]{1,200}$",
        description="Logical name of the topic; NAME is the name of the table",
    )
    partitions: Count = Field(
        default=3, ge=1, le=1000, description="Partitions of the topic, for `topics create`. Raise it for a busy sender"
    )
    retention_days: Days = Field(
        default=7.0, gt=0, description="How long the topic keeps an event, for `topics create`"
    )
    success_status: Success = Field(default=200, description="HTTP status of the answer when the event is stored")
    unverified_status: Unverified = Field(
        default=401,
        description="HTTP status of the answer to a well-formed, fresh request that no secret verifies; such a request raises an alarm. Set 503 for a sender that repeats after 503 but not after 401",
    )
    jobs: AnnouncedJobs | None = Field(
        default=None,
        description="The partner and the rules of its jobs, if the webhooks announce card batch jobs. Such webhooks go to the "
        "topics of jobs instead of a topic of their own",
    )
    audit_accepted: bool = Field(
        default=False,
        description="Whether the audit log has an entry for each accepted event. Without it, you can still verify the record of the event at any time",
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        data = _with_default_path(data, "/webhooks/sources/")
        return _with_default_path(data, SOURCE_TOPICS, "topic")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.preset is None) == (self.source is None):
            raise ValueError(
                'write either preset = "github" or another of docs/reference/senders.md, or source = "hmac" or another'
            )
        if self.source in _OWN_TABLES:
            raise ValueError(f"source = {self.source!r} has its own kind of table: write [{self.source}.{self.name}]")
        check_named_apart(self.secrets)
        if not self.secrets and not self.options.get("public_keys"):
            raise ValueError('secrets is missing; write e.g. secrets = [{ file = "secrets/NAME" }]')
        self._check_url_checks()
        if self.topic == Topic.WEBHOOK_QUARANTINE or self.topic.endswith(DEAD_LETTER_ENDING):
            raise ValueError(f"topic = {self.topic!r} is taken; write another, such as {SOURCE_TOPICS}{self.name}")
        return self

    def _check_url_checks(self) -> None:
        answered = self.url_checks_answered
        if "hub-challenge" in answered and self.url_check_token is None:
            raise ValueError("url_checks contains hub-challenge, which needs a verify token: set url_check_token_file")
        if self.url_check_token is not None and "hub-challenge" not in answered:
            raise ValueError(
                "only the URL check hub-challenge uses url_check_token_file: add hub-challenge to url_checks, or remove the token"
            )
        signing = {"endpoint-validation", "crc-token"}.intersection(answered)
        if signing and not self.secrets:
            raise ValueError(f"the answer to {min(signing)} is signed with a secret: write secrets")
        if "crc-token" in answered and self.options.get("body_unsigned"):
            raise ValueError(
                "crc-token signs any text that a request contains, so it needs a signed body: remove it from url_checks, or remove "
                "body_unsigned"
            )

    @property
    def url_checks_answered(self) -> tuple[UrlCheck, ...]:
        """The URL checks to answer: those of the settings, otherwise those of the preset whose needs the settings meet."""
        if self.url_checks is not None:
            return self.url_checks
        checks = PRESETS[self.preset].url_checks if self.preset else ()
        return checks if self.url_check_token is not None else tuple(one for one in checks if one != "hub-challenge")

    @property
    def kind_name(self) -> str:
        """Name of the kind of source."""
        return self.source or (PRESETS[self.preset].scheme.scheme if self.preset else "hmac")

    def webhook_secrets(self) -> tuple[Secret, ...]:
        """Return the secrets that are in the files now.

        Raises:
            SecretUnreadable: A file became unreadable since the settings were loaded.
        """
        return _read_now(self.secrets)

    def job_integration(self) -> JobIntegration | None:
        """Return the integration in the form that the stages use; None if its webhooks announce no jobs.

        Raises:
            ConfigError: Its partner is not installed, broken, or refuses an option.
        """
        if self.jobs is None:
            return None
        partner = self.jobs.opened(self.name)
        return JobIntegration.of(self.name, f"webhooks.{self.name}.jobs", partner, self.jobs.hosts, self.jobs)

    @property
    def events_topic(self) -> str | None:
        """Its own topic; None if its webhooks announce jobs."""
        return self.topic if self.jobs is None else None

    def topic_spec(self) -> TopicSpec:
        """Return the definition of its topic."""
        return TopicSpec(
            self.topic,
            self.partitions,
            round(self.retention_days * _DAY_MS),
            sensitive=False,
            dead_letter=None,
            about=f"Webhooks of {self.name}, body as received",
            key="as configured",
        )

    def kind_with_options(self) -> tuple[SourceKind, BaseModel]:
        """Return the kind of source, and its validated options.

        Raises:
            ConfigError: The kind is not installed, is broken, or refuses an option.
        """
        table = f"webhooks.{self.name}"
        try:
            kind = load_kind(self.kind_name)
        except FatalError as error:
            raise ConfigError([f"{table}.source: {error.message}"]) from error
        if "event" not in kind.Options.model_fields and (names := self._attributes()):
            raise ConfigError([f"{table}.{name}: is not a setting of source {self.kind_name}" for name in names])
        try:
            return kind, kind.Options.model_validate(self._options())
        except ValidationError as error:
            raise ConfigError(list(_refused(error, kind.Options, table))) from None

    def _attributes(self) -> dict[str, tuple[str, ...]]:
        return {name: value for name in _ATTRIBUTES if (value := getattr(self, name)) is not None}

    def _options(self) -> dict[str, Any]:
        preset = PRESETS[self.preset] if self.preset else None
        given = self._attributes()
        built_in = {name: getattr(preset, name) for name in _ATTRIBUTES if getattr(preset, name)} if preset else {}
        event = {"event": {**built_in, **given}} if given or built_in else {}
        scheme = preset.scheme.model_dump(exclude_unset=True) if preset else {}
        return {**scheme, **self.options, **event}


def _refused(error: ValidationError, model: type[BaseModel], table: str) -> Iterator[str]:
    """Yield one line for each validation error, with the key as in the settings file."""
    for one in error.errors(include_url=False):
        line = refusal(one, model)
        if one["loc"][:1] == ("event",):
            yield f"{table}.{line.removeprefix('event.')}"
        elif one["loc"]:
            yield f"{table}.options.{line}"
        else:
            yield f"{table}.options: {line}"

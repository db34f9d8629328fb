"""Settings of a source in its table, apart from its name, its path and its secrets."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

from pipeline.outbound import HostRules
from pipeline.units import Seconds
from pipeline.webhooks.sources.protocols import SignedBody, SuccessStatus, UnverifiedStatus
from pipeline.webhooks.verification import HmacSpec, RequestValue, SchemeSettings, StandardWebhooksSpec

WEAVR_RETRIES_SECONDS: Final = 10 + 60 + 360 + 2160 + 12_960
"""How long Weavr goes on repeating a request, maybe under its first timestamp: 4 h 19 min."""

_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~-]{16,128}")


def number_of_text(value: object) -> object:
    """Return a number for a text of digits: an environment variable is always text, and Literal does not convert it."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Success = Annotated[SuccessStatus, BeforeValidator(number_of_text)]
Unverified = Annotated[UnverifiedStatus, BeforeValidator(number_of_text)]


def _names_value(text: str) -> str:
    if RequestValue.parse(text).kind == "field":
        raise ValueError("'field' names no value of an event: write 'header:NAME' or 'json:/pointer'")
    return text


def _names_value_or_text(text: str) -> str:
    return text if re.fullmatch(r"text:[A-Za-z0-9._:/-]{1,128}", text) else _names_value(text)


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_ONE_OR_LIST: Final = WithJsonSchema({"type": ["string", "array"], "items": {"type": "string"}})

RequestValues = Annotated[
    tuple[Annotated[str, AfterValidator(_names_value)], ...], BeforeValidator(_listed), _ONE_OR_LIST
]
"""Names of values, of which the first that a request has is used; one alone may be written without brackets."""

RequestValuesOrText = Annotated[
    tuple[Annotated[str, AfterValidator(_names_value_or_text)], ...], BeforeValidator(_listed), _ONE_OR_LIST
]
"""The same, or ``text:LITERAL``, which every request has."""


class EcsOptions(BaseModel):
    """What ECS's source needs to know of an integration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    webhook: SchemeSettings = Field(description="How announcements are verified")
    hosts: HostRules = Field(default=HostRules(), description="Hosts that an announcement's URLs may name")
    success_status: Success = Field(
        default=202, description="HTTP status that tells ECS that the announcement is stored"
    )


class EventAttributes(BaseModel):
    """Which values of a request are the event's id, type and key."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: RequestValues = Field(
        default=(),
        examples=["header:X-Event-Id"],
        description="Which value is the sender's id of the event or delivery, equal in its repeats: 'header:NAME' or 'json:/pointer', or several, of which the first that a request has is used; default: the body and its timestamp are the identity",
    )
    type: RequestValuesOrText = Field(
        default=("text:event",),
        examples=["header:X-Event-Type"],
        description="Which value is the type of event, as for id; 'text:LITERAL' for one that is always the same. An event without type goes to quarantine",
    )
    key: RequestValues = Field(
        default=(),
        examples=["json:/account/id"],
        description="Which value is the id of what the event is about, as for id: events of one key stay in order; default: all events of the source do",
    )


_SIGNED_BODY: Final = "Which bytes of a compressed body are signed: 'as-sent', or 'plain' for those before compression"
_EVENT: Final = "Which values are the event's id, type and key; written beside the options, as keys of the table itself"


class HmacOptions(HmacSpec):
    """Options of ``source = "hmac"``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    scheme: Literal["hmac"] = Field(default="hmac", description="Always hmac")
    signed_body: SignedBody = Field(default="as-sent", description=_SIGNED_BODY)
    event: EventAttributes = Field(default=EventAttributes(), description=_EVENT)


class StandardWebhooksOptions(StandardWebhooksSpec):
    """Options of ``source = "standard-webhooks"``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    scheme: Literal["standard-webhooks"] = Field(default="standard-webhooks", description="Always standard-webhooks")
    signed_body: SignedBody = Field(default="as-sent", description=_SIGNED_BODY)
    event: EventAttributes = Field(
        default=EventAttributes(id=("header:webhook-id",), type=("json:/type", "text:event")), description=_EVENT
    )

    @model_validator(mode="after")
    def _with_id(self) -> Self:
        """Take id and type from where Standard Webhooks puts them, unless the table names other values."""
        usual = {"id": (f"header:{self.header_names[0]}",), "type": ("json:/type", "text:event")}
        given = {
            name: getattr(self.event, name) for name in self.event.model_fields_set if "event" in self.model_fields_set
        }
        object.__setattr__(self, "event", EventAttributes.model_validate({**usual, **given}))
        return self


class UnsignedPath(BaseModel):
    """A path whose events Weavr does not sign, and what protects it instead. Every protection named here must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        examples=["/bulk_process_end/watch"],
        description="The path, such as /bulk_process_end/watch",
    )
    source_addresses: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        examples=[["192.0.2.0/24"]],
        description="Networks (CIDR) that these events may come from; behind a proxy set ingress.trusted_proxies too",
    )
    require_path_secret: bool = Field(
        default=False, description="Whether the request's path must hold the secret of path_secret_file"
    )

    @model_validator(mode="after")
    def _protected(self) -> Self:
        from pipeline.contracts.weavr import BY_PATH  # noqa: PLC0415 - the models of all events, which workers lack

        kind = BY_PATH.get(self.path)
        if kind is not None and kind.signed:
            raise ValueError(f"{self.path} is signed by Weavr and needs no other protection; leave this table out")
        if not self.source_addresses and not self.require_path_secret:
            raise ValueError(
                f"nothing protects {self.path}: name source_addresses, or set require_path_secret = true, or both"
            )
        return self


class WeavrOptions(BaseModel):
    """How Weavr's webhooks are verified and answered."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tolerance_seconds: Seconds = Field(
        default=18_000.0,
        gt=0,
        description="How far published-timestamp may lie in the past or future. Keep it longer than Weavr's retries (4 h 19 min), which may repeat the first timestamp",
    )
    missing_call_ref: Literal["empty", "refuse"] = Field(
        default="empty",
        description="A request without call-ref is verified with an empty one, or refused with 401, which loses the event",
    )
    legacy_signature: bool = Field(
        default=False,
        description="Whether the deprecated header signature is accepted if signature-v2 is missing. It covers the timestamp only and proves nothing about the body",
    )
    unverified_status: Unverified = Field(
        default=503,
        description="Answer to a well-formed, fresh request that no key verifies: after 503 Weavr repeats it for 4 h, and an alarm is raised; after 401 the event is lost",
    )
    audit_accepted: bool = Field(
        default=False,
        description="Whether the audit log names each accepted event. Its record alone can be verified again at any time",
    )
    path_secret: SecretStr | None = Field(
        default=None,
        json_schema_extra={"read_by": "ingress"},
        description="Secret part of the path, between webhook_path and Weavr's event path: 16 to 128 letters, digits and ._~-",
    )
    unsigned_paths: tuple[UnsignedPath, ...] = Field(
        default=(),
        description="Paths that Weavr does not sign, with their protection; any other unsigned path is answered 503",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        secret = self.path_secret
        if secret is not None and not _SEGMENT.fullmatch(secret.get_secret_value()):
            raise ValueError("path_secret must be 16 to 128 letters, digits and ._~-: it is a part of a URL")
        if secret is None and any(one.require_path_secret for one in self.unsigned_paths):
            raise ValueError("unsigned_paths requires a path secret: name it by path_secret_file")
        paths = [one.path for one in self.unsigned_paths]
        if len(set(paths)) < len(paths):
            raise ValueError("unsigned_paths names a path twice")
        return self

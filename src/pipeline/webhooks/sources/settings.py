"""Settings of a source, except name, path and secrets."""

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
"""How long Weavr repeats a request, possibly with its first timestamp: 4 h 19 min."""

_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~-]{16,128}")


def number_of_text(value: object) -> object:
    """Convert a text of digits to a number, since environment variables are text and Literal does not convert them."""
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
"""Names of values. The first value that a request has is used. A single name may be written without brackets."""

RequestValuesOrText = Annotated[
    tuple[Annotated[str, AfterValidator(_names_value_or_text)], ...], BeforeValidator(_listed), _ONE_OR_LIST
]
"""The same, or ``text:LITERAL``, which is present in every request."""


class EcsOptions(BaseModel):
    """Options of ECS's source."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    webhook: SchemeSettings = Field(description="How announcements are verified")
    hosts: HostRules = Field(default=HostRules(), description="Allowed hosts of the URLs in an announcement")
    success_status: Success = Field(
        default=202, description="HTTP status of the answer when the announcement is stored"
    )


class EventAttributes(BaseModel):
    """The values of a request that are the event's id, type and key."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    id: RequestValues = Field(
        default=(),
        examples=["header:X-Event-Id"],
        description="The sender's id of the event or request, equal in its repeats: 'header:NAME' or 'json:/pointer'. Of a list, the first value that a request has is used. Default: the body and its timestamp identify the event",
    )
    type: RequestValuesOrText = Field(
        default=("text:event",),
        examples=["header:X-Event-Type"],
        description="The type of event, written as for id, or 'text:LITERAL' for a constant type. An event without a type goes to quarantine",
    )
    key: RequestValues = Field(
        default=(),
        examples=["json:/account/id"],
        description="The id of the event's subject, written as for id: events with the same key stay in order. Default: all events of the source stay in order",
    )


_SIGNED_BODY: Final = (
    "The bytes of a compressed body that the sender signs: 'as-sent', or 'plain' for those before compression"
)
_EVENT: Final = "Which values are the event's id, type and key; written beside the options, as keys of the table itself"


class HmacOptions(HmacSpec):
    """Options of ``source = "hmac"``."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    scheme: Literal["hmac"] = Field(default="hmac", description="Always hmac")
    signed_body: SignedBody = Field(default="as-sent", description=_SIGNED_BODY)
    event: EventAttributes = Field(default=EventAttributes(), description=_EVENT)


class StandardWebhooksOptions(StandardWebhooksSpec):
    """Options of ``source = "standard-webhooks"``."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

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
    """A path that Weavr does not sign, and its protection instead. If you set both kinds of protection, both must hold."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    path: str = Field(
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        examples=["/bulk_process_end/watch"],
        description="The path, such as /bulk_process_end/watch",
    )
    source_addresses: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        examples=[["192.0.2.0/24"]],
        description="Networks (CIDR) from which these events are accepted; behind a proxy, set ingress.trusted_proxies too",
    )
    require_path_secret: bool = Field(
        default=False, description="Whether the request's path must contain the secret of path_secret_file"
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
    """The rules for verifying and answering Weavr's webhooks."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    tolerance_seconds: Seconds = Field(
        default=18_000.0,
        gt=0,
        description="Maximum difference between published-timestamp and the current time. Keep it longer than Weavr's retries (4 h 19 min), which may repeat the first timestamp",
    )
    missing_call_ref: Literal["empty", "refuse"] = Field(
        default="empty",
        description="What to do with a request without call-ref: verify it with an empty one, or refuse it with 401, which loses the event",
    )
    legacy_signature: bool = Field(
        default=False,
        description="Whether to accept the deprecated header signature if signature-v2 is missing. It covers only the timestamp, not the body",
    )
    unverified_status: Unverified = Field(
        default=503,
        description="HTTP status of the answer to a well-formed, fresh request that no key verifies. With 503, Weavr repeats it for 4 h and the ingress raises an alarm; with 401, the event is lost",
    )
    audit_accepted: bool = Field(
        default=False,
        description="Whether the audit log has an entry for each accepted event. Without it, you can still verify the record of the event at any time",
    )
    path_secret: SecretStr | None = Field(
        default=None,
        json_schema_extra={"read_by": "ingress"},
        description="Secret part of the path, between webhook_path and Weavr's event path: 16 to 128 letters, digits and ._~-",
    )
    unsigned_paths: tuple[UnsignedPath, ...] = Field(
        default=(),
        description="Paths that Weavr does not sign, with their protection. Requests to any other unsigned path are answered with 503",
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

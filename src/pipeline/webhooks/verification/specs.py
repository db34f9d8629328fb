"""Specifications of verification schemes: the signed parts, their headers, the encoding. They have no secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from pipeline.contracts.json_pointer import POINTER
from pipeline.units import Seconds
from pipeline.webhooks.verification.keys import public_key_of

HEADER_NAME: Final = r"^[A-Za-z0-9!#$%&'*+.^`|~-]{1,128}$"

HeaderName = Annotated[str, Field(pattern=HEADER_NAME)]
"""An HTTP header name (RFC 9110 token) without underscores, because many proxies silently drop such headers."""

_NAME: Final = re.compile(HEADER_NAME)
_POINTER: Final = re.compile(POINTER)
_RESERVED: Final = frozenset({"content-type", "content-length", "content-encoding", "host", "traceparent"})
"""Headers that cannot hold a signature. The signature is stored in a record header of the same name, and in a record
these names mean something else."""


@dataclass(frozen=True, slots=True)
class RequestValue:
    """Names one value of a request: ``header:NAME``, ``json:/pointer`` (RFC 6901, in the body) or ``field``.

    Attributes:
        kind: Which of the three forms it has; ``field`` is a named field of the signature's header.
        name: Name of the header, or the pointer; empty for ``field``.
    """

    kind: Literal["header", "json", "field"]
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> RequestValue:
        """Return the value that a setting names.

        Raises:
            ValueError: The text has none of the three forms.
        """
        kind, colon, name = text.partition(":")
        if text == "field":
            return cls("field")
        if kind == "header" and _NAME.fullmatch(name):
            return cls("header", name)
        if kind == "json" and colon and _POINTER.fullmatch(name):
            return cls("json", name)
        raise ValueError(f"{text!r} names no value of a request: write 'header:NAME' or 'json:/pointer'")


@dataclass(frozen=True, slots=True)
class SignedPart:
    """One part of the signed message.

    Attributes:
        kind: The raw body, the timestamp's text, a header's value, or a constant text.
        value: Name of the header, or the text.
        needed: Whether a request without this header is refused. If it is not, the sender signs a missing header as
            empty.
    """

    kind: Literal["body", "timestamp", "header", "text"]
    value: str = ""
    needed: bool = True

    @classmethod
    def parse(cls, text: str) -> SignedPart:
        """Return the part that a setting names.

        Raises:
            ValueError: The text has none of the known forms.
        """
        kind, _, value = text.partition(":")
        if text == "body":
            return cls("body")
        if text == "timestamp":
            return cls("timestamp")
        if kind in {"header", "header?"} and _NAME.fullmatch(value):
            return cls("header", value, needed=kind == "header")
        if kind == "text" and value:
            return cls("text", value)
        raise ValueError(
            f"{text!r} names nothing that can be signed: write 'body', 'timestamp', 'header:NAME', "
            "'header?:NAME' (missing is signed as empty) or 'text:LITERAL'"
        )


def _names_value(text: str) -> str:
    RequestValue.parse(text)
    return text


def _names_part(text: str) -> str:
    SignedPart.parse(text)
    return text


NotBefore = Annotated[
    AwareDatetime | None,
    Field(description="When it becomes active (ISO 8601 with a zone); default: it always was"),
]
NotAfter = Annotated[
    AwareDatetime | None,
    Field(description="When it stops being active (ISO 8601 with a zone); default: never"),
]


def check_period(not_before: datetime | None, not_after: datetime | None) -> None:
    """Raise ValueError unless the period begins before it ends."""
    if not_before and not_after and not_before >= not_after:
        raise ValueError("not_before must be earlier than not_after")


class PublicKeySettings(BaseModel):
    """One public key of the sender. To rotate it, list the old and the new one, with periods that overlap."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Name of the key in logs")
    value: str = Field(description="The key as the sender shows it: 'whpk_' and base64 of 32 bytes")
    not_before: NotBefore = None
    not_after: NotAfter = None

    @property
    def name(self) -> str:
        """The configured id."""
        return self.id

    @model_validator(mode="after")
    def _valid(self) -> Self:
        check_period(self.not_before, self.not_after)
        public_key_of(self.value)
        return self


class SharedSecretSpec(BaseModel):
    """The sender puts the secret itself into a header. Simple, but proves nothing about the body: use https only."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    scheme: Literal["shared-secret"] = Field(description="The sender puts the secret itself into a header")
    header: HeaderName = Field(default="X-Webhook-Secret", description="Name of the header")
    prefix: str = Field(
        default="", max_length=64, description="Text before the secret, such as 'Bearer ' with its space"
    )


FieldName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
"""Name of one field of a header."""


class FieldSettings(BaseModel):
    """The signature's header is a list of named fields, as in `t=1769121839, v1=74f1d275`."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    signature: FieldName | tuple[FieldName, ...] = Field(
        description="Name of the field that holds a signature, or a list of names, such as ['v1', 'v2']; if the header "
        "has several signatures, one match is enough",
    )
    timestamp: FieldName | None = Field(
        default=None,
        description="Name of the field that holds the time of signing; for timestamp = 'field'",
    )
    separator: Literal[",", ";"] = Field(
        default=",", description="Character between two fields; blanks around it are ignored"
    )

    @property
    def signature_names(self) -> tuple[str, ...]:
        """The names of the fields that hold a signature."""
        return (self.signature,) if isinstance(self.signature, str) else self.signature


class HmacSpec(BaseModel):
    """The sender joins parts of the request, with nothing between them, and signs the result with the secret as key."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    scheme: Literal["hmac"] = Field(description="A header holds an HMAC")
    header: HeaderName = Field(default="X-Webhook-Signature", description="Name of the header that holds the signature")
    prefix: str = Field(default="", max_length=64, description="Text before the signature, such as 'sha256='")
    fields: FieldSettings | None = Field(
        default=None, description="For a header that is a list of named fields; default: the header is the signature"
    )
    hash: Literal["sha256", "sha512", "sha1"] = Field(default="sha256", description="Hash function of the HMAC")
    encoding: Literal["hex", "base64"] = Field(
        default="hex", description="How the signature is written; hex in either case, base64 with its padding"
    )
    key: Literal["text", "hex", "base64"] = Field(
        default="text",
        description="How the key is written in the secret: as text (its UTF-8 bytes are the key), in hex or in base64",
    )
    signed: tuple[Annotated[str, AfterValidator(_names_part)], ...] = Field(
        default=("body",),
        min_length=1,
        max_length=16,
        description="What is signed, in this order: 'body' (the raw bytes), 'timestamp' (its text as received), "
        "'header:NAME', 'header?:NAME' (missing is signed as empty), 'text:LITERAL', such as 'text:.' for a full stop",
    )
    body_unsigned: bool = Field(
        default=False,
        description="Allows a signature that leaves out the body: it then proves nothing about the body",
    )
    timestamp: Annotated[str, AfterValidator(_names_value)] | None = Field(
        default=None,
        description="Which value is the time of signing: 'header:NAME', 'field' (of the signature's header) or "
        "'json:/pointer' (in the body). It must be signed. Default: requests of any age are accepted",
    )
    timestamp_unit: Literal["s", "ms", "iso8601"] = Field(
        default="s",
        description="What the timestamp is: seconds (s) or milliseconds (ms) since 1970, or ISO 8601 with a zone",
    )
    tolerance_seconds: Seconds = Field(
        default=300.0,
        gt=0,
        description="How far the timestamp may lie in the past or future; for a sender whose retries keep "
        "their timestamp, longer than it goes on retrying",
    )

    @property
    def parts(self) -> tuple[SignedPart, ...]:
        """What is signed, in order."""
        return tuple(map(SignedPart.parse, self.signed))

    @property
    def time_of_signing(self) -> RequestValue | None:
        """Which value of the request is the timestamp."""
        return None if self.timestamp is None else RequestValue.parse(self.timestamp)

    @model_validator(mode="after")
    def _body_is_signed(self) -> Self:
        if ("body" in self.signed) == self.body_unsigned:
            raise ValueError(
                "leave body_unsigned out: the body is signed"
                if self.body_unsigned
                else "signed must name 'body'; if the sender really leaves it out, set body_unsigned = true: "
                "the signature then proves nothing about the body"
            )
        return self

    @model_validator(mode="after")
    def _time_is_signed(self) -> Self:
        time = self.time_of_signing
        inside = time is not None and time.kind == "json"
        if time is None and "timestamp" in self.signed:
            raise ValueError("signed names 'timestamp': say which value it is, e.g. timestamp = 'header:X-Timestamp'")
        if time is not None and ("timestamp" in self.signed) == inside:
            raise ValueError(
                "a timestamp inside the body is signed with it: take 'timestamp' out of signed"
                if inside
                else "signed must name 'timestamp': an unsigned timestamp proves nothing"
            )
        if inside and self.body_unsigned:
            raise ValueError("a timestamp inside an unsigned body proves nothing")
        return self

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        named = self.fields is not None and self.fields.timestamp is not None
        if named != (self.timestamp == "field"):
            raise ValueError("timestamp = 'field' and fields.timestamp belong together: set both or neither")
        if self.fields is not None and self.fields.timestamp in self.fields.signature_names:
            raise ValueError("fields.signature and fields.timestamp must differ")
        return self

    @model_validator(mode="after")
    def _headers_differ(self) -> Self:
        names = list(self.header_names())
        if len(set(names)) < len(names):
            raise ValueError("header, timestamp and the headers in signed must differ: each is read once")
        if reserved := sorted(_RESERVED.intersection(names)):
            raise ValueError(f"{reserved[0]} cannot hold a signature or what is signed with it: name another header")
        return self

    def header_names(self) -> Iterator[str]:
        """Yield the lower-case name of every header that verification reads."""
        yield self.header.lower()
        time = self.time_of_signing
        if time is not None and time.kind == "header":
            yield time.name.lower()
        for part in self.parts:
            if part.kind == "header":
                yield part.value.lower()


class StandardWebhooksSpec(BaseModel):
    """The sender follows Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, all signed."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    scheme: Literal["standard-webhooks"] = Field(description="Signatures v1 (HMAC) and v1a (ed25519)")
    header_prefix: str = Field(
        default="webhook",
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        examples=["svix"],
        description="What the names of the three headers begin with, before '-id', '-timestamp' and '-signature'",
    )
    public_keys: tuple[PublicKeySettings, ...] = Field(
        default=(), max_length=16, description="Public keys of v1a signatures; every active one is tried"
    )
    tolerance_seconds: Seconds = Field(
        default=300.0, gt=0, description="How far the timestamp may lie in the past or future"
    )

    @property
    def header_names(self) -> tuple[str, str, str]:
        """Lower-case names of the headers with the id, the timestamp and the signatures."""
        prefix = self.header_prefix.lower()
        return f"{prefix}-id", f"{prefix}-timestamp", f"{prefix}-signature"


SchemeSpec = Annotated[SharedSecretSpec | HmacSpec | StandardWebhooksSpec, Field(discriminator="scheme")]
"""Specification of any scheme. ``scheme`` names the scheme."""

"""How the webhooks of an integration are verified: the scheme, its headers, its secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from pipeline.units import Seconds
from pipeline.webhooks.verification.keys import public_key_of
from pipeline.webhooks.verification.places import HeaderName, Place, SignedPart

_TAKEN = frozenset({"content-type", "content-length", "content-encoding", "host", "traceparent"})
"""Headers that a signature cannot have: it is stored with the record, where these mean something else or must not stand."""


def _is_place(text: str) -> str:
    Place.parse(text)
    return text


def _is_part(text: str) -> str:
    SignedPart.parse(text)
    return text


NotBefore = Annotated[
    AwareDatetime | None,
    Field(description="First moment in which it counts (ISO 8601 with a zone); default: always did"),
]
NotAfter = Annotated[
    AwareDatetime | None,
    Field(description="First moment in which it counts no more (ISO 8601 with a zone); default: never"),
]


def _in_order(not_before: datetime | None, not_after: datetime | None) -> None:
    if not_before and not_after and not_before >= not_after:
        raise ValueError("not_before must be earlier than not_after")


class SecretSettings(BaseModel):
    """One shared secret. To exchange it, list the old and the new one, with dates that overlap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path = Field(description="File that holds the secret as text; one newline at its end is not part of it")
    id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Name of the secret in logs; default: the file's name",
    )
    not_before: NotBefore = None
    not_after: NotAfter = None

    @property
    def name(self) -> str:
        """The configured id, or the file's name."""
        return self.id or self.file.name

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _in_order(self.not_before, self.not_after)
        return self


class PublicKeySettings(BaseModel):
    """One public key of the sender. To exchange it, list the old and the new one, with dates that overlap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Name of the key in logs")
    value: str = Field(description="The key as the sender shows it: 'whpk_' and base64 of 32 bytes")
    not_before: NotBefore = None
    not_after: NotAfter = None

    @property
    def name(self) -> str:
        """The configured id."""
        return self.id

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _in_order(self.not_before, self.not_after)
        public_key_of(self.value)
        return self


def is_active(key: SecretSettings | PublicKeySettings, now: datetime) -> bool:
    """Return whether a secret or key counts at this moment (aware datetime)."""
    begun = key.not_before is None or key.not_before <= now
    return begun and (key.not_after is None or now < key.not_after)


def check_named_apart(keys: Sequence[SecretSettings | PublicKeySettings]) -> None:
    """Return if no two keys have one name, by which logs tell them apart. Raises ValueError."""
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        raise ValueError("two secrets have the same name: give each an id of its own")


class _SchemeSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    secrets: tuple[SecretSettings, ...] = Field(
        min_length=1, max_length=16, description="Every secret that counts at the time of a request is tried"
    )

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        check_named_apart(self.secrets)
        return self


class SharedSecretSettings(_SchemeSettings):
    """The sender puts the secret itself into a header. Simple, but proves nothing about the body: use https only."""

    scheme: Literal["shared-secret"] = Field(description="The secret itself stands in a header")
    header: HeaderName = Field(default="X-Webhook-Secret", description="Name of the header")
    prefix: str = Field(
        default="", max_length=64, description="Text before the secret, such as 'Bearer ' with its space"
    )


class FieldSettings(BaseModel):
    """The signature's header is a list of named fields, as in `t=1769121839,v1=74f1d275`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    signature: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,32}$",
        description="Name of the field that holds a signature; where it stands there several times, one match suffices",
    )
    timestamp: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]{1,32}$",
        description="Name of the field that holds the time of signing; for timestamp = 'field'",
    )
    separator: Literal[",", ";"] = Field(default=",", description="Character between two fields")


class HmacSettings(_SchemeSettings):
    """The sender signs parts of the request, one after another and with nothing between, with the secret as key."""

    scheme: Literal["hmac"] = Field(description="An HMAC stands in a header")
    header: HeaderName = Field(default="X-Webhook-Signature", description="Name of the header that holds the signature")
    prefix: str = Field(default="", max_length=64, description="Text before the signature, such as 'sha256='")
    fields: FieldSettings | None = Field(
        default=None, description="Where the header is a list of named fields; default: it is the signature"
    )
    hash: Literal["sha256", "sha512", "sha1"] = Field(default="sha256", description="Hash function of the HMAC")
    encoding: Literal["hex", "base64"] = Field(
        default="hex", description="How the signature is written; hex in either case, base64 with its padding"
    )
    key: Literal["text", "hex", "base64"] = Field(
        default="text",
        description="What the secret's text is: the key itself (in UTF-8), or the key written in hex or in base64",
    )
    signed: tuple[Annotated[str, AfterValidator(_is_part)], ...] = Field(
        default=("body",),
        min_length=1,
        max_length=16,
        description="What is signed, in this order: 'body' (the raw bytes), 'timestamp' (its text as received), "
        "'header:NAME', 'header?:NAME' (missing counts as empty), 'text:LITERAL', such as 'text:.' for a full stop",
    )
    body_unsigned: bool = Field(
        default=False,
        description="Allows that the body is not among what is signed: the signature then proves nothing about the body",
    )
    timestamp: Annotated[str, AfterValidator(_is_place)] | None = Field(
        default=None,
        description="Where the time of signing stands: 'header:NAME', 'field' (of the signature's header) or "
        "'json:/pointer' (in the body). It must be signed. Default: the age of a request is not looked at",
    )
    timestamp_unit: Literal["s", "ms", "iso8601"] = Field(
        default="s",
        description="What the timestamp is: seconds (s) or milliseconds (ms) since 1970, or ISO 8601 with a zone",
    )
    tolerance_seconds: Seconds = Field(
        default=300.0,
        gt=0,
        description="How far the timestamp may lie in the past or future, in seconds; longer than the sender's retries, where they keep their timestamp",
    )

    @property
    def parts(self) -> tuple[SignedPart, ...]:
        """What is signed, in order."""
        return tuple(map(SignedPart.parse, self.signed))

    @property
    def time_place(self) -> Place | None:
        """Where the timestamp stands."""
        return None if self.timestamp is None else Place.parse(self.timestamp)

    @model_validator(mode="after")
    def _body_is_signed(self) -> Self:
        if ("body" in self.signed) == self.body_unsigned:
            raise ValueError(
                "leave body_unsigned out: the body is signed"
                if self.body_unsigned
                else "signed must name 'body'; where the sender really leaves it out, set body_unsigned = true: "
                "the signature then proves nothing about the body"
            )
        return self

    @model_validator(mode="after")
    def _time_is_signed(self) -> Self:
        place = self.time_place
        inside = place is not None and place.kind == "json"
        if place is None and "timestamp" in self.signed:
            raise ValueError("signed names 'timestamp': say where it stands, such as timestamp = 'header:X-Timestamp'")
        if place is not None and ("timestamp" in self.signed) == inside:
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
        if self.fields is not None and self.fields.signature == self.fields.timestamp:
            raise ValueError("fields.signature and fields.timestamp must differ")
        return self

    @model_validator(mode="after")
    def _headers_differ(self) -> Self:
        names = list(self.header_names())
        if len(set(names)) < len(names):
            raise ValueError("header, timestamp and the headers in signed must differ: each is read once")
        if taken := sorted(_TAKEN.intersection(names)):
            raise ValueError(f"{taken[0]} cannot hold a signature or what is signed with it: name another header")
        return self

    def header_names(self) -> Iterator[str]:
        """Yield the lower-case name of every header that is read."""
        yield self.header.lower()
        place = self.time_place
        if place is not None and place.kind == "header":
            yield place.value.lower()
        for part in self.parts:
            if part.kind == "header":
                yield part.value.lower()


class StandardWebhooksSettings(_SchemeSettings):
    """The sender keeps to Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, all signed."""

    scheme: Literal["standard-webhooks"] = Field(description="Signatures v1 (HMAC) and v1a (ed25519)")
    secrets: tuple[SecretSettings, ...] = Field(
        default=(),
        max_length=16,
        description="Secrets of v1 signatures, 'whsec_' and base64, or base64 alone; every one that counts is tried",
    )
    public_keys: tuple[PublicKeySettings, ...] = Field(
        default=(), max_length=16, description="Public keys of v1a signatures; every one that counts is tried"
    )
    tolerance_seconds: Seconds = Field(
        default=300.0, gt=0, description="How far the timestamp may lie in the past or future, in seconds"
    )

    @model_validator(mode="after")
    def _some_key(self) -> Self:
        check_named_apart((*self.secrets, *self.public_keys))
        if not self.secrets and not self.public_keys:
            raise ValueError("name at least one of secrets (v1) and public_keys (v1a)")
        return self


SchemeSettings = Annotated[
    SharedSecretSettings | HmacSettings | StandardWebhooksSettings, Field(discriminator="scheme")
]
"""Settings of any scheme; ``scheme`` says which."""

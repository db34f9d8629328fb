"""How the webhooks of an integration are verified: the scheme, its header, its secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^`|~-]{1,128}$")]
"""An HTTP header name (RFC 9110 token); underscores are left out, since proxies drop such headers silently."""

_TAKEN = frozenset({"content-type", "content-length", "content-encoding", "host", "traceparent"})
"""Headers that a signature cannot have: it is stored with the record, where these mean something else or must not stand."""


class SecretSettings(BaseModel):
    """One shared secret. To exchange it, list the old and the new one, with dates that overlap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path = Field(description="File that holds the secret as text; one newline at its end is not part of it")
    id: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Name of the secret in logs; default: the file's name",
    )
    not_before: AwareDatetime | None = Field(
        default=None, description="First moment in which the secret counts (ISO 8601 with a zone); default: always did"
    )
    not_after: AwareDatetime | None = Field(
        default=None,
        description="First moment in which the secret counts no more (ISO 8601 with a zone); default: never",
    )

    @property
    def name(self) -> str:
        """The configured id, or the file's name."""
        return self.id or self.file.name

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise ValueError("not_before must be earlier than not_after")
        return self


class _SchemeSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    secrets: tuple[SecretSettings, ...] = Field(
        min_length=1, max_length=16, description="Every secret that counts at the time of a request is tried"
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [secret.name for secret in self.secrets]
        if len(set(names)) < len(names):
            raise ValueError("two secrets have the same name: give each an id of its own")
        return self


class SharedSecretSettings(_SchemeSettings):
    """The sender puts the secret itself into a header. Simple, but proves nothing about the body: use https only."""

    scheme: Literal["shared-secret"] = Field(description="The secret itself stands in a header")
    header: HeaderName = Field(default="X-Webhook-Secret", description="Name of the header")
    prefix: str = Field(
        default="", max_length=64, description="Text before the secret, such as 'Bearer ' with its space"
    )


class HmacSettings(_SchemeSettings):
    """The sender signs the body, or timestamp and body, with the secret as key."""

    scheme: Literal["hmac"] = Field(description="An HMAC of the body stands in a header")
    over: Literal["body", "timestamp+body"] = Field(
        default="body",
        description="What is signed: the raw body, or the timestamp header's text, the separator and the raw body",
    )
    separator: str = Field(default=".", max_length=8, description="Text between timestamp and body; may be empty")
    header: HeaderName = Field(default="X-Webhook-Signature", description="Name of the header that holds the signature")
    prefix: str = Field(default="", max_length=64, description="Text before the signature, such as 'sha256='")
    hash: Literal["sha256", "sha512", "sha1"] = Field(default="sha256", description="Hash function of the HMAC")
    encoding: Literal["hex", "base64"] = Field(
        default="hex", description="How the signature is written; hex in either case, base64 with its padding"
    )
    timestamp_header: HeaderName | None = Field(
        default=None, description="Name of the header that holds the time of signing; needed for timestamp+body"
    )
    timestamp_unit: Literal["s", "ms"] = Field(
        default="s", description="What the timestamp counts since 1970: seconds (s) or milliseconds (ms)"
    )
    tolerance_seconds: float = Field(
        default=300.0,
        gt=0,
        description="How far the timestamp may lie in the past or future, in seconds; longer than the sender's retries, where they keep their timestamp",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.over == "timestamp+body") != (self.timestamp_header is not None):
            raise ValueError(
                "set timestamp_header if, and only if, over is 'timestamp+body': an unsigned timestamp proves nothing"
            )
        names = [name.lower() for name in (self.header, self.timestamp_header) if name]
        if len(set(names)) < len(names):
            raise ValueError("header and timestamp_header must differ")
        if taken := sorted(_TAKEN.intersection(names)):
            raise ValueError(f"{taken[0]} cannot hold a signature or its timestamp: name another header")
        return self


SchemeSettings = Annotated[SharedSecretSettings | HmacSettings, Field(discriminator="scheme")]
"""Settings of any scheme; ``scheme`` says which."""

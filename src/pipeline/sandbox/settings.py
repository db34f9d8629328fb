"""Settings of the sandbox."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pipeline.units import Bytes, Count, Port, Seconds, WholeSeconds

_FROZEN: Final = ConfigDict(frozen=True, extra="forbid")

_RESERVED: Final = frozenset({"api", "control", "card-api"})


class SharedSecretScheme(BaseModel):
    """ECS sends the secret itself in a header."""

    model_config = _FROZEN

    kind: Literal["shared-secret"] = "shared-secret"
    header: str = Field(default="X-Webhook-Secret", description="Name of the header that carries the secret")
    prefix: str = Field(default="", description="Text before the secret in the header, e.g. 'Bearer '")


class HmacScheme(BaseModel):
    """ECS signs the body, or timestamp and body."""

    model_config = _FROZEN

    kind: Literal["hmac"] = "hmac"
    header: str = Field(default="X-Webhook-Signature", description="Name of the header that carries the signature")
    prefix: str = Field(default="", description="Text before the signature in the header, e.g. 'sha256='")
    hash: Literal["sha256", "sha512", "sha1"] = Field(default="sha256", description="Hash function of the HMAC")
    encoding: Literal["hex", "base64"] = Field(default="hex", description="How the signature is written")
    timestamp_header: str | None = Field(
        default=None,
        description="Name of the header with the Unix time in seconds; if set, the time is signed too",
    )
    separator: str = Field(default=".", description="Text between timestamp and body in the signed text")


Scheme = Annotated[SharedSecretScheme | HmacScheme, Field(discriminator="kind")]


class ObjectStoreSettings(BaseModel):
    """Settings of the stand-in for S3."""

    model_config = _FROZEN

    mode: Literal["aws-like", "value-enforcing"] = Field(
        default="aws-like",
        description="The empty-body CRC32 in the upload URL: ignored as by S3, or enforced (400 BadDigest) as by R2, Garage and SeaweedFS",
    )
    bucket: str = Field(default="ecs-card-batches", min_length=3, description="First part of every object's path")
    region: str = Field(default="us-east-1", description="Region in the credential scope")
    access_key: str = Field(default="AKIASANDBOXSANDBOX00", description="Access key that signs the URLs")
    secret_key: SecretStr = Field(
        default=SecretStr("sandbox-secret-key-of-no-account"), description="Secret key that signs the URLs"
    )
    max_object_bytes: Bytes = Field(default=5 * 1024**3, ge=1, description="Largest PUT; that of S3 is 5 GiB")
    body_timeout_seconds: Seconds = Field(
        default=20.0, gt=0, description="A PUT that sends nothing for this long is answered 400 RequestTimeout"
    )
    clock_skew_seconds: Seconds = Field(default=900.0, ge=0, description="How far the clock of the signer may be ahead")

    def model_post_init(self, _context: object) -> None:
        """Refuse bucket names that would hide other paths of the sandbox."""
        if self.bucket in _RESERVED or not re.fullmatch(r"[a-z0-9][a-z0-9.-]+[a-z0-9]", self.bucket):
            raise ValueError(f"{self.bucket!r} is no bucket name, or one that the sandbox needs itself")


class CardApiSettings(BaseModel):
    """Settings of the stand-in for an API that loads one card at a time."""

    model_config = _FROZEN

    token: SecretStr = Field(
        default=SecretStr("sandbox-card-api-token"), description="Bearer token that the API requires"
    )
    latency_seconds: Seconds = Field(default=0.0, ge=0, description="How long each answer takes")
    requests_per_second: Count = Field(
        default=0, ge=0, description="Requests that the API takes in a second; it answers 429 to more. 0: no bound"
    )
    declined_share: Count = Field(default=25, ge=0, description="One card in this many is declined; 0: none")
    remembered_keys: Count = Field(
        default=200_000, ge=1, description="Idempotency keys that the API remembers; it forgets the oldest first"
    )


class SandboxSettings(BaseModel):
    """One sandbox: an ECS, its object store and a card API on one port."""

    model_config = _FROZEN

    data_dir: Path = Field(description="Folder of the objects; those of an earlier run are overwritten")
    host: str = Field(default="127.0.0.1", description="Address to listen on")
    port: Port = Field(default=8090, description="Port to listen on; 0 takes a free one")
    public_url: str | None = Field(
        default=None,
        description="Base of the URLs that the sandbox hands out, without a path, if clients reach it under another name",
    )
    webhook_url: str | None = Field(
        default=None, description="Where jobs are announced, unless a job names another URL"
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr("sandbox-webhook-secret-0123456789abcdef"), description="Secret of the originating webhook"
    )
    scheme: Scheme = Field(default_factory=SharedSecretScheme, description="How the secret is applied")
    webhook_timeout_seconds: Seconds = Field(default=10.0, gt=0, description="How long one announcement may take")
    webhook_pauses_seconds: tuple[Seconds, ...] = Field(
        default=(0.2, 1.0, 3.0),
        description="Pauses before an announcement is repeated; after the last one ECS gives up",
    )
    partner_guid: UUID = Field(
        default=UUID("03338397-83da-470d-9cd7-241f6b5dbd62"), description="GUID of the integrator at ECS"
    )
    merchant_guid: UUID = Field(
        default=UUID("4933e450-d3c4-406f-9b9b-3afb812a5b7c"),
        description="GUID of the merchant, unless a job names another",
    )
    partner_reference_id: str = Field(
        default="integrator-merchant1-location-002", description="Reference of a job that names none"
    )
    jwt_secret: SecretStr = Field(
        default=SecretStr("sandbox-platform-jwt-secret-of-32-bytes-or-more"),
        min_length=32,
        description="Key of the callback tokens, 32 bytes or more",
    )
    jwt_issuer: str = Field(default="https://ecs.sandbox", description="Claim iss of the callback tokens")
    jwt_audience: str = Field(default="ecs-partner-callbacks", description="Claim aud of the callback tokens")
    oauth_client_id: str = Field(default="sandbox-client", description="Client of the token endpoint")
    oauth_client_secret: SecretStr = Field(
        default=SecretStr("sandbox-client-secret"), description="Secret of that client"
    )
    oauth_expires_seconds: WholeSeconds = Field(default=86_400, ge=1, description="Lifetime of a fetched token")
    request_id_conflict_status: Literal[409, 422] = Field(
        default=409, description="Answer to a known X-Request-Id with another payload"
    )
    object_store: ObjectStoreSettings = Field(default_factory=ObjectStoreSettings)
    card_api: CardApiSettings = Field(default_factory=CardApiSettings)

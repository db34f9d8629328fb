"""Settings of secret files, and settings of schemes together with their secrets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.secret_files import SecretPath
from pipeline.webhooks.verification.protocols import within
from pipeline.webhooks.verification.specs import (
    HmacSpec,
    NotAfter,
    NotBefore,
    PublicKeySettings,
    SharedSecretSpec,
    StandardWebhooksSpec,
    check_period,
)


class SecretSettings(BaseModel):
    """One shared secret. To rotate it, list the old and the new one, with periods that overlap."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    file: SecretPath = Field(description="File that holds the secret as text; one newline at its end is not part of it")
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
    def _valid(self) -> Self:
        check_period(self.not_before, self.not_after)
        return self


def is_active(key: SecretSettings | PublicKeySettings, now: datetime) -> bool:
    """Return whether a secret or public key is active now (aware datetime)."""
    return within(now, key.not_before, key.not_after)


def check_named_apart(keys: Sequence[SecretSettings | PublicKeySettings]) -> None:
    """Raise ValueError if two keys have the same name: logs could not tell them apart."""
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        raise ValueError("two secrets have the same name: give each an id of its own")


class _WithSecrets(BaseModel):
    secrets: tuple[SecretSettings, ...] = Field(
        min_length=1, max_length=16, description="Every secret that is active when a request comes is tried"
    )

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        check_named_apart(self.secrets)
        return self


class SharedSecretSettings(SharedSecretSpec, _WithSecrets):
    """The sender puts the secret itself into a header. Simple, but proves nothing about the body: use https only."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class HmacSettings(HmacSpec, _WithSecrets):
    """The sender joins parts of the request, with nothing between them, and signs the result with the secret as key."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


class StandardWebhooksSettings(StandardWebhooksSpec):
    """The sender follows Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, all signed."""

    secrets: tuple[SecretSettings, ...] = Field(
        default=(),
        max_length=16,
        description="Secrets of v1 signatures, 'whsec_' and base64, or base64 alone; every active one is tried",
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
"""Settings of any scheme, with the files of its secrets. ``scheme`` names the scheme."""

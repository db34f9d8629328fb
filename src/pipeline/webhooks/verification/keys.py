"""Keys: a secret's text as bytes, public keys, and which of them count now."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.errors import FatalError
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.protocols import Secret

_PUBLIC_PREFIX: Final = "whpk_"
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every such secret begins with
_PUBLIC_BYTES: Final = 32

Writing = Literal["text", "hex", "base64"]
"""How a secret's text says its key."""


class Dated(Protocol):
    """Whatever counts for a time."""

    @property
    def id(self) -> str:
        """Its name in logs."""
        ...

    def active(self, now: datetime) -> bool:
        """Return whether it counts at this moment (aware datetime)."""
        ...


DatedT = TypeVar("DatedT", bound=Dated)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One public key of a sender, with the time in which it counts; see :class:`Secret`."""

    id: str
    key: Ed25519PublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None

    def active(self, now: datetime) -> bool:
        """Return whether the key counts at this moment (aware datetime)."""
        begun = self.not_before is None or self.not_before <= now
        return begun and (self.not_after is None or now < self.not_after)


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A secret, read as the key that it is."""

    secret: Secret
    value: bytes

    @property
    def id(self) -> str:
        """The secret's name in logs."""
        return self.secret.id

    def active(self, now: datetime) -> bool:
        """Return whether the secret counts at this moment (aware datetime)."""
        return self.secret.active(now)


def keys_of(secrets: Iterable[Secret], writing: Writing = "text") -> tuple[Key, ...]:
    """Return the keys that the secrets' texts say.

    Raises:
        FatalError: A text is not what it is said to be (``secret_malformed``).
    """
    return tuple(Key(secret, _key(secret, writing)) for secret in secrets)


def standard_keys_of(secrets: Iterable[Secret]) -> tuple[Key, ...]:
    """Return the keys of Standard Webhooks' secrets: ``whsec_`` and base64, or base64 alone.

    Raises:
        FatalError: A text is neither (``secret_malformed``).
    """
    return tuple(
        Key(secret, _decoded(secret, secret.value.get_secret_value().removeprefix(_SECRET_PREFIX), "base64"))
        for secret in secrets
    )


def public_key_of(text: str) -> Ed25519PublicKey:
    """Return the public key that ``whpk_`` and base64 say.

    Raises:
        ValueError: They say none.
    """
    try:
        raw = base64_bytes(text.removeprefix(_PUBLIC_PREFIX).encode())
        if text.startswith(_PUBLIC_PREFIX) and len(raw) == _PUBLIC_BYTES:
            return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        pass
    raise ValueError(f"this is no public key: write {_PUBLIC_PREFIX!r} and base64 of {_PUBLIC_BYTES} bytes")


def _key(secret: Secret, writing: Writing) -> bytes:
    return secret.key if writing == "text" else _decoded(secret, secret.value.get_secret_value(), writing)


def _decoded(secret: Secret, text: str, writing: Literal["hex", "base64"]) -> bytes:
    try:
        if writing == "hex":
            raw = binascii.unhexlify(text)
        else:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # some senders leave the padding out
    except ValueError:
        raw = b""
    if not raw:
        raise FatalError(
            "secret_malformed", f"The secret {secret.id!r} is not written in {writing}, as its scheme says"
        )
    return raw


def base64_bytes(text: bytes) -> bytes:
    """Return what base64 says, if it is written in the one way that an encoder would write it.

    Raises:
        ValueError: Another alphabet, white space, no padding, or bits that the padding hides.
    """
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw) != text:
        raise ValueError("this is another spelling")
    return raw


def counting(keys: Iterable[DatedT], now: datetime) -> tuple[DatedT, ...]:
    """Return the keys that count now.

    Raises:
        SignatureRefused: None does, which is our own fault.
    """
    active = tuple(key for key in keys if key.active(now))
    if not active:
        raise SignatureRefused(Reason.NO_ACTIVE_SECRET, "No secret counts at this time: check not_before and not_after")
    return active

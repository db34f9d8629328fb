"""Keys: decode secrets and public keys, choose the active ones, compare signatures in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

from pipeline.errors import FatalError
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.protocols import Secret, within

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_PUBLIC_PREFIX: Final = "whpk_"
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix of every such secret
_PUBLIC_BYTES: Final = 32

KeyEncoding = Literal["text", "hex", "base64"]
"""How a secret's text encodes its key."""


class Dated(Protocol):
    """A key with a period in which it is active."""

    @property
    def id(self) -> str:
        """Its name in logs."""
        ...

    def active(self, now: datetime) -> bool:
        """Return whether it is active now (aware datetime)."""
        ...


DatedT = TypeVar("DatedT", bound=Dated)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One public key of a sender and the period in which it is active; see :class:`Secret`."""

    id: str
    key: Ed25519PublicKey
    not_before: datetime | None = None
    not_after: datetime | None = None

    def active(self, now: datetime) -> bool:
        """Return whether the key is active now (aware datetime)."""
        return within(now, self.not_before, self.not_after)


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A secret with its decoded key."""

    secret: Secret
    value: bytes

    @property
    def id(self) -> str:
        """The secret's name in logs."""
        return self.secret.id

    def active(self, now: datetime) -> bool:
        """Return whether the secret is active now (aware datetime)."""
        return self.secret.active(now)


def keys_of(secrets: Iterable[Secret], encoding: KeyEncoding = "text") -> tuple[Key, ...]:
    """Return the secrets with their decoded keys.

    Raises:
        FatalError: A secret does not have this encoding (``secret_malformed``).
    """
    return tuple(Key(secret, _key(secret, encoding)) for secret in secrets)


def standard_keys_of(secrets: Iterable[Secret]) -> tuple[Key, ...]:
    """Return the secrets of Standard Webhooks with their decoded keys.

    Such a secret is written as ``whsec_`` and base64, or as base64 alone.

    Raises:
        FatalError: A secret has neither form (``secret_malformed``).
    """
    return tuple(
        Key(secret, _decoded(secret, secret.value.get_secret_value().removeprefix(_SECRET_PREFIX), "base64"))
        for secret in secrets
    )


def public_key_of(text: str) -> Ed25519PublicKey:
    """Return the public key that a text encodes as ``whpk_`` and base64.

    Raises:
        ValueError: The text encodes no public key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - few sources have public keys
        Ed25519PublicKey,
    )

    try:
        raw = base64_bytes(text.removeprefix(_PUBLIC_PREFIX).encode())
        if text.startswith(_PUBLIC_PREFIX) and len(raw) == _PUBLIC_BYTES:
            return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        pass
    raise ValueError(f"this is no public key: write {_PUBLIC_PREFIX!r} and base64 of {_PUBLIC_BYTES} bytes")


def _key(secret: Secret, encoding: KeyEncoding) -> bytes:
    return secret.key if encoding == "text" else _decoded(secret, secret.value.get_secret_value(), encoding)


def _decoded(secret: Secret, text: str, encoding: Literal["hex", "base64"]) -> bytes:
    try:
        if encoding == "hex":
            raw = binascii.unhexlify(text)
        else:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # some senders omit the padding
    except ValueError:
        raw = b""
    if not raw:
        raise FatalError(
            "secret_malformed", f"The secret {secret.id!r} is not written in {encoding}, as its scheme says"
        )
    return raw


def base64_bytes(text: bytes) -> bytes:
    """Return the decoded bytes of a text that is written exactly as an encoder writes it.

    Raises:
        ValueError: Another alphabet, white space, no padding, or bits hidden in the padding.
    """
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw) != text:
        raise ValueError("this is another spelling")
    return raw


def active_keys(keys: Iterable[DatedT], now: datetime) -> tuple[DatedT, ...]:
    """Return the keys that are active now.

    Raises:
        SignatureRefused: No key is active, which is our own fault.
    """
    active = tuple(key for key in keys if key.active(now))
    if not active:
        raise SignatureRefused(
            Reason.NO_ACTIVE_SECRET, "No secret is active at this time: check not_before and not_after"
        )
    return active


def matching_key(keys: Sequence[Key], received: Sequence[bytes], expected: Callable[[bytes], bytes]) -> str:
    """Return the id of the first key for which ``expected(key)`` equals one of the received signatures.

    It computes and compares all of them, even after one has matched.

    Raises:
        SignatureRefused: None matches.
    """

    def matches(key: Key) -> bool:
        computed = expected(key.value)
        return any([hmac.compare_digest(computed, one) for one in received])  # noqa: C419 - no early end

    return first_matching(keys, matches)


def first_matching(keys: Sequence[DatedT], matches: Callable[[DatedT], bool]) -> str:
    """Return the id of the first key that matches. It tries every key, even after one has matched.

    Raises:
        SignatureRefused: None matches.
    """
    matched = [key.id for key in keys if matches(key)]
    if not matched:
        raise SignatureRefused(Reason.NOT_VERIFIED, f"None of {len(keys)} active secrets verifies the request")
    return matched[0]

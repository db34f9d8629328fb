"""Trying every active secret in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from datetime import datetime

from pipeline.signatures.errors import Reason, SignatureRefused
from pipeline.signatures.protocols import Secret


def active_secrets(secrets: Sequence[Secret], now: datetime) -> tuple[Secret, ...]:
    """Return the secrets that count now.

    Raises:
        SignatureRefused: None does, which is our own fault.
    """
    active = tuple(secret for secret in secrets if secret.active(now))
    if not active:
        raise SignatureRefused(Reason.NO_ACTIVE_SECRET, "No secret counts at this time: check not_before and not_after")
    return active


def matching_secret(secrets: Sequence[Secret], received: bytes, expected: Callable[[bytes], bytes]) -> str:
    """Return the id of the first secret for which ``expected(key)`` equals what was received.

    All of them are computed and compared, also after one matched.

    Raises:
        SignatureRefused: None matches.
    """
    matched: str | None = None
    for secret in secrets:
        equal = hmac.compare_digest(expected(secret.key), received)
        if equal and matched is None:
            matched = secret.id
    if matched is None:
        raise SignatureRefused(Reason.NOT_VERIFIED, f"None of {len(secrets)} active secrets verifies the request")
    return matched

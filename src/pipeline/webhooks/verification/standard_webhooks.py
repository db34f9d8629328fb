"""The scheme of Standard Webhooks: symmetric ``v1`` and asymmetric ``v1a`` signatures, several in one header.

Source: the Standard Webhooks specification, sections *Signature scheme* and *Webhook headers*.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidSignature

from pipeline.contracts import Headers
from pipeline.webhooks.verification.errors import Reason, SignatureRefused
from pipeline.webhooks.verification.fields import MOST_SIGNATURES
from pipeline.webhooks.verification.keys import Key, PublicKey, base64_bytes, counting, public_key_of, standard_keys_of
from pipeline.webhooks.verification.matching import first_matching
from pipeline.webhooks.verification.one_header import one_header
from pipeline.webhooks.verification.protocols import Secret
from pipeline.webhooks.verification.settings import StandardWebhooksSettings
from pipeline.webhooks.verification.timestamps import check_timestamp
from pipeline.webhooks.verification.trail import Note, unnoted

_ID: Final = "webhook-id"
_TIMESTAMP: Final = "webhook-timestamp"
_SIGNATURE: Final = "webhook-signature"
_BYTES: Final = {b"v1": 32, b"v1a": 64}

_Signatures = dict[bytes, list[bytes]]
"""Decoded signatures by version."""


class StandardWebhooks:
    """Tries every signature with every key; see Scheme. One match suffices; unknown versions are passed over."""

    stored_headers: frozenset[str] = frozenset({_ID, _TIMESTAMP, _SIGNATURE})

    def __init__(self, settings: StandardWebhooksSettings, secrets: Sequence[Secret]) -> None:
        """Take the resolved secrets; the public keys stand in the settings.

        Raises:
            FatalError: A secret is not base64 (``secret_malformed``).
        """
        self._tolerance = settings.tolerance_seconds
        self._keys: tuple[Key | PublicKey, ...] = (
            *standard_keys_of(secrets),
            *(
                PublicKey(one.id, public_key_of(one.value), one.not_before, one.not_after)
                for one in settings.public_keys
            ),
        )

    def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
        """See Scheme."""
        return self.follow(headers, body, now, unnoted)

    def follow(self, headers: Headers, body: bytes, now: datetime, note: Note) -> str:
        """Verify, and note each step; see :class:`~pipeline.webhooks.verification.trail.Followed`."""
        keys = counting(self._keys, now)
        note("secrets", f"{len(keys)} of {len(self._keys)} count at this time: {', '.join(key.id for key in keys)}")
        value = one_header(headers, _SIGNATURE)
        note("header", f"{_SIGNATURE} stands there once")
        signatures = _signatures(value)
        note("form", ", ".join(f"{len(found)} of {version.decode()}" for version, found in signatures.items()))
        timestamp = one_header(
            headers, _TIMESTAMP, missing=Reason.TIMESTAMP_MISSING, repeated=Reason.TIMESTAMP_REPEATED
        )
        age = check_timestamp(timestamp, now, unit="s", tolerance=self._tolerance)
        note("timestamp", f"{age:.1f} s old, {self._tolerance:g} s are allowed")
        message = b".".join((_identity(headers), timestamp, body))
        note("signed", f"{_ID} + {_TIMESTAMP} + body with full stops between: {len(message)} bytes")
        found = first_matching(keys, lambda key: _matches(key, signatures, message))
        note("match", f"verified by {found}")
        return found


def _identity(headers: Headers) -> bytes:
    value = one_header(headers, _ID)
    if not value or b"." in value:
        # with a full stop in it, the same signature would fit another id and another body
        raise SignatureRefused(Reason.ID_MALFORMED, f"The header {_ID} is empty or holds a full stop")
    return value


def _signatures(value: bytes) -> _Signatures:
    found: _Signatures = {}
    listed = value.split(b" ")
    if len(listed) > MOST_SIGNATURES:
        raise SignatureRefused(
            Reason.SIGNATURE_MALFORMED, f"The header {_SIGNATURE} holds more than {MOST_SIGNATURES} signatures"
        )
    pairs = [one.partition(b",") for one in listed]
    if not all(comma for _, comma, _ in pairs):
        raise SignatureRefused(Reason.SIGNATURE_MALFORMED, f"The header {_SIGNATURE} is no list of signatures")
    known = [(version, text) for version, _, text in pairs if version in _BYTES]
    for version, text in known:
        decoded = _decoded(text)
        if len(decoded) == _BYTES[version]:
            found.setdefault(version, []).append(decoded)
    if not known:
        raise SignatureRefused(Reason.SIGNATURE_MISSING, f"The header {_SIGNATURE} holds neither v1 nor v1a")
    if not found:
        raise SignatureRefused(
            Reason.SIGNATURE_MALFORMED, f"No signature in {_SIGNATURE} is base64 of the length that its version has"
        )
    return found


def _decoded(text: bytes) -> bytes:
    try:
        return base64_bytes(text)
    except ValueError:
        return b""


def _matches(key: Key | PublicKey, signatures: _Signatures, message: bytes) -> bool:
    if isinstance(key, Key):
        computed = hmac.digest(key.value, message, "sha256")
        return any([hmac.compare_digest(computed, one) for one in signatures.get(b"v1", [])])  # noqa: C419 - no early end
    return any([_fits(key, one, message) for one in signatures.get(b"v1a", [])])  # noqa: C419 - no early end


def _fits(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.key.verify(signature, message)
    except InvalidSignature:
        return False
    return True

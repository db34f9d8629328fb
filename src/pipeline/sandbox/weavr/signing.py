"""Weavr's signatures, and the identity that a delivery must get. Written from the description, independent of both."""

from __future__ import annotations

import base64
import hashlib
import hmac


def signature_v2(key: bytes, call_ref: str, body: bytes, published: str) -> str:
    """Return the signature over call reference, body and timestamp, one behind the other."""
    return _base64_hmac(key, call_ref.encode() + body + published.encode())


def legacy_signature(key: bytes, published: str) -> str:
    """Return the deprecated signature, which covers the timestamp alone."""
    return _base64_hmac(key, published.encode())


def expected_id(integration: str, path: str, reference: str, body: bytes, published: str) -> str:
    """Return the ``ce_id`` that a delivery must get: the same for each repeat, another for each other event.

    Args:
        integration: As in the webhook's URL.
        path: As Weavr appends it.
        reference: The call reference; of a path without signature the request reference; empty where there is none,
            and then the timestamp counts.
        body: As sent.
        published: The timestamp as sent.
    """
    parts = [integration.encode(), path.encode(), reference.encode()]
    parts += [body] if reference else [published.encode(), body]
    hashed = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts))
    return hashed.hexdigest()[:32]


def _base64_hmac(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()

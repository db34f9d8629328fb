"""Signatures and ids against values computed with ``openssl dgst`` on a command line."""

from __future__ import annotations

import pytest

from pipeline.sandbox.weavr import expected_id, legacy_signature, signature_v2

KEY = b"sandbox-key"


@pytest.mark.parametrize(
    ("call_ref", "body", "published", "signature"),
    [
        ("call-1", '{"a":1}', "1764000000000", "yQ+LQtqHn2zaSJIgKKDqxgXr+7yYGBFXOwr0t3oGHFI="),
        # no call reference, a body that is not ASCII, a timestamp with leading zeros
        ("", '{"n":"Zürich № 7"}', "0001764000000000", "IgfA/RegBuyMrHc6hsEwhqpbXQaXyKd4WpItS8ALanE="),
    ],
)
def test_the_signature_covers_call_reference_body_and_timestamp(
    call_ref: str, body: str, published: str, signature: str
) -> None:
    """Computed by ``printf '%s%s%s' ... | openssl dgst -sha256 -hmac sandbox-key -binary | base64``."""
    assert signature_v2(KEY, call_ref, body.encode(), published) == signature


def test_the_deprecated_signature_covers_the_timestamp_alone() -> None:
    assert legacy_signature(KEY, "1764000000000") == "MfGzc3FA8VItG/x8+/uKQTsL6INjSb7EW0f+7nW90ws="


@pytest.mark.parametrize(
    ("reference", "ce_id"),
    [("call-1", "b6e50f9cbbaf5d09293266e703567747"), ("", "a35fcf0b9a75d9484644af976cb4a807")],
)
def test_the_id_is_a_hash_of_parts_each_behind_its_length(reference: str, ce_id: str) -> None:
    """The timestamp counts only where there is no reference. Computed by ``printf`` and openssl."""
    assert expected_id("acme", "/login/watch", reference, b'{"a":1}', "1764000000000") == ce_id

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pipeline.contracts import Headers
from pipeline.webhooks.verification import Reason, Secret, SharedSecretSpec, SignatureRefused, scheme_of

NOW = datetime(2026, 1, 21, tzinfo=UTC)


def _verify(headers: Headers, *values: str, **settings: Any) -> str:
    spec = SharedSecretSpec.model_validate({"scheme": "shared-secret"} | settings)
    secrets = [Secret(f"s{number}", SecretStr(value)) for number, value in enumerate(values)]
    return scheme_of(spec, secrets).verify(headers, b"{}", NOW)


def _refusal(headers: Headers, *values: str, **settings: Any) -> Reason:
    with pytest.raises(SignatureRefused) as caught:
        _verify(headers, *values, **settings)
    return caught.value.reason


def test_each_of_several_secrets_verifies_and_is_named() -> None:
    assert _verify((("x-webhook-secret", b"alpha"),), "alpha", "beta") == "s0"
    assert _verify((("x-webhook-secret", b"beta"),), "alpha", "beta") == "s1"


@pytest.mark.parametrize("value", [b"", b"alph", b"alphaa", b"Alpha", b" alpha", b"\xe4lpha"])
def test_anything_else_is_not_verified(value: bytes) -> None:
    assert _refusal((("X-Webhook-Secret", value),), "alpha") is Reason.NOT_VERIFIED


def test_prefix_is_part_of_the_header_not_of_the_secret() -> None:
    settings = {"header": "Authorization", "prefix": "Bearer "}
    assert _verify((("Authorization", b"Bearer alpha"),), "alpha", **settings) == "s0"
    assert _refusal((("Authorization", b"alpha"),), "alpha", **settings) is Reason.PREFIX_MISSING


def test_secret_beyond_ascii_is_compared_as_utf8() -> None:
    assert _verify((("X-Webhook-Secret", "gehäß".encode()),), "gehäß") == "s0"


def test_missing_and_repeated_header() -> None:
    header = ("X-Webhook-Secret", b"alpha")
    assert _refusal((), "alpha") is Reason.HEADER_MISSING
    assert _refusal((header, header), "alpha") is Reason.HEADER_REPEATED


def test_no_header_is_stored_since_it_is_the_secret() -> None:
    assert scheme_of(SharedSecretSpec(scheme="shared-secret"), []).stored_headers == frozenset()


def test_without_secrets_the_fault_is_ours() -> None:
    assert _refusal((("X-Webhook-Secret", b"alpha"),)) is Reason.NO_ACTIVE_SECRET


@given(sent=st.binary(max_size=40), secret=st.text(min_size=1, max_size=40).filter(str.isascii))
def test_only_the_secret_itself_verifies(sent: bytes, secret: str) -> None:
    """Law: verified if, and only if, the bytes are equal."""
    headers: Headers = (("X-Webhook-Secret", sent),)
    if sent == secret.encode():
        assert _verify(headers, secret) == "s0"
    else:
        assert _refusal(headers, secret) is Reason.NOT_VERIFIED

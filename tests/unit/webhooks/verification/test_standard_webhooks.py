"""Standard Webhooks: what its specification says of ids, times, versions and several signatures."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from support.signed_requests import (
    ED25519_SIGNATURES,
    NOW,
    PUBLIC_KEYS,
    STANDARD_BODY,
    STANDARD_ID,
    STANDARD_SECRETS,
    STANDARD_SIGNATURES,
    standard_headers,
)

from pipeline.contracts import Headers
from pipeline.errors import FatalError
from pipeline.webhooks.verification import Reason, Secret, SignatureRefused, StandardWebhooksSpec, scheme_of

V1 = f"v1,{STANDARD_SIGNATURES[0]}"
V1A = f"v1a,{ED25519_SIGNATURES[0]}"
OTHER_V1 = "v1," + base64.b64encode(bytes(32)).decode()
OTHER_V1A = "v1a," + base64.b64encode(bytes(64)).decode()


def verify(
    headers: Headers,
    *,
    secrets: tuple[str, ...] = STANDARD_SECRETS[:1],
    public: tuple[str, ...] = PUBLIC_KEYS[:1],
    body: bytes = STANDARD_BODY,
    now: datetime = NOW,
    **dates: datetime,
) -> str:
    """The secrets are named s0, s1, the public keys p0, p1; ``dates`` are those of the public keys."""
    spec = StandardWebhooksSpec.model_validate(
        {
            "scheme": "standard-webhooks",
            "public_keys": [{"id": f"p{number}", "value": value, **dates} for number, value in enumerate(public)],
        }
    )
    held = [Secret(f"s{number}", SecretStr(value)) for number, value in enumerate(secrets)]
    return scheme_of(spec, held).verify(headers, body, now)


def refusal(headers: Headers, **arguments: Any) -> Reason:
    with pytest.raises(SignatureRefused) as caught:
        verify(headers, **arguments)
    return caught.value.reason


def test_symmetric_and_asymmetric_signatures_verify() -> None:
    assert verify(standard_headers(V1)) == "s0"
    assert verify(standard_headers(V1A)) == "p0"


def test_each_kind_of_key_verifies_its_own_kind_of_signature_alone() -> None:
    assert refusal(standard_headers(V1), secrets=()) is Reason.NOT_VERIFIED
    assert refusal(standard_headers(V1A), public=()) is Reason.NOT_VERIFIED


@pytest.mark.parametrize(
    "value",
    [
        f"{OTHER_V1} {V1}",
        f"{V1} {OTHER_V1}",
        f"{OTHER_V1A} {V1}",
        f"v2,anything {V1}",
        f"v2a,{ED25519_SIGNATURES[0]} {V1}",
        f"v1,short {V1}",
        f"{V1} {V1}",
        f"{OTHER_V1}  {V1}",
        f"{OTHER_V1}, {V1}",
        f"{OTHER_V1}\t{V1}",
    ],
)
def test_one_match_among_several_signatures_suffices(value: str) -> None:
    assert verify(standard_headers(value)) == "s0"


def test_both_keys_verify_while_one_is_exchanged() -> None:
    """The sender signs with both; either receiver, with the old key or the new one, verifies."""
    both = " ".join(f"v1,{one}" for one in STANDARD_SIGNATURES)
    assert verify(standard_headers(both), secrets=STANDARD_SECRETS[1:]) == "s0"
    assert verify(standard_headers(f"v1,{STANDARD_SIGNATURES[1]}"), secrets=STANDARD_SECRETS) == "s1"
    assert verify(standard_headers(f"v1a,{ED25519_SIGNATURES[1]}"), public=PUBLIC_KEYS) == "p1"


def test_public_keys_have_dates() -> None:
    second = timedelta(seconds=1)
    dates = {"not_before": NOW, "not_after": NOW + second}
    assert verify(standard_headers(V1A), **dates) == "p0"  # type: ignore[arg-type]
    assert refusal(standard_headers(V1A), now=NOW - second, **dates) is Reason.NOT_VERIFIED
    assert refusal(standard_headers(V1A), now=NOW + second, **dates) is Reason.NOT_VERIFIED
    assert refusal(standard_headers(V1A), secrets=(), now=NOW + second, **dates) is Reason.NO_ACTIVE_SECRET


@pytest.mark.parametrize("value", ["v2,abc", f"v2,{STANDARD_SIGNATURES[0]}", f"V1,{STANDARD_SIGNATURES[0]}"])
def test_unknown_versions_alone_are_no_signature(value: str) -> None:
    assert refusal(standard_headers(value)) is Reason.SIGNATURE_MISSING


@pytest.mark.parametrize(
    "value",
    [
        "",
        STANDARD_SIGNATURES[0],
        f"v1={STANDARD_SIGNATURES[0]}",
        f"v1,{STANDARD_SIGNATURES[0]},",
        f"v1, {STANDARD_SIGNATURES[0]}",
        f"{V1},{OTHER_V1}",
        f"{V1} , ",
        f"{V1}{' ' * 9}{OTHER_V1}",
        f"v1,{ED25519_SIGNATURES[0]}",
        f"v1a,{STANDARD_SIGNATURES[0]}",
        f"v1,{STANDARD_SIGNATURES[1].replace('+', '-')}",
        " ".join([OTHER_V1] * 17),
    ],
)
def test_what_is_no_list_of_signatures_is_malformed(value: str) -> None:
    assert refusal(standard_headers(value)) is Reason.SIGNATURE_MALFORMED


def test_id_time_and_body_are_signed() -> None:
    assert refusal(standard_headers(V1, identity=b"msg_other")) is Reason.NOT_VERIFIED
    assert refusal(standard_headers(V1A, identity=b"msg_other")) is Reason.NOT_VERIFIED
    assert refusal(standard_headers(V1, timestamp=b"1769121838")) is Reason.NOT_VERIFIED
    assert refusal(standard_headers(V1, timestamp=b"01769121839")) is Reason.NOT_VERIFIED
    assert refusal(standard_headers(V1A), body=STANDARD_BODY + b" ") is Reason.NOT_VERIFIED


def test_an_id_with_a_full_stop_could_take_over_another_part() -> None:
    """Signed is id.time.body: cut elsewhere, the same text is another id."""
    for identity in (b"", STANDARD_ID + b".1", b"."):
        assert refusal(standard_headers(V1, identity=identity)) is Reason.ID_MALFORMED


def test_no_header_may_be_repeated() -> None:
    headers = standard_headers(V1)
    missing = [refusal(tuple(one for one in headers if one[0] != name)) for name, _ in headers]
    assert missing == [Reason.HEADER_MISSING, Reason.TIMESTAMP_MISSING, Reason.HEADER_MISSING]
    repeated = [refusal((*headers, one)) for one in headers]
    assert repeated == [Reason.HEADER_REPEATED, Reason.TIMESTAMP_REPEATED, Reason.HEADER_REPEATED]


def test_time_is_in_seconds_and_lies_within_the_tolerance() -> None:
    headers = standard_headers(V1)
    signed_at = NOW - timedelta(seconds=1)
    assert verify(headers, now=signed_at + timedelta(seconds=300)) == "s0"
    assert refusal(headers, now=signed_at + timedelta(seconds=301)) is Reason.TIMESTAMP_TOO_OLD
    assert refusal(headers, now=signed_at - timedelta(seconds=301)) is Reason.TIMESTAMP_IN_FUTURE
    assert refusal(standard_headers(V1, timestamp=b"2026-01-22T22:43:59Z")) is Reason.TIMESTAMP_MALFORMED


def test_the_names_of_the_headers_may_begin_otherwise() -> None:
    """As Svix sends them. The names of the specification are then no signature."""
    spec = StandardWebhooksSpec(scheme="standard-webhooks", header_prefix="Svix")
    scheme = scheme_of(spec, [Secret("s", SecretStr(STANDARD_SECRETS[0]))])
    renamed = tuple((name.replace("webhook", "svix"), value) for name, value in standard_headers(V1))
    assert scheme.verify(renamed, STANDARD_BODY, NOW) == "s"
    assert scheme.stored_headers == {"svix-id", "svix-timestamp", "svix-signature"}
    with pytest.raises(SignatureRefused, match="There is no header svix-signature"):
        scheme.verify(standard_headers(V1), STANDARD_BODY, NOW)
    with pytest.raises(SignatureRefused, match="There is no header svix-timestamp"):
        scheme.check_head(renamed[2:], NOW)


def test_all_three_headers_are_stored() -> None:
    scheme = scheme_of(StandardWebhooksSpec(scheme="standard-webhooks"), [Secret("s", SecretStr(STANDARD_SECRETS[0]))])
    assert scheme.stored_headers == {"webhook-id", "webhook-timestamp", "webhook-signature"}


@pytest.mark.parametrize("value", ["whsec_", "whsec_***", "whsec_ä", "not base64!", "whpk_AAAA"])
def test_a_secret_that_is_no_base64_is_named_when_the_scheme_is_built(value: str) -> None:
    with pytest.raises(FatalError) as caught:
        verify(standard_headers(V1), secrets=(value,))
    assert caught.value.code == "secret_malformed"
    assert "'s0'" in caught.value.message
    assert value not in caught.value.message


@given(data=st.data())
def test_any_changed_byte_of_an_asymmetric_signature_is_refused(data: st.DataObject) -> None:
    """Each signature has exactly one spelling."""
    raw = bytearray(base64.b64decode(ED25519_SIGNATURES[0]))
    raw[data.draw(st.integers(0, 63))] ^= data.draw(st.integers(1, 255))
    assert refusal(standard_headers("v1a," + base64.b64encode(raw).decode())) is Reason.NOT_VERIFIED

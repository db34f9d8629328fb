"""The presets: each on a request as its sender would send it, signed by openssl."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from pydantic import SecretStr
from support.signed_requests import NOW, OF_PRESETS, STRIPE_OLDER, SignedRequest

from pipeline.contracts import Headers
from pipeline.contracts.json_pointer import value_at
from pipeline.webhooks.verification import (
    PRESETS,
    Reason,
    RequestValue,
    Secret,
    SignatureRefused,
    scheme_of,
)

STRIPE = OF_PRESETS["stripe"]
SLACK = OF_PRESETS["slack"]


def verify(name: str, headers: Headers, *, body: bytes | None = None) -> str:
    request = OF_PRESETS[name]
    scheme = scheme_of(PRESETS[name].scheme, [Secret("current", SecretStr(request.secret))])
    return scheme.verify(headers, request.body if body is None else body, NOW)


def refusal(name: str, headers: Headers, *, body: bytes | None = None) -> Reason:
    with pytest.raises(SignatureRefused) as caught:
        verify(name, headers, body=body)
    return caught.value.reason


def found(request: SignedRequest, names: tuple[str, ...]) -> str | None:
    """Return the first of the named values that the request has."""
    for named in map(RequestValue.parse, names):
        if named.kind == "header":
            values = [value for name, value in request.headers if name.lower() == named.name.lower()]
            if values:
                return values[0].decode()
        else:
            try:
                return str(value_at(json.loads(request.body), named.name))
            except LookupError:
                continue
    return None


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_each_preset_verifies_what_its_sender_signs(name: str) -> None:
    assert verify(name, OF_PRESETS[name].headers) == "current"
    assert refusal(name, OF_PRESETS[name].headers, body=OF_PRESETS[name].body + b" ") is Reason.NOT_VERIFIED
    assert refusal(name, ()) is Reason.HEADER_MISSING


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("github", ("72d3162e-cc78-11e3-81ab-4c9367dc0958", "issues", "1296269")),
        ("stripe", ("evt_1SynTheticEvent", "charge.succeeded", "ch_3Synthetic")),
        ("slack", ("Ev0PV52K25", "app_mention", "T061EG9R6")),
        ("shopify", ("b54557e4-bdd9-4b37-8a5f-bf7d70bcd043", "orders/create", "synthetic.myshopify.com")),
        ("paystack", (None, "charge.success", "302961")),
    ],
)
def test_id_type_and_key_are_the_values_that_the_preset_names(name: str, expected: tuple[str | None, ...]) -> None:
    preset, request = PRESETS[name], OF_PRESETS[name]
    assert tuple(found(request, names) for names in (preset.id, preset.type, preset.key)) == expected


def test_each_preset_names_the_document_that_it_follows() -> None:
    assert all(preset.source and "://" not in preset.source for preset in PRESETS.values())


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.removeprefix(b"sha256="),
        lambda value: value.replace(b"sha256=", b"sha1="),
        lambda value: value.replace(b"sha256=", b"SHA256="),
        lambda value: b" " + value,
    ],
)
def test_github_always_writes_its_prefix(change: Callable[[bytes], bytes]) -> None:
    headers = tuple((name, change(value)) for name, value in OF_PRESETS["github"].headers)
    assert refusal("github", headers) is Reason.PREFIX_MISSING


def stripe(*fields: str) -> Headers:
    return (("Stripe-Signature", ",".join(fields).encode()),)


V1 = f"v1={STRIPE.signature}"


@pytest.mark.parametrize(
    "headers",
    [
        stripe("t=1769121839", f"v1={STRIPE_OLDER}", V1),
        stripe("t=1769121839", V1, f"v1={STRIPE_OLDER}"),
        stripe(V1, "t=1769121839"),
        stripe("t=1769121839", V1, "v0=whatever", "new=x"),
        stripe("t=1769121839", "v1=short", V1),
    ],
)
def test_stripe_may_send_several_signatures_and_fields_unknown_to_us(headers: Headers) -> None:
    """While a secret is rolled both sign; one match suffices."""
    assert verify("stripe", headers) == "current"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (stripe("t=1769121839"), Reason.SIGNATURE_MISSING),
        (stripe("t=1769121839", f"v0={STRIPE.signature}"), Reason.SIGNATURE_MISSING),
        (stripe("t=1769121839", f" {V1}"), Reason.SIGNATURE_MISSING),
        (stripe("t=1769121839", f"V1={STRIPE.signature}"), Reason.SIGNATURE_MISSING),
        (stripe("t=1769121839", "v1="), Reason.SIGNATURE_MALFORMED),
        (stripe("t=1769121839", f"{V1} "), Reason.SIGNATURE_MALFORMED),
        (stripe("t=1769121839", V1, ""), Reason.SIGNATURE_MALFORMED),
        (stripe("t=1769121839", V1, "alone"), Reason.SIGNATURE_MALFORMED),
        (stripe("t=1769121839", *[V1] * 17), Reason.SIGNATURE_MALFORMED),
        (stripe(V1), Reason.TIMESTAMP_MISSING),
        (stripe("t=1769121839", "t=1769121839", V1), Reason.TIMESTAMP_REPEATED),
        (stripe("t=", V1), Reason.TIMESTAMP_MALFORMED),
        (stripe("t= 1769121839", V1), Reason.TIMESTAMP_MALFORMED),
        (stripe("t=1769121000", V1), Reason.TIMESTAMP_TOO_OLD),
        (stripe("t=1769122839", V1), Reason.TIMESTAMP_IN_FUTURE),
        (stripe("t=1769121838", V1), Reason.NOT_VERIFIED),
        (stripe("t=01769121839", V1), Reason.NOT_VERIFIED),
        (stripe("t=1769121839", f"v1={STRIPE_OLDER}"), Reason.NOT_VERIFIED),
    ],
)
def test_what_stripe_never_sends_is_refused_with_its_reason(headers: Headers, reason: Reason) -> None:
    assert refusal("stripe", headers) is reason


def test_slack_signs_version_and_time_with_the_body() -> None:
    (time, signature) = SLACK.headers
    assert refusal("slack", (signature,)) is Reason.TIMESTAMP_MISSING
    assert refusal("slack", ((time[0], b"1769121838"), signature)) is Reason.NOT_VERIFIED
    assert refusal("slack", ((time[0], b"1769121000"), signature)) is Reason.TIMESTAMP_TOO_OLD
    assert refusal("slack", (time, (signature[0], signature[1].replace(b"v0=", b"v1=")))) is Reason.PREFIX_MISSING

"""What the head of a request decides before its body is read: the same as the whole verification, for any body."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter
from support.signed_requests import (
    ALL,
    GENERAL,
    NOW,
    OF_PRESETS,
    STANDARD,
    STANDARD_BODY,
    STANDARD_SECRETS,
    SignedRequest,
)

from pipeline.contracts import Headers
from pipeline.webhooks.verification import Reason, Scheme, SchemeSpec, Secret, SignatureRefused, scheme_of

ADAPTER: TypeAdapter[Any] = TypeAdapter(SchemeSpec)
TIMED = [one for one in ALL if "header:" in str(one.scheme.get("timestamp")) or one.scheme.get("timestamp") == "field"]
INSIDE = [one for one in GENERAL if str(one.scheme.get("timestamp")).startswith("json:")]
SHARED = {"scheme": "shared-secret", "header": "X-Token", "prefix": "Bearer "}


def scheme(request: SignedRequest, **dates: Any) -> Scheme:
    return scheme_of(ADAPTER.validate_python(request.scheme), [Secret("current", SecretStr(request.secret), **dates)])


def of_head(tried: Scheme, headers: Headers, now: Any = NOW) -> Reason | None:
    try:
        tried.check_head(headers, now)
    except SignatureRefused as refused:
        return refused.reason
    return None


def of_whole(tried: Scheme, headers: Headers, body: bytes, now: Any = NOW) -> Reason | None:
    try:
        tried.verify(headers, body, now)
    except SignatureRefused as refused:
        return refused.reason
    return None


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_the_head_of_an_authentic_request_passes(request_: SignedRequest) -> None:
    assert of_head(scheme(request_), request_.headers) is None


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_only_the_body_shows_that_a_well_formed_signature_is_wrong(request_: SignedRequest) -> None:
    """The ingress then reads the body, and the whole verification refuses it."""
    other = scheme_of(
        ADAPTER.validate_python(request_.scheme), [Secret("other", SecretStr("AAAA" if request_.key else "other"))]
    )
    assert of_head(other, request_.headers) is None
    assert of_whole(other, request_.headers, request_.body) is Reason.NOT_VERIFIED


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_a_head_without_a_signature_or_with_a_malformed_one_is_refused(request_: SignedRequest) -> None:
    tried, signature = scheme(request_), request_.signature.encode()
    without = tuple(one for one in request_.headers if signature not in one[1])
    malformed = tuple((name, value.replace(signature, signature[:-5])) for name, value in request_.headers)
    twice = (*request_.headers, *(one for one in request_.headers if signature in one[1]))
    assert of_head(tried, without) is Reason.HEADER_MISSING
    assert of_head(tried, malformed) is Reason.SIGNATURE_MALFORMED
    assert of_head(tried, twice) is Reason.HEADER_REPEATED


@pytest.mark.parametrize("request_", [*TIMED, *STANDARD], ids=str)
def test_the_time_in_a_head_decides_without_the_body(request_: SignedRequest) -> None:
    tried, day = scheme(request_), timedelta(days=1)
    assert of_head(tried, request_.headers, NOW + day) is Reason.TIMESTAMP_TOO_OLD
    assert of_head(tried, request_.headers, NOW - day) is Reason.TIMESTAMP_IN_FUTURE


@pytest.mark.parametrize("request_", INSIDE, ids=str)
def test_a_time_inside_the_body_is_left_to_the_whole_verification(request_: SignedRequest) -> None:
    tried, later = scheme(request_), NOW + timedelta(days=1)
    assert of_head(tried, request_.headers, later) is None
    assert of_whole(tried, request_.headers, request_.body, later) is Reason.TIMESTAMP_TOO_OLD


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_without_an_active_secret_the_head_is_refused_as_our_own_fault(request_: SignedRequest) -> None:
    assert of_head(scheme(request_, not_after=NOW), request_.headers) is Reason.NO_ACTIVE_SECRET


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Bearer right-secret", None),
        (b"Bearer wrong-secret", Reason.NOT_VERIFIED),
        (b"Bearer ", Reason.NOT_VERIFIED),
        (b"right-secret", Reason.PREFIX_MISSING),
        (None, Reason.HEADER_MISSING),
    ],
)
def test_the_head_decides_about_a_shared_secret_completely(value: bytes | None, expected: Reason | None) -> None:
    tried = scheme_of(ADAPTER.validate_python(SHARED), [Secret("current", SecretStr("right-secret"))])
    assert of_head(tried, () if value is None else (("X-Token", value),)) is expected


def test_a_header_that_is_signed_must_be_in_the_head() -> None:
    spec = ADAPTER.validate_python({"scheme": "hmac", "header": "X-Sig", "signed": ["header:X-Id", "body"]})
    tried = scheme_of(spec, [Secret("current", SecretStr("k"))])
    assert of_head(tried, (("X-Sig", b"0" * 64),)) is Reason.HEADER_MISSING
    assert of_head(tried, (("X-Sig", b"0" * 64), ("X-Id", b""))) is None


@given(data=st.data())
def test_the_head_refuses_what_the_whole_verification_refuses_for_the_same_reason(data: st.DataObject) -> None:
    """Law: whatever happens to the headers, a reason that the body has no part in is found in the head already."""
    request = data.draw(st.sampled_from([*ALL, *OF_PRESETS.values()]))
    headers: list[tuple[str, bytes]] = []
    for name, value in request.headers:
        other = data.draw(st.sampled_from([value, value[:-1], value + b",", b" " + value, b"", value.upper(), None]))
        headers += [(name, other)] * data.draw(st.sampled_from([1, 1, 1, 2])) if other is not None else []
    now = NOW + timedelta(seconds=data.draw(st.sampled_from([0, 0, 0, 100_000, -100_000])))
    tried = scheme(request)
    whole = of_whole(tried, tuple(headers), request.body, now)
    left = {Reason.NOT_VERIFIED}
    if request in INSIDE:
        left |= {Reason.TIMESTAMP_TOO_OLD, Reason.TIMESTAMP_IN_FUTURE}
    assert of_head(tried, tuple(headers), now) is (None if whole in left else whole)


def test_the_three_headers_of_standard_webhooks_are_checked_in_the_head() -> None:
    tried = scheme_of(ADAPTER.validate_python({"scheme": "standard-webhooks"}), [_standard_secret()])
    headers = STANDARD[0].headers
    assert [of_head(tried, tuple(one for one in headers if one[0] != name)) for name, _ in headers] == [
        Reason.HEADER_MISSING,
        Reason.TIMESTAMP_MISSING,
        Reason.HEADER_MISSING,
    ]
    assert of_head(tried, (("webhook-id", b"a.b"), *headers[1:])) is Reason.ID_MALFORMED
    assert of_whole(tried, headers, STANDARD_BODY) is None


def _standard_secret() -> Secret:
    return Secret("current", SecretStr(STANDARD_SECRETS[0]))

"""Finding out how a sender applies its secret: what is found verifies, and nothing secret is shown."""

from __future__ import annotations

import base64
import hashlib
import hmac
import tomllib
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter
from support.signed_requests import API_KEY, BODY, GENERAL, LEGACY, NOW, OF_PRESETS, OF_WEAVR, STANDARD, SignedRequest

from pipeline.contracts import Headers
from pipeline.webhooks.verification import Match, SchemeSpec, Secret, discover, scheme_of

ADAPTER: TypeAdapter[Any] = TypeAdapter(SchemeSpec)
KEY = "0123456789abcdef"
STAMP = b"1769121839"
OTHER = Secret("other", SecretStr("another-secret"))
SECRET = Secret("current", SecretStr(KEY))


def found(request: SignedRequest) -> list[Match]:
    return discover(request.headers, request.body, NOW, [OTHER, Secret("current", SecretStr(request.secret))])


def signed(message: bytes, key: bytes = KEY.encode()) -> bytes:
    return hmac.new(key, message, hashlib.sha256).hexdigest().encode()


def the_one(headers: Headers, body: bytes = BODY) -> dict[str, Any]:
    """Return the settings of the one match, which verify the request when they are read as a user's settings are."""
    (match,) = discover(headers, body, NOW, [OTHER, SECRET])
    assert match.secret == "current"
    table = tomllib.loads(match.toml)
    assert scheme_of(ADAPTER.validate_python(table), [SECRET]).verify(headers, body, NOW) == "current"
    return table


@pytest.mark.parametrize("name", sorted(OF_PRESETS))
def test_each_preset_is_recognised(name: str) -> None:
    """It comes first. Senders that sign alike follow: nothing of a request tells them apart for certain."""
    match, *others = found(OF_PRESETS[name])
    assert (match.name, match.preset, match.secret, match.remark) == (f"preset {name}", name, "current", "")
    assert all(other.toml == match.toml for other in others)


@pytest.mark.parametrize("request_", OF_WEAVR, ids=str)
def test_weavrs_signature_is_recognised(request_: SignedRequest) -> None:
    (match,) = found(request_)
    assert (match.name, match.preset) == ("weavr", None)
    assert tomllib.loads(match.toml) == {
        "scheme": "hmac",
        "header": "signature-v2",
        "encoding": "base64",
        "signed": ["header?:call-ref", "body", "timestamp"],
        "timestamp": "header:published-timestamp",
        "timestamp_unit": "ms",
        "tolerance_seconds": 18000.0,
    }


def test_weavrs_deprecated_signature_is_recognised_with_what_it_is_worth() -> None:
    (match,) = found(LEGACY)
    assert (match.name, match.remark) == ("weavr legacy", "the signature proves nothing about the body")


@pytest.mark.parametrize("request_", STANDARD, ids=str)
def test_standard_webhooks_are_recognised(request_: SignedRequest) -> None:
    (match,) = found(request_)
    assert (match.name, match.toml) == ("standard-webhooks", 'scheme = "standard-webhooks"\n')


def test_standard_webhooks_are_recognised_behind_other_names_of_headers() -> None:
    request = STANDARD[0]
    headers = tuple((name.replace("webhook", "X-Shop"), value) for name, value in request.headers)
    (match,) = discover(headers, request.body, NOW, [Secret("current", SecretStr(request.secret))])
    assert tomllib.loads(match.toml) == {"scheme": "standard-webhooks", "header_prefix": "x-shop"}


@pytest.mark.parametrize("request_", GENERAL, ids=str)
def test_general_requests_are_recognised(request_: SignedRequest) -> None:
    """A time inside the body is not looked for: without it too the body verifies."""
    (match,) = found(request_)
    table = tomllib.loads(match.toml)
    assert {key: table[key] for key in ("signed", "key") if key in request_.scheme} == {
        key: [*value] if isinstance(value, tuple) else value
        for key, value in request_.scheme.items()
        if key in {"signed", "key"}
    }


@pytest.mark.parametrize("prefix", ["", "Bearer ", "secret="])
def test_the_secret_itself_is_found_in_any_header(prefix: str) -> None:
    (match,) = discover((("Host", b"x"), ("X-Any", f"{prefix}{KEY}".encode())), BODY, NOW, [OTHER, SECRET])
    expected = {"scheme": "shared-secret", "header": "X-Any"} | ({"prefix": prefix} if prefix else {})
    assert tomllib.loads(match.toml) == expected
    assert match.remark == "the header proves nothing about the body"


@given(
    between=st.sampled_from(["", ".", ":", "|", "\n", "-"]),
    order=st.permutations(["id", "time", "body"]),
    with_id=st.booleans(),
    with_time=st.booleans(),
    prefix=st.sampled_from(["", "sha256=", "HMAC "]),
    encoding=st.sampled_from(["hex", "base64"]),
    hash_name=st.sampled_from(["sha1", "sha256", "sha512"]),
    writing=st.sampled_from(["text", "hex", "base64"]),
)
def test_whatever_is_on_the_list_is_found(
    *,
    between: str,
    order: list[str],
    with_id: bool,
    with_time: bool,
    prefix: str,
    encoding: str,
    hash_name: str,
    writing: str,
) -> None:
    """Law: a request signed in one of the tried ways is explained by settings that verify it."""
    parts = {"id": b"d-77", "time": STAMP, "body": BODY}
    used = {"id": with_id, "time": with_time, "body": True}
    message = between.encode().join(parts[one] for one in order if used[one])
    key = {"text": KEY.encode(), "hex": bytes.fromhex(KEY), "base64": base64.b64decode(KEY)}[writing]
    digest = hmac.new(key, message, hash_name).digest()
    written = digest.hex().encode() if encoding == "hex" else base64.b64encode(digest)
    table = the_one((("X-Delivery-Id", b"d-77"), ("X-Time", STAMP), ("X-Check", prefix.encode() + written)))
    expected = {"id": "header:X-Delivery-Id", "time": "timestamp", "body": "body"}
    assert [one for one in table["signed"] if not one.startswith("text:")] == [
        expected[one] for one in order if used[one]
    ]


@pytest.mark.parametrize("between", [b",", b", ", b" ", b" , ", b"\t,\t"])
def test_the_first_of_several_signatures_is_looked_into(between: bytes) -> None:
    for prefix in (b"", b"HMAC "):
        value = prefix + signed(BODY) + between + prefix + b"0" * 64
        expected = {"prefix": "HMAC "} if prefix else {}
        table = {"scheme": "hmac", "header": "X-Check", "hash": "sha256", "encoding": "hex", "signed": ["body"]}
        assert the_one((("X-Check", value),)) == table | expected


def test_no_signature_is_taken_for_a_part_of_the_prefix() -> None:
    """Of a list in which only the second signature matches, nothing is found: a prefix never holds a signature."""
    first = base64.b64encode(bytes(20))
    second = base64.b64encode(hmac.new(KEY.encode(), BODY, hashlib.sha1).digest())
    for between in (b" HMAC ", b", "):
        assert discover((("X-Check", first + between + second),), BODY, NOW, [SECRET]) == []


def test_fields_with_blanks_around_their_commas_are_looked_into() -> None:
    value = b"t=" + STAMP + b" , v1=" + signed(STAMP + b"." + BODY) + b", v1=" + b"0" * 64
    table = the_one((("X-Check", value.replace(b", v1=" + b"0" * 64, b"")),))
    assert table["fields"] == {"signature": "v1", "separator": ",", "timestamp": "t"}


def test_fields_of_a_header_are_looked_into() -> None:
    value = b"ts=" + STAMP + b";h0=" + b"0" * 64 + b";h1=" + signed(STAMP + b":" + BODY)
    assert the_one((("X-Check", value),)) == {
        "scheme": "hmac",
        "header": "X-Check",
        "fields": {"signature": "h1", "separator": ";", "timestamp": "ts"},
        "hash": "sha256",
        "encoding": "hex",
        "signed": ["timestamp", "text::", "body"],
        "timestamp": "field",
        "timestamp_unit": "s",
    }


def test_a_request_that_is_too_old_by_now_is_recognised_and_remarked() -> None:
    stripe = OF_PRESETS["stripe"]
    secret = Secret("old", SecretStr(stripe.secret), not_after=NOW)
    (match,) = discover(stripe.headers, stripe.body, NOW + timedelta(days=1), [secret])
    assert (match.secret, match.remark) == ("old", "The timestamp is 86401.0 s old, 300 s are allowed")


@pytest.mark.parametrize("headers", [(), (("X-Check", signed(b"something else")),), (("X-Check", b"\xff" * 64),)])
def test_what_nothing_explains_has_no_match(headers: Headers) -> None:
    assert discover(headers, BODY, NOW, [OTHER, SECRET]) == []


def test_a_match_holds_nothing_secret() -> None:
    """Not even where a sender repeats the secret before itself or before the signature: that cannot be configured."""
    headers = (
        ("X-Twice", f"{API_KEY} {API_KEY}".encode()),
        ("X-Before", f"{API_KEY} ".encode() + signed(BODY, API_KEY.encode())),
        ("X-Check", signed(BODY, API_KEY.encode())),
        ("X-Plain", API_KEY.encode()),
    )
    matches = discover(headers, BODY, NOW, [Secret("current", SecretStr(API_KEY))])
    assert [tomllib.loads(match.toml)["header"] for match in matches] == ["X-Plain", "X-Check"]
    assert API_KEY not in repr([match.document() for match in matches])


def test_a_repeated_header_explains_nothing() -> None:
    check = ("X-Check", signed(BODY))
    assert discover((check, check), BODY, NOW, [SECRET]) == []


def test_headers_that_settings_cannot_name_are_passed_over() -> None:
    headers = (("X_Check", signed(BODY)), ("X_Plain", KEY.encode()), ("traceparent", signed(BODY)))
    assert discover(headers, BODY, NOW, [SECRET]) == []

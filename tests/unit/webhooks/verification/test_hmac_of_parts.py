"""The HMAC scheme, against vectors that openssl computed (printf '%s' BODY | openssl dgst -sha256 -hmac KEY)."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pipeline.contracts import Headers
from pipeline.errors import FatalError
from pipeline.webhooks.verification import WEAVR, Fault, HmacSpec, Reason, Secret, SignatureRefused, scheme_of

BODY = b'{"job_guid":"cffde776-1d2a-4614-8023-a5148e411462","record_count":200}'
KEY = "whsec-synthetic-1"
HEX = {
    "sha1": "946172cf0458e3ce3115d8a48814ce0be15302e6",
    "sha256": "74f1d27521f376b6325e34348a5c5699891b0e0d8a53142d7dab6d130b3b076f",
    "sha512": "92bfe69197fb468fe17582838d7c51ed0e05142d455450f1ba0c113eebfac53a"
    "6dc3ef83ba9211525ff59cda0aa15bd38ed11c91717efe64a360be52815d1c8d",
}
BASE64 = {
    "sha1": "lGFyzwRY484xFdikiBTOC+FTAuY=",
    "sha256": "dPHSdSHzdrYyXjQ0ilxWmYkbDg2KUxQtfattEws7B28=",
    "sha512": "kr/mkZf7Ro/hdYKDjXxR7Q4FFC1FVFDxugwRPuv6xTptw++DupIRUl/1nNoKoVvTjtEckXF+/mSjYL5SgV0cjQ==",
}
OVER_SECONDS = "b44665ee76ad61573a0ce098990a33338c6b200d5309408221a6564e478be196"  # 1769121839 "." BODY
OVER_MILLISECONDS = "BmN0Cf45Bby4y++FuKuEMMYnPcx7I+TLKvU3dEc4c54="  # 1769121839295 BODY
NOW = datetime.fromtimestamp(1769121839, UTC)


def _secret(value: str = KEY, id_: str = "current", **dates: datetime) -> Secret:
    return Secret(id_, SecretStr(value), **dates)


def _verify(headers: Headers, *secrets: Secret, body: bytes = BODY, now: datetime = NOW, **settings: Any) -> str:
    spec = HmacSpec.model_validate({"scheme": "hmac", "header": "X-Sig"} | settings)
    return scheme_of(spec, secrets or (_secret(),)).verify(headers, body, now)


def _refusal(headers: Headers, *secrets: Secret, **arguments: Any) -> Reason:
    with pytest.raises(SignatureRefused) as caught:
        _verify(headers, *secrets, **arguments)
    assert caught.value.code == caught.value.reason.value
    return caught.value.reason


@pytest.mark.parametrize("hash_name", sorted(HEX))
def test_hex_signature_of_each_hash_verifies(hash_name: str) -> None:
    headers = (("X-Sig", HEX[hash_name].encode()),)
    assert _verify(headers, hash=hash_name) == "current"


@pytest.mark.parametrize("hash_name", sorted(BASE64))
def test_base64_signature_of_each_hash_verifies(hash_name: str) -> None:
    headers = (("X-Sig", BASE64[hash_name].encode()),)
    assert _verify(headers, hash=hash_name, encoding="base64") == "current"


def test_hex_may_be_written_in_upper_case_and_the_header_name_in_any() -> None:
    assert _verify((("x-sIG", HEX["sha256"].upper().encode()),)) == "current"


def test_prefix_is_required_exactly() -> None:
    signature = HEX["sha256"]
    assert _verify((("X-Sig", f"sha256={signature}".encode()),), prefix="sha256=") == "current"
    assert _refusal((("X-Sig", signature.encode()),), prefix="sha256=") is Reason.PREFIX_MISSING
    assert _refusal((("X-Sig", f"SHA256={signature}".encode()),), prefix="sha256=") is Reason.PREFIX_MISSING


def test_base64_has_one_spelling_only() -> None:
    """A changed last character that decodes to the same bytes is another signature."""
    other = BASE64["sha256"].replace("28=", "29=")
    assert _refusal((("X-Sig", other.encode()),), encoding="base64") is Reason.NOT_VERIFIED


@pytest.mark.parametrize("value", [b"", b"74f1", HEX["sha256"].encode() + b"0", b" " + HEX["sha256"].encode()])
def test_signature_of_another_length_is_malformed(value: bytes) -> None:
    assert _refusal((("X-Sig", value),)) is Reason.SIGNATURE_MALFORMED


def test_bytes_that_are_no_ascii_are_refused_like_any_wrong_signature() -> None:
    """The reason is `signature_malformed`."""
    assert _refusal((("X-Sig", b"\xff" * 64),)) is Reason.SIGNATURE_MALFORMED


def test_missing_header_is_named_in_the_reason() -> None:
    assert _refusal((("X-Other", HEX["sha256"].encode()),)) is Reason.HEADER_MISSING


def test_repeated_header_is_refused_even_when_both_are_right() -> None:
    right = ("X-Sig", HEX["sha256"].encode())
    assert _refusal((right, ("x-sig", right[1]))) is Reason.HEADER_REPEATED


def test_one_changed_byte_of_the_body_is_not_verified() -> None:
    assert _refusal((("X-Sig", HEX["sha256"].encode()),), body=BODY + b" ") is Reason.NOT_VERIFIED


@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_active_secret_is_tried_and_the_one_that_matched_is_named(index: int) -> None:
    secrets = [_secret(f"other-{number}", f"s{number}") for number in range(3)]
    secrets[index] = _secret(KEY, f"s{index}")
    assert _verify((("X-Sig", HEX["sha256"].encode()),), *secrets) == f"s{index}"


def test_first_of_two_equal_secrets_is_named() -> None:
    assert _verify((("X-Sig", HEX["sha256"].encode()),), _secret(id_="a"), _secret(id_="b")) == "a"


def test_secret_counts_from_not_before_until_just_before_not_after() -> None:
    headers: Headers = (("X-Sig", HEX["sha256"].encode()),)
    second = timedelta(seconds=1)
    secret = _secret(not_before=NOW, not_after=NOW + second)
    assert _verify(headers, secret) == "current"
    assert _refusal(headers, secret, _secret("else"), now=NOW + second) is Reason.NOT_VERIFIED
    assert _refusal(headers, secret, _secret("else"), now=NOW - second) is Reason.NOT_VERIFIED


def test_without_any_active_secret_the_fault_is_ours_whatever_was_sent() -> None:
    expired = _secret(not_after=NOW)
    assert _refusal((), expired) is Reason.NO_ACTIVE_SECRET
    assert Reason.NO_ACTIVE_SECRET.fault is Fault.CONFIGURATION
    ours = {reason for reason in Reason if reason.fault is Fault.CONFIGURATION}
    assert ours == {Reason.NO_ACTIVE_SECRET, Reason.UNSIGNED_PATH}


TIMED: dict[str, Any] = {"signed": ["timestamp", "text:.", "body"], "timestamp": "header:X-Time"}
JOINED: dict[str, Any] = {"signed": ["timestamp", "body"], "timestamp": "header:X-Time"}


def _timed(timestamp: bytes, signature: str = OVER_SECONDS) -> Headers:
    return (("X-Time", timestamp), ("X-Sig", signature.encode()))


def test_timestamp_separator_and_body_are_signed() -> None:
    assert _verify(_timed(b"1769121839"), **TIMED) == "current"
    assert _refusal(_timed(b"1769121840"), **TIMED) is Reason.NOT_VERIFIED
    assert _refusal(_timed(b"1769121839"), **JOINED) is Reason.NOT_VERIFIED


def test_milliseconds_without_separator_in_base64() -> None:
    headers = _timed(b"1769121839295", OVER_MILLISECONDS)
    assert _verify(headers, **JOINED, timestamp_unit="ms", encoding="base64") == "current"


def test_timestamp_text_is_signed_as_received() -> None:
    """A leading zero does not change the number, but it does change what was signed."""
    assert _refusal(_timed(b"01769121839"), **TIMED) is Reason.NOT_VERIFIED


@pytest.mark.parametrize("seconds", [-300, 300])
def test_tolerance_includes_its_limits(seconds: int) -> None:
    assert _verify(_timed(b"1769121839"), now=NOW + timedelta(seconds=seconds), **TIMED) == "current"


@pytest.mark.parametrize(
    ("seconds", "reason"), [(300.5, Reason.TIMESTAMP_TOO_OLD), (-300.5, Reason.TIMESTAMP_IN_FUTURE)]
)
def test_timestamp_beyond_the_tolerance_is_refused(seconds: float, reason: Reason) -> None:
    assert _refusal(_timed(b"1769121839"), now=NOW + timedelta(seconds=seconds), **TIMED) is reason


@pytest.mark.parametrize("text", [b"", b"-1", b"1.5", b"1e9", b" 1769121839", "١٢".encode(), b"1" * 19])
def test_timestamp_that_is_no_number_is_malformed(text: bytes) -> None:
    assert _refusal(_timed(text), **TIMED) is Reason.TIMESTAMP_MALFORMED


def test_timestamp_missing_or_repeated() -> None:
    signature = ("X-Sig", OVER_SECONDS.encode())
    time = ("X-Time", b"1769121839")
    assert _refusal((signature,), **TIMED) is Reason.TIMESTAMP_MISSING
    assert _refusal((signature, time, time), **TIMED) is Reason.TIMESTAMP_REPEATED


def test_headers_to_store_are_those_that_a_subscriber_needs() -> None:
    spec = HmacSpec.model_validate({"scheme": "hmac", "header": "X-Sig"} | TIMED)
    assert scheme_of(spec, [_secret()]).stored_headers == {"x-sig", "x-time"}


def test_the_error_holds_neither_secret_nor_signature() -> None:
    with pytest.raises(SignatureRefused) as caught:
        _verify((("X-Sig", HEX["sha256"].encode()),), body=b"other")
    assert KEY not in f"{caught.value!r}{_secret()!r}"
    assert HEX["sha256"] not in f"{caught.value!r}"


def _inside(document: bytes, pointer: str, **settings: Any) -> Reason | str:
    """Return by which secret a body is verified whose time stands inside, or why it is refused."""
    signature = hmac.new(KEY.encode(), document, hashlib.sha256).hexdigest().encode()
    try:
        return _verify((("X-Sig", signature),), body=document, timestamp=f"json:{pointer}", **settings)
    except SignatureRefused as refused:
        return refused.reason


@pytest.mark.parametrize(
    ("document", "pointer", "expected"),
    [
        (b'{"at":1769121839}', "/at", "current"),
        (b'{"at":"1769121839"}', "/at", "current"),
        (b'{"list":[{"at":1769121839}]}', "/list/0/at", "current"),
        (b'{"at":1769121000}', "/at", Reason.TIMESTAMP_TOO_OLD),
        (b'{"at":1769129999}', "/at", Reason.TIMESTAMP_IN_FUTURE),
        (b'{"at":1769121839.5}', "/at", Reason.TIMESTAMP_MALFORMED),
        (b'{"at":true}', "/at", Reason.TIMESTAMP_MALFORMED),
        (b'{"at":null}', "/at", Reason.TIMESTAMP_MALFORMED),
        (b'{"at":"\\ud800"}', "/at", Reason.TIMESTAMP_MALFORMED),
        (b'{"at":-1}', "/at", Reason.TIMESTAMP_MALFORMED),
        (b"{}", "/at", Reason.TIMESTAMP_MISSING),
        (b"[1]", "/at", Reason.TIMESTAMP_MISSING),
        (b"no json", "/at", Reason.TIMESTAMP_MISSING),
        (b"\xff", "/at", Reason.TIMESTAMP_MISSING),
        (b"", "/at", Reason.TIMESTAMP_MISSING),
        (b"[" * 200_000, "/at", Reason.TIMESTAMP_MISSING),
        (b'{"at":' + b"1" * 5000 + b"}", "/at", Reason.TIMESTAMP_MISSING),
    ],
)
def test_the_age_of_a_time_inside_the_body_is_checked_too(
    document: bytes, pointer: str, expected: Reason | str
) -> None:
    assert _inside(document, pointer) == expected


def test_a_body_is_parsed_only_when_it_is_authentic() -> None:
    """A body is parsed only when it is authentic: a time inside decides nothing before."""
    headers: Headers = (("X-Sig", b"0" * 64),)
    for document in (b"no json", b'{"at":1}'):
        assert _refusal(headers, body=document, timestamp="json:/at") is Reason.NOT_VERIFIED


@pytest.mark.parametrize(
    "text",
    [
        b"2026-01-22T22:43:59",
        b"2026-01-22 22:43:59Z",
        b"2026-01-22",
        b"2026-01-22T22:43:59z",
        b"2026-01-22T22:43:60Z",
        b"2026-13-22T22:43:59Z",
        b"0000-01-01T00:00:00Z",
        b"2026-W04-4T22:43:59Z",
        b"20260122T224359Z",
        b" 2026-01-22T22:43:59Z",
        b"2026-01-22T22:43:59+25:00",
        b"1769121839",
    ],
)
def test_a_moment_without_a_zone_or_written_otherwise_is_malformed(text: bytes) -> None:
    assert _refusal(_timed(text), **TIMED, timestamp_unit="iso8601") is Reason.TIMESTAMP_MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        b"2026-01-22T22:43:59Z",
        b"2026-01-22T22:43:59.123456789Z",
        b"2026-01-23T00:43:59+02:00",
        b"2026-01-23T00:43:59+0200",
        b"2026-01-22T20:43:59-02:00",
    ],
)
def test_zones_and_fractions_of_a_moment_are_understood(text: bytes) -> None:
    """Zones and fractions of a moment are understood: fresh, so that the signature decides."""
    assert _refusal(_timed(text), **TIMED, timestamp_unit="iso8601", tolerance_seconds=1) is Reason.NOT_VERIFIED


def test_headers_are_signed_in_their_order_and_needed_unless_marked() -> None:
    headers = (("X-A", b"1"), ("x-b", b"\xe9 2"))
    message = b"1|\xe9 2" + BODY
    signature = ("X-Sig", hmac.new(KEY.encode(), message, hashlib.sha256).hexdigest().encode())
    signed: dict[str, Any] = {"signed": ["header:x-a", "text:|", "header?:X-B", "body"]}
    assert _verify((*headers, signature), **signed) == "current"
    assert _refusal((headers[1], signature), **signed) is Reason.HEADER_MISSING
    assert _refusal((headers[0], signature), **signed) is Reason.NOT_VERIFIED
    assert _refusal((*headers, ("X-B", b"\xe9 2"), signature), **signed) is Reason.HEADER_REPEATED


def test_fields_may_be_parted_by_semicolons_behind_a_prefix() -> None:
    fields = {"signature": "h1", "timestamp": "ts", "separator": ";"}
    settings: dict[str, Any] = {
        "fields": fields,
        "signed": ["timestamp", "text:.", "body"],
        "timestamp": "field",
        "prefix": "V ",
    }
    value = f"V ts=1769121839;h1={OVER_SECONDS}".encode()
    assert _verify((("X-Sig", value),), **settings) == "current"
    assert _refusal((("X-Sig", value.replace(b";", b",")),), **settings) is Reason.SIGNATURE_MISSING
    assert _refusal((("X-Sig", value[2:]),), **settings) is Reason.PREFIX_MISSING


@pytest.mark.parametrize(
    ("writing", "value"), [("hex", "abc"), ("hex", "zz"), ("hex", "é"), ("base64", "a"), ("base64", "a-_b")]
)
def test_a_secret_that_is_written_otherwise_is_named_when_the_scheme_is_built(writing: str, value: str) -> None:
    """The error shows the secret's name and not its value."""
    with pytest.raises(FatalError) as caught:
        _verify((), _secret(value), key=writing)
    assert caught.value.code == "secret_malformed"
    assert caught.value.message == f"The secret 'current' is not written in {writing}, as its scheme says"


def test_all_headers_that_are_read_are_stored() -> None:
    assert scheme_of(WEAVR, []).stored_headers == {"signature-v2", "published-timestamp", "call-ref"}


@given(body=st.binary(max_size=200), forged=st.text("0123456789abcdef", min_size=64, max_size=64))
def test_no_signature_but_the_right_one_verifies(body: bytes, forged: str) -> None:
    """Law: a random signature does not verify a random body."""
    assert _refusal((("X-Sig", forged.encode()),), body=body) is Reason.NOT_VERIFIED

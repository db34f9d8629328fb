"""Signatures against AWS's published example and against an implementation written apart from ours."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sandbox.sigv4 import Credentials, canonical_request, decode_query, encode_query, presign, sign

AWS_EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
AT = datetime(2013, 5, 24, tzinfo=UTC)


def test_the_example_of_the_aws_documentation() -> None:
    """GET test.txt of the page "Authenticating Requests: Using Query Parameters": the URL, to the last digit."""
    url = presign("GET", "examplebucket.s3.amazonaws.com", "/test.txt", credentials=AWS_EXAMPLE, now=AT, expires=86_400)
    assert url == (
        "https://examplebucket.s3.amazonaws.com/test.txt"
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        "&X-Amz-SignedHeaders=host"
    )


def test_the_canonical_request_of_the_aws_documentation() -> None:
    """The intermediate text of the same example, word for word."""
    query = decode_query(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    )
    text = canonical_request("GET", "/test.txt", query, {"host": "examplebucket.s3.amazonaws.com"}, ("host",))
    assert text == (
        "GET\n/test.txt\n"
        "X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\n"
        "host:examplebucket.s3.amazonaws.com\n\nhost\nUNSIGNED-PAYLOAD"
    )
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "3bfa292879f6447bbcda7001decf97f4a54dc650c8942174ae0a9121cf58ad04"
    )


def signature_again(method: str, url: str, credentials: Credentials) -> str:
    """The signature by the procedure's text, straight down, sharing nothing with the code under test."""
    parts = urlsplit(url)
    pairs = [(n, v) for n, v in parse_qsl(parts.query, keep_blank_values=True) if n != "X-Amz-Signature"]
    stamp = dict(pairs)["X-Amz-Date"]
    query = "&".join(sorted(quote(n, safe="~") + "=" + quote(v, safe="~") for n, v in pairs))
    request = f"{method}\n{parts.path}\n{query}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    scope = stamp[:8] + "/" + credentials.region + "/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = ("AWS4" + credentials.secret_key).encode()
    for word in scope.split("/"):
        key = hmac.new(key, word.encode(), "sha256").digest()
    return hmac.new(key, to_sign.encode(), "sha256").hexdigest()


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_urls_of_ecs_kind_carry_the_signature_of_an_independent_procedure(method: str) -> None:
    """With all the parameters that ECS's SDK adds."""
    extra = (
        ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
        ("x-amz-checksum-crc32", "AAAAAA=="),
        ("x-amz-sdk-checksum-algorithm", "CRC32"),
        ("x-id", "PutObject"),
    )
    url = presign(
        method,
        "127.0.0.1:9",
        "/bucket/a b/ä.csv",
        credentials=AWS_EXAMPLE,
        now=AT,
        expires=60,
        extra=extra,
        scheme="http",
    )
    assert "x-amz-checksum-crc32=AAAAAA%3D%3D" in url
    assert dict(decode_query(urlsplit(url).query))["X-Amz-Signature"] == signature_again(method, url, AWS_EXAMPLE)


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=6))
def test_queries_survive_encoding(pairs: list[tuple[str, str]]) -> None:
    """Decoding gives back what was encoded."""
    pairs = [(n.encode("utf-8", "ignore").decode(), v.encode("utf-8", "ignore").decode()) for n, v in pairs]
    pairs = [(n, v) for n, v in pairs if n]
    assert decode_query(encode_query(pairs)) == pairs


def test_region_and_day_and_secret_all_change_the_signature() -> None:
    """Each part of the scope counts."""
    text = "anything"
    signatures = {
        sign(Credentials("A", "s"), "20260101T000000Z", text),
        sign(Credentials("A", "t"), "20260101T000000Z", text),
        sign(Credentials("A", "s", region="eu-west-1"), "20260101T000000Z", text),
        sign(Credentials("A", "s"), "20260102T000000Z", text),
        sign(Credentials("A", "s"), "20260101T000001Z", text),
    }
    assert len(signatures) == 5

"""Bodies as senders compress, mark and wrap them; and what is not readable."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import ENCODING_HEADER, Headers, Record
from pipeline.contracts.bodies import (
    BodyTooLarge,
    UnreadableBody,
    encoding_of,
    json_of,
    json_value,
    plain_body,
    plain_value,
    says_json,
)
from pipeline.contracts.strict_json import InvalidBody

BODY = b'{"type": "a.b"}'
PACKED = gzip.compress(BODY, mtime=0)
FORM = "application/x-www-form-urlencoded"


def raw_deflate(body: bytes) -> bytes:
    """Deflate without the zlib wrapper, as some senders write it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def encodings(*values: bytes) -> Headers:
    return tuple((ENCODING_HEADER, value) for value in values)


@pytest.mark.parametrize(
    ("headers", "body", "encoding"),
    [
        ((), PACKED, ""),
        (encodings(b"gzip"), PACKED, "gzip"),
        (encodings(b" X-GZip "), PACKED, "gzip"),
        (encodings(b"gzip"), BODY, ""),
        (encodings(b"gzip"), b"", ""),
        (encodings(b"identity, gzip"), PACKED, "gzip"),
        (encodings(b"identity"), BODY, ""),
        (encodings(b""), BODY, ""),
        (encodings(b"UTF-8"), BODY, ""),
        (encodings(b"utf8", b"none"), BODY, ""),
        (encodings(b"deflate"), BODY, "deflate"),
        (encodings(b"br"), BODY, "br"),
        (encodings(b"gzip, gzip"), PACKED, "gzip, gzip"),
        (encodings(b"gzip", b"br"), PACKED, "gzip, br"),
        (encodings(b"4111 1111 1111 1111"), BODY, "unknown"),
        (encodings(b"x" * 21), BODY, "unknown"),
        (encodings(b"\xff"), BODY, "unknown"),
    ],
)
def test_the_headers_name_the_encoding_and_the_bytes_confirm_it(headers: Headers, body: bytes, encoding: str) -> None:
    assert encoding_of(headers, body) == encoding


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (BODY, ""),
        (PACKED, "gzip"),
        (gzip.compress(BODY[:4], mtime=0) + gzip.compress(BODY[4:], mtime=0), "gzip"),
        (PACKED + bytes(10), "gzip"),
        (zlib.compress(BODY), "deflate"),
        (raw_deflate(BODY), "deflate"),
    ],
)
def test_a_body_without_its_encoding(body: bytes, encoding: str) -> None:
    assert plain_body(body, encoding) == BODY


@pytest.mark.parametrize(
    ("body", "encoding", "rule"),
    [
        (PACKED[:-1], "gzip", "encoding_broken"),
        (PACKED[:-8] + bytes(8), "gzip", "encoding_broken"),
        (PACKED + b"more", "gzip", "encoding_broken"),
        (PACKED * 65, "gzip", "encoding_broken"),
        (b"", "gzip", "encoding_broken"),
        (b"", "deflate", "encoding_broken"),
        (BODY, "deflate", "encoding_broken"),
        (zlib.compress(BODY)[:-1], "deflate", "encoding_broken"),
        (BODY, "br", "content_encoding"),
        (PACKED, "gzip, gzip", "content_encoding"),
    ],
)
def test_an_encoding_that_cannot_be_removed(body: bytes, encoding: str, rule: str) -> None:
    with pytest.raises(UnreadableBody) as raised:
        plain_body(body, encoding)
    (finding,) = raised.value.findings
    assert (finding.field, finding.rule) == ("", rule)


def test_expansion_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(1 << 20), mtime=0)
    assert len(plain_body(bomb, "gzip", 1 << 20)) == 1 << 20
    with pytest.raises(BodyTooLarge, match="body_too_large"):
        plain_body(bomb, "gzip", (1 << 20) - 1)
    with pytest.raises(BodyTooLarge):
        plain_body(gzip.compress(bytes(600), mtime=0) * 2, "gzip", 1000)


@pytest.mark.parametrize(
    ("body", "content_type", "found"),
    [
        (b"\xef\xbb\xbf{}", "application/json", b"{}"),
        (b"payload=%7B%22a%22%3A+1%7D", FORM, b'{"a": 1}'),
        (b"payload=%EF%BB%BF%7B%7D", f"{FORM}; charset=utf-8", b"{}"),
        (b"payload=text", FORM, b'{"payload": "text"}'),
        (b"a=1&b=%7B%7D", FORM, b'{"a": "1", "b": "{}"}'),
        (b"a=1&a=2&c", FORM, b'{"a": ["1", "2"], "c": ""}'),
        (b"", FORM, b"{}"),
        (b' {"a": 1}', FORM, b' {"a": 1}'),
        (b"payload=%7B%7D", "text/plain", b"payload=%7B%7D"),
    ],
)
def test_the_json_in_a_body(body: bytes, content_type: str, found: bytes) -> None:
    assert json_of(body, content_type) == found


@pytest.mark.parametrize(
    ("body", "rule"),
    [(b"payload=%FF", "not_utf8"), (b"a=\xff", "not_utf8"), (b"&".join([b"a=1"] * 1001), "too_many")],
)
def test_a_form_that_cannot_be_read(body: bytes, rule: str) -> None:
    with pytest.raises(InvalidBody) as raised:
        json_of(body, FORM)
    assert [finding.rule for finding in raised.value.findings] == [rule]


@pytest.mark.parametrize(
    ("content_type", "says"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.api+json", True),
        (FORM, True),
        ("text/plain", False),
        ("application/octet-stream", False),
    ],
)
def test_which_media_types_promise_json(content_type: str, says: bool) -> None:  # noqa: FBT001 - the expected answer
    assert says_json(content_type) is says


def test_a_record_says_how_its_value_is_read() -> None:
    form = gzip.compress(b"payload=%7B%22a%22%3A1%7D", mtime=0)
    headers = (("content-type", FORM.encode()), (ENCODING_HEADER, b"gzip"))
    record = Record("webhook-events.code", 0, 0, "code", form, headers, 0)
    assert plain_value(record) == b"payload=%7B%22a%22%3A1%7D"
    assert json.loads(json_value(record)) == {"a": 1}


@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "deflate", "br"]), st.sampled_from(["", FORM]))
def test_any_bytes_are_read_or_refused(body: bytes, encoding: str, content_type: str) -> None:
    with contextlib.suppress(InvalidBody):
        assert len(plain_body(body, encoding, 1000)) <= max(1000, len(body))
        json_of(plain_body(body, encoding, 1000), content_type)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(_TEXT, _TEXT, min_size=2))
def test_a_form_reads_as_it_was_written(fields: dict[str, str]) -> None:
    assert json.loads(json_of(urlencode(fields).encode(), FORM)) == fields

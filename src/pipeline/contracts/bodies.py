"""Reading a stored body: its content encoding, its form encoding, a byte order mark. Pure.

A record's value is the body as received. Its headers ``content-type`` and ``content-encoding`` say how to read it.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Final
from urllib.parse import parse_qsl

from pipeline.contracts.headers import ENCODING_HEADER, Headers
from pipeline.contracts.records import Record
from pipeline.contracts.strict_json import Finding, InvalidBody

LARGEST_BODY: Final = 16_777_216
"""Maximum size of a decoded body in bytes: the largest allowed value of ``ingress.max_body_bytes``."""

FORM: Final = "application/x-www-form-urlencoded"

_GZIP_MAGIC: Final = b"\x1f\x8b"
_MOST_MEMBERS: Final = 64
"""Maximum number of gzip members of one body. Each member costs a copy of the rest, and no sender needs many."""
_MOST_FIELDS: Final = 1000
_NO_ENCODING: Final = frozenset({"", "identity", "none", "utf-8", "utf8"})
"""Values of Content-Encoding that mean no encoding. The last two are charsets, which some senders write there."""
_SAME: Final = {"x-gzip": "gzip"}
_TOKEN: Final = re.compile(r"[a-z0-9-]{1,20}")
_BOMS: Final = re.compile(rb"(?:\xef\xbb\xbf)*")


class UnreadableBody(InvalidBody):
    """A body whose content encoding is unknown, damaged or cut off."""


class BodyTooLarge(InvalidBody):
    """A body that is larger than allowed after decoding."""

    def __init__(self, most: int) -> None:
        super().__init__([Finding("", "body_too_large", f"Send a body of at most {most} bytes before compression")])


def encoding_of(headers: Headers, body: bytes) -> str:
    """Return the encoding of a body: ``gzip``, ``deflate``, the name of another encoding, or empty for none.

    For gzip, the first bytes decide: some proxies expand a body and leave the header unchanged.

    Args:
        headers: The request's headers, with names in lower case.
        body: As received.
    """
    encodings = named_encodings(headers)
    return "" if encodings == ["gzip"] and not body.startswith(_GZIP_MAGIC) else ", ".join(encodings)


def named_encodings(headers: Headers) -> list[str]:
    """Return the encodings in all Content-Encoding headers, without those that mean no encoding."""
    values = [value for name, value in headers if name == ENCODING_HEADER]
    if not values:
        return []
    named = [one.strip() for value in values for one in value.decode("latin-1").lower().split(",")]
    encodings = [_SAME.get(one, one) for one in named if one not in _NO_ENCODING]
    return [one if _TOKEN.fullmatch(one) else "unknown" for one in encodings]


def plain_body(body: bytes, encoding: str, most: int = LARGEST_BODY) -> bytes:
    """Return a decoded body. Stops decoding after ``most`` bytes.

    Args:
        body: As received.
        encoding: The result of :func:`encoding_of`; if empty, the body is returned unchanged.
        most: Largest size in bytes after decoding.

    Raises:
        UnreadableBody: The encoding is unknown, or the data is damaged or ends too early.
        BodyTooLarge: It expands to more than ``most`` bytes.
    """
    if not encoding:
        return body
    if encoding == "gzip":
        return _expanded(body, 16 + zlib.MAX_WBITS, most)
    if encoding == "deflate":
        wrapped = int.from_bytes(body[:2]) % 31 == 0 and body[:1] and body[0] & 0x0F == zlib.DEFLATED
        return _expanded(body, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, most)
    raise UnreadableBody([Finding("", "content_encoding", "Send the body with Content-Encoding gzip, or without any")])


def _expanded(body: bytes, window_bits: int, most: int) -> bytes:
    pieces: list[bytes] = []
    left = most
    for _ in range(_MOST_MEMBERS):
        decoder = zlib.decompressobj(window_bits)
        try:
            piece = decoder.decompress(body, left + 1)
        except zlib.error:
            break
        if len(piece) > left:
            raise BodyTooLarge(most)
        left -= len(piece)
        pieces.append(piece)
        if not decoder.eof:
            break
        body = decoder.unused_data
        if not body.strip(b"\0"):
            return b"".join(pieces)
    raise UnreadableBody([Finding("", "encoding_broken", "Send the whole body: its data are damaged or cut off")])


def media_type_of(content_type: str) -> str:
    """Return the media type in lower case, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def says_json(content_type: str) -> bool:
    """Return whether a body of this type holds JSON: it is JSON, or a form."""
    if content_type == "application/json":
        return True  # almost every body: no parameters to parse
    media_type = media_type_of(content_type)
    return media_type in {"application/json", FORM} or media_type.endswith("+json")


def json_of(body: bytes, content_type: str) -> bytes:
    """Return the JSON text in a decoded body. It does not check that the text is valid JSON.

    It removes byte order marks at the beginning. A form with one field that holds a JSON object, as GitHub and Slack
    send it, becomes that object. Any other form becomes an object of its fields: strings, and lists of strings for
    repeated names. A body that begins like a JSON object is JSON even if its type says form, which curl sends.

    Raises:
        InvalidBody: The form cannot be read.
    """
    if body.startswith(b"{"):
        return body
    body = _without_marks(body)
    if media_type_of(content_type) != FORM or body.lstrip().startswith(b"{"):
        return body
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except UnicodeDecodeError:
        raise InvalidBody([Finding("", "not_utf8", "Encode the body as UTF-8")]) from None
    except ValueError:
        raise InvalidBody([Finding("", "too_many", f"Send a form of at most {_MOST_FIELDS} fields")]) from None
    if len(fields) == 1 and fields[0][1].lstrip("\ufeff \t\r\n").startswith("{"):
        return _without_marks(fields[0][1].encode())
    found: dict[str, list[str]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    return json.dumps({name: values if len(values) > 1 else values[0] for name, values in found.items()}).encode()


def _without_marks(body: bytes) -> bytes:
    marks = _BOMS.match(body)
    return body[marks.end() :] if marks else body


def plain_value(record: Record) -> bytes:
    """Return a record's decoded value; raise InvalidBody if it cannot be decoded."""
    return plain_body(record.value, _text(record, ENCODING_HEADER))


def json_value(record: Record) -> bytes:
    """Return the JSON text in a record's value. It does not check that the text is valid JSON.

    Raises:
        InvalidBody: Its content encoding or its form cannot be read.
    """
    if ENCODING_HEADER not in record.named and record.value.startswith(b"{"):
        return record.value  # almost every body: plain JSON
    return json_of(plain_value(record), _text(record, "content-type"))


def _text(record: Record, header: str) -> str:
    return record.named.get(header, b"").decode("utf-8", "replace")

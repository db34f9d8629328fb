"""Bytes that arrive on a connection, well-formed or not, and what each connection is answered."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Final

import pytest
from structlog.testing import capture_logs
from support.exchange import Answered, exchange
from support.inputs_page import answers

from pipeline.contracts import OutgoingRecord, Topic
from pipeline.kafka.testing import MemoryPublisher
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.testing import SECRET, Serving, serving

CARD: Final = b"4111111111111111"
"""It is in every request, and in nothing that leaves the ingress."""
PATIENT: Final = IngressSettings(port=0, max_body_bytes=2048)
IMPATIENT: Final = PATIENT.model_copy(update={"read_timeout_seconds": 0.3, "idle_timeout_seconds": 0.4})
"""For the cases that end by a timeout."""
PATH: Final = b"/webhooks/ecs/acme"
BODY: Final = json.dumps(
    {
        "job_guid": "cffde776-1d2a-4614-8023-a5148e411462",
        "partner_reference_id": "location-002",
        "merchant_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
        "external_location_ids": ["46691"],
        "record_count": 200,
        "input_file_url": "https://files.example.com/input.csv",
        "result_upload_url": "https://files.example.com/output.csv",
        "expires_at": "2026-01-22T22:43:59.295Z",
        "callback_url": "https://ecs.example.com/told",
        "note": CARD.decode(),
    }
).encode()
SIZE: Final = str(len(BODY)).encode()
HOST: Final = b"Host: here"
TYPE: Final = b"Content-Type: application/json"
SECRET_HEADER: Final = b"X-Webhook-Secret: " + SECRET.encode()
LENGTH: Final = b"Content-Length: " + SIZE
CHUNKED: Final = b"Transfer-Encoding: chunked"


@dataclass(frozen=True, slots=True)
class Case:
    """What one sender sends, and what it gets.

    Attributes:
        answers: Status and rule of each answer, in order; none: the connection is closed without one.
        pieces: What is sent, one piece after the other.
        half_close: The sender ends its side at once behind the last piece.
        slow: The broker takes a moment.
    """

    answers: tuple[str, ...]
    pieces: tuple[bytes, ...]
    half_close: bool = False
    slow: bool = False

    @property
    def times_out(self) -> bool:
        """Whether a timeout of the ingress ends the connection."""
        return not self.answers or self.answers[-1] == "408 body_timeout"


def line(method: bytes = b"POST", target: bytes = PATH, version: bytes = b"HTTP/1.1") -> bytes:
    return method + b" " + target + b" " + version


def request(
    first: bytes = line(),
    *more: bytes,
    host: bytes | None = HOST,
    type_: bytes | None = TYPE,
    secret: bytes | None = SECRET_HEADER,
    length: bytes | None = LENGTH,
    body: bytes = BODY,
    end: bytes = b"\r\n",
) -> bytes:
    """A good request, but for what is given."""
    headers = [one for one in (host, type_, secret, b"X-Note: " + CARD, *more, length) if one is not None]
    return end.join([first, *headers, b"", b""]) + body


def chunked(body: bytes, *more: bytes, secret: bytes | None = SECRET_HEADER) -> bytes:
    return request(line(), *more, secret=secret, length=CHUNKED, body=body)


def chunk(size: bytes = b"%x" % len(BODY), behind: bytes = b"\r\n", last: bytes = b"0\r\n\r\n") -> bytes:
    """The body as one chunk and the last one."""
    return size + b"\r\n" + BODY + behind + last


def sent(answer: str, *pieces: bytes) -> Case:
    return Case(tuple(answer.split(", ")) if answer else (), pieces)


def empty(method: bytes, target: bytes = PATH) -> bytes:
    return request(line(method, target), length=b"Content-Length: 0", body=b"")


def with_length(value: bytes) -> bytes:
    return request(length=b"Content-Length: " + value)


def with_coding(value: bytes) -> bytes:
    return request(length=b"Transfer-Encoding: " + value, body=chunk())


def with_type(value: bytes) -> bytes:
    return request(type_=b"Content-Type: " + value)


OK: Final = "202"
BAD: Final = "400 malformed"
NO_PATH: Final = "404 unknown_path"
NO_METHOD: Final = "405 method_not_allowed"
NO_TYPE: Final = "415 content_type"
NO_CODING: Final = "415 content_encoding"
NO_SECRET: Final = "401 unauthenticated"

CASES: Final[dict[str, Case]] = {
    # the request line
    "plain": sent(OK, request()),
    "http-1-0": sent(OK, request(line(version=b"HTTP/1.0"))),
    "http-1-0-keep-alive": sent(OK, request(line(version=b"HTTP/1.0"), b"Connection: keep-alive")),
    "http-1-2": sent(BAD, request(line(version=b"HTTP/1.2"))),
    "http-0-9": sent(BAD, request(line(version=b"HTTP/0.9"))),
    "http-2-0": sent(BAD, request(line(version=b"HTTP/2.0"))),
    "version-missing": sent(BAD, request(b"POST " + PATH)),
    "version-in-small-letters": sent(BAD, request(line(version=b"http/1.1"))),
    "version-of-one-digit": sent(BAD, request(line(version=b"HTTP/1"))),
    "http-2-preface": sent(BAD, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + CARD),
    "line-with-tabs": sent(BAD, request(b"POST\t" + PATH + b"\tHTTP/1.1")),
    "line-with-two-blanks": sent(OK, request(b"POST  " + PATH + b" HTTP/1.1")),
    "line-with-blank-at-the-end": sent(BAD, request(line() + b" ")),
    "line-behind-a-blank": sent(BAD, b" " + request()),
    "line-behind-empty-lines": sent(OK, b"\r\n" * 50 + request()),
    "lines-end-with-lf": sent(BAD, request(end=b"\n")),
    "lines-end-with-cr": sent(BAD, request(end=b"\r")),
    "method-in-small-letters": sent(BAD, request(line(b"post"))),
    "method-unknown": sent(BAD, request(line(b"BREW"))),
    "method-empty": sent(BAD, request(b" " + PATH + b" HTTP/1.1")),
    "method-get": sent(NO_METHOD, empty(b"GET")),
    "method-head": sent("405", empty(b"HEAD")),
    "method-options": sent(NO_METHOD, empty(b"OPTIONS")),
    "method-put": sent(NO_METHOD, empty(b"PUT")),
    "method-delete": sent(NO_METHOD, empty(b"DELETE")),
    "method-trace": sent(NO_METHOD, empty(b"TRACE")),
    "method-override": sent(NO_METHOD, request(line(b"GET"), b"X-HTTP-Method-Override: POST")),
    "method-get-of-an-unknown-path": sent(NO_PATH, empty(b"GET", b"/" + CARD)),
    "method-connect": sent(NO_PATH, empty(b"CONNECT", b"here:443")),
    # the target
    "target-absolute": sent(OK, request(line(target=b"http://here" + PATH))),
    "target-asterisk": sent(NO_PATH, empty(b"OPTIONS", b"*")),
    "target-with-query": sent(OK, request(line(target=PATH + b"?card=" + CARD))),
    "target-with-fragment": sent(OK, request(line(target=PATH + b"#" + CARD))),
    "target-percent-encoded": sent(OK, request(line(target=b"/webhooks/%65cs/acme"))),
    "target-with-encoded-slash": sent(OK, request(line(target=b"/webhooks/ecs%2Facme"))),
    "target-with-dots": sent(NO_PATH, request(line(target=b"/webhooks/ecs/../ecs/acme"))),
    "target-with-two-slashes": sent(NO_PATH, request(line(target=b"/" + PATH))),
    "target-with-slash-at-the-end": sent(NO_PATH, request(line(target=PATH + b"/"))),
    "target-in-capitals": sent(NO_PATH, request(line(target=b"/Webhooks/ecs/acme"))),
    "target-with-parameter": sent(NO_PATH, request(line(target=PATH + b";v=1"))),
    "target-with-encoded-line-end": sent(NO_PATH, request(line(target=PATH + b"%0d%0aX-Injected:1"))),
    "target-with-nul": sent(BAD, request(line(target=PATH + b"\x00"))),
    "target-of-8000": sent(NO_PATH, request(line(target=b"/" + b"a" * 8000))),
    "target-of-9000": sent(BAD, request(line(target=b"/" + b"a" * 9000))),
    "target-relative": sent(BAD, request(line(target=PATH[1:]))),
    # headers
    "host-missing": sent(BAD, request(host=None)),
    "host-twice": sent(BAD, request(line(), HOST)),
    "host-empty": sent(OK, request(host=b"Host:")),
    "header-with-blank-before-colon": sent(BAD, request(line(), b"X-A : b")),
    "header-folded": sent(BAD, request(line(), b"X-A: b\r\n c")),
    "header-without-name": sent(BAD, request(line(), b": b")),
    "header-without-colon": sent(BAD, request(line(), b"X-A")),
    "header-with-nul": sent(BAD, request(line(), b"X-A: b\x00c")),
    "header-with-cr": sent(BAD, request(line(), b"X-A: b\rX-Injected: c")),
    "header-with-lf": sent(BAD, request(line(), b"X-A: b\nX-Injected: c")),
    "header-with-high-bytes": sent(OK, request(line(), b"X-A: \xff\xfe")),
    "header-of-8190": sent(OK, request(line(), b"X-A: " + b"a" * 8185)),
    "header-of-9000": sent(BAD, request(line(), b"X-A: " + b"a" * 8995)),
    "headers-128": sent(OK, request(line(), *(b"X-%d: b" % number for number in range(123)))),
    "headers-129": sent(BAD, request(line(), *(b"X-%d: b" % number for number in range(124)))),
    "type-missing": sent(NO_TYPE, request(type_=None)),
    "type-twice": sent(BAD, request(line(), TYPE)),
    "type-in-capitals": sent(OK, with_type(b"APPLICATION/JSON")),
    "type-with-quoted-charset": sent(OK, with_type(b'application/json; charset="UTF-8"')),
    "type-with-open-parameter": sent(OK, with_type(b"application/json;")),
    "type-with-utf8": sent(OK, with_type(b"application/json; charset=utf8")),
    "type-with-latin-1": sent(NO_TYPE, with_type(b"application/json; charset=iso-8859-1")),
    "type-with-two-charsets": sent(NO_TYPE, with_type(b"application/json; charset=utf-8; charset=utf-16")),
    "type-text-json": sent(NO_TYPE, with_type(b"text/json")),
    "type-list": sent(NO_TYPE, with_type(b"application/json, text/plain")),
    "encoding-identity": sent(OK, request(line(), b"Content-Encoding: identity")),
    "encoding-utf-8": sent(OK, request(line(), b"Content-Encoding: utf-8")),
    "encoding-gzip-of-plain-bytes": sent(NO_CODING, request(line(), b"Content-Encoding: gzip")),
    "encoding-brotli": sent(NO_CODING, request(line(), b"Content-Encoding: br")),
    "expect-continue": sent(OK, request(line(), b"Expect: 100-continue")),
    "expect-something-else": sent(OK, request(line(), b"Expect: the-unexpected")),
    "upgrade-to-websocket": sent(
        OK, request(line(), b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
    ),
    "upgrade-to-http-2": sent(OK, request(line(), b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c")),
    "forwarded-for-rubbish": sent(OK, request(line(), b"X-Forwarded-For: " + CARD + b", \xff, ,,")),
    "traceparent-rubbish": sent(OK, request(line(), b"traceparent: 00-" + CARD)),
    "secret-missing": sent(NO_SECRET, request(secret=None)),
    "secret-twice": sent(NO_SECRET, request(line(), SECRET_HEADER)),
    "secret-in-the-query": sent(NO_SECRET, request(line(target=PATH + b"?secret=" + SECRET.encode()), secret=None)),
    "secret-with-underscores": sent(NO_SECRET, request(secret=b"X_Webhook_Secret: " + SECRET.encode())),
    "secret-with-blanks-around": sent(OK, request(secret=b"x-webhook-secret: \t" + SECRET.encode() + b" \t")),
    "secret-beyond-ascii": sent(NO_SECRET, request(secret=SECRET_HEADER + b"\xff")),
    # the length of the body
    "length-missing": sent("422 not_json", request(length=None, body=b"")),
    "length-missing-with-body": sent(BAD, request(length=None)),
    "length-with-leading-zeros": sent(OK, with_length(b"00" + SIZE)),
    "length-with-plus": sent(BAD, with_length(b"+" + SIZE)),
    "length-negative": sent(BAD, with_length(b"-1")),
    "length-in-hex": sent(BAD, with_length(b"0x7")),
    "length-with-underscore": sent(BAD, with_length(b"1_0")),
    "length-beyond-64-bits": sent(BAD, with_length(b"18446744073709551616")),
    "length-list": sent(BAD, with_length(SIZE + b", " + SIZE)),
    "length-twice": sent(BAD, request(line(), LENGTH)),
    "length-too-short": sent(BAD, request() + CARD + b"\r\n\r\n"),
    "length-too-long": sent("408 body_timeout", with_length(b"%d" % (len(BODY) + 1))),
    "length-at-the-limit": sent("422 not_json", request(length=b"Content-Length: 2048", body=b" " * 2048)),
    "length-beyond-the-limit": sent("413 body_too_large", request(length=b"Content-Length: 2049", body=b" " * 2049)),
    "length-and-chunks": sent(BAD, chunked(chunk(), LENGTH)),
    # chunks
    "chunks": sent(OK, chunked(chunk())),
    "chunks-of-one-byte": sent(OK, chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n")),
    "chunks-in-capitals": sent(OK, with_coding(b"CHUNKED")),
    "chunks-twice": sent(BAD, with_coding(b"chunked, chunked")),
    "chunks-behind-gzip": sent(BAD, with_coding(b"gzip, chunked")),
    "chunks-before-gzip": sent(BAD, with_coding(b"chunked, gzip")),
    "chunks-unknown-coding": sent(BAD, with_coding(b"xchunked")),
    "chunks-identity": sent(BAD, with_coding(b"identity")),
    "chunk-size-with-zeros": sent(OK, chunked(chunk(b"0000%x" % len(BODY)))),
    "chunk-size-in-capitals": sent(OK, chunked(chunk(b"%X" % len(BODY)))),
    "chunk-with-extension": sent(OK, chunked(chunk(b'%x;a="b;c"' % len(BODY)))),
    "chunk-with-long-extension": sent(OK, chunked(chunk(b"%x;" % len(BODY) + b"a" * 9000))),
    "chunk-size-negative": sent(BAD, chunked(chunk(b"-%x" % len(BODY)))),
    "chunk-size-with-prefix": sent(BAD, chunked(chunk(b"0x%x" % len(BODY)))),
    "chunk-size-behind-a-blank": sent(BAD, chunked(chunk(b" %x" % len(BODY)))),
    "chunk-size-beyond-64-bits": sent(BAD, chunked(chunk(b"f" * 17))),
    "chunk-size-missing": sent(BAD, chunked(chunk(b""))),
    "chunk-longer-than-its-size": sent(BAD, chunked(chunk(behind=b"x\r\n"))),
    "chunk-lines-end-with-lf": sent(BAD, chunked(b"%x\n" % len(BODY) + BODY + b"\n0\n\n")),
    "chunk-without-the-last-one": sent("408 body_timeout", chunked(chunk(last=b""))),
    "trailer": sent(OK, chunked(chunk(last=b"0\r\nX-Sum: " + CARD + b"\r\n\r\n"))),
    "trailer-with-the-secret": sent(
        NO_SECRET, chunked(chunk(last=b"0\r\n" + SECRET_HEADER + b"\r\n\r\n"), secret=None)
    ),
    "trailer-with-a-length": sent(BAD, chunked(chunk(last=b"0\r\nContent-Length: 3\r\n\r\n"))),
    # connections
    "two-requests-in-one-packet": sent(f"{OK}, {OK}", request() * 2),
    "byte-by-byte": sent(OK, *(bytes([byte]) for byte in request()[:60]), request()[60:]),
    "half-closed": Case((OK,), (request(),), half_close=True, slow=True),
    "half-closed-behind-two": Case((OK, OK), (request(), request()), half_close=True, slow=True),
    "half-closed-in-the-body": Case(("400 body_incomplete",), (request()[:-1],), half_close=True),
    "half-closed-in-the-chunks": Case(("400 body_incomplete",), (chunked(chunk(last=b"")),), half_close=True),
    "half-closed-in-the-head": Case((), (request()[:60],), half_close=True),
    "head-never-ends": sent("", request()[:60]),
    "nothing": sent(""),
    "only-line-ends": sent("", b"\r\n\r\n\r\n"),
    "tls": sent(BAD, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + CARD),
    "ssh": sent(BAD, b"SSH-2.0-OpenSSH_9.6 " + CARD + b"\r\n"),
    "smtp": sent(BAD, b"EHLO " + CARD + b"\r\n"),
    "kafka": sent(BAD, b"\x00\x00\x00\x14\x00\x12\x00\x00\x00\x00\x00\x01\x00\x04" + CARD),
    "redis": sent(BAD, b"*1\r\n$16\r\n" + CARD + b"\r\n"),
    "proxy-protocol": sent(BAD, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + request()),
    "all-bytes": sent(BAD, bytes(range(256)) + CARD),
}

PROMISED: Final = answers("http-requests")


@pytest.mark.parametrize("name", CASES)
async def test_the_connection_gets_the_promised_answers(name: str) -> None:
    """No request is stored without a 202, none is answered 202 without being stored, and no received byte is shown."""
    case = CASES[name]
    publisher = MemoryPublisher(before=_slowly) if case.slow else MemoryPublisher()
    with capture_logs() as logs:
        async with serving(publisher, settings=IMPATIENT if case.times_out else PATIENT) as here:
            found = await exchange(here, case.pieces, len(case.answers), half_close=case.half_close)
            assert tuple(map(str, found)) == case.answers
            assert _stored(publisher) == [BODY] * case.answers.count(OK)
            await _serves_still(here)
    for answer in found:
        _shows_nothing(answer)
    assert CARD.decode() not in str(logs)


async def _slowly(_: OutgoingRecord) -> None:
    await asyncio.sleep(0.1)


def _stored(publisher: MemoryPublisher) -> list[bytes | None]:
    """What reached the topic of announcements; what is refused with 422 reaches the quarantine instead."""
    return [record.value for record in publisher.on(Topic.BATCH_REQUESTED)]


async def _serves_still(here: Serving) -> None:
    """Nothing of the connection is left, and the next sender is served."""
    async with asyncio.timeout(2):
        await here.ingress.limits.idle()
    (answer,) = await exchange(here, [request(line(), b"Connection: close")], 1)
    assert str(answer) == OK


def _shows_nothing(answer: Answered) -> None:
    assert b"\r\nServer: card-pipeline\r\n" in answer.head
    assert (b"\r\nAllow: POST\r\n" in answer.head) == (answer.status == 405)
    assert (b"\r\nWWW-Authenticate: Webhook\r\n" in answer.head) == (answer.status == 401)
    assert CARD not in answer.head + answer.body
    assert b"X-Injected" not in answer.head
    assert not re.search(rb"Traceback|aiohttp|Python|\.py\b", answer.head + answer.body)


@pytest.mark.parametrize("name", CASES)
def test_the_page_promises_these_answers(name: str) -> None:
    assert tuple(re.findall(r"`([^`]*)`", PROMISED[name])) == CASES[name].answers

"""What no HTTP client would send."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.contracts import Topic
from pipeline.kafka.testing import MemoryPublisher
from pipeline.webhooks.capture import Capture, ask, captured_file, read_captured
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.testing import API_KEY, SECRET, Serving, serving, weavr_webhook

SMALL = IngressSettings(port=0, max_body_bytes=1024, read_timeout_seconds=0.04)
HEAD = (
    b"POST /webhooks/ecs/acme HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    b"X-Webhook-Secret: " + SECRET.encode() + b"\r\n"
)


async def _sent(here: Serving, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send the pieces, read until the server closes or has answered once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(here.server.url.rpartition(":")[2]))
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            return head + await reader.readexactly(int(length.partition(b":")[2]))
    finally:
        writer.close()
        await writer.wait_closed()


def _problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head
    document = json.loads(body)
    assert isinstance(document, dict)
    assert head.split()[1].decode() == str(document["status"])
    return document


async def test_body_that_comes_too_slowly_is_408() -> None:
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        answer = await _sent(here, HEAD + b"Content-Length: 100\r\n\r\n", b"{", pause=0.01)
        assert _problem(answer)["rule"] == "body_timeout"
        assert _problem(answer)["status"] == 408
        assert b"Connection: close" in answer


async def test_steady_trickle_does_not_extend_the_time() -> None:
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        answer = await _sent(here, HEAD + b"Content-Length: 100\r\n\r\n", *[b" "] * 8, pause=0.01)
        assert _problem(answer)["status"] == 408


async def test_chunked_body_is_cut_off_at_the_limit() -> None:
    chunk = b"200\r\n" + b" " * 512 + b"\r\n"
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        answer = await _sent(here, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk, b"1\r\n \r\n")
        assert (_problem(answer)["status"], _problem(answer)["rule"]) == (413, "body_too_large")


async def test_chunked_body_within_the_limit_is_read() -> None:
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        answer = await _sent(here, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\n{}\r\n", b"0\r\n\r\n")
        assert _problem(answer)["status"] == 422


async def test_a_head_without_the_secret_is_refused_before_its_body() -> None:
    """It is 401 at once, without 100 Continue, and the connection is closed."""
    async with serving(MemoryPublisher(), settings=SMALL.model_copy(update={"read_timeout_seconds": 60.0})) as here:
        head = HEAD.replace(SECRET.encode(), b"wrong")
        answer = await _sent(here, head + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        assert _problem(answer)["status"] == 401
        assert b"Connection: close" in answer
        assert here.ingress.limits.requests.unused


async def test_a_capture_gets_the_body_of_a_request_that_its_head_refuses(tmp_path: Path) -> None:
    """A person who captures requests needs them whole."""
    now = datetime(2026, 1, 22, tzinfo=UTC)
    wanted = ask(tmp_path, "ecs.acme", until=now + timedelta(minutes=1), limit=10)
    capture = Capture(tmp_path, clock=lambda: now)
    capture.poll()
    async with serving(MemoryPublisher(), capture=capture, clock=lambda: now) as here:
        head = HEAD.replace(SECRET.encode(), b"wrong")
        answer = await _sent(here, head + b"Content-Length: 2\r\n\r\n", b"{}", pause=0.01)
        assert _problem(answer)["status"] == 401
    (refused,) = read_captured(captured_file(tmp_path, wanted))
    assert refused.request.body == b"{}"


async def test_announced_oversize_is_refused_before_the_body_and_without_continue() -> None:
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        answer = await _sent(here, HEAD + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")


async def test_sender_that_waits_for_continue_gets_it() -> None:
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(here.server.url.rpartition(":")[2]))
        writer.write(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"{}")
            assert (await reader.readline()).startswith(b"HTTP/1.1 422 ")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "chunks", [b"zz\r\n{}\r\n", b"2\r\n{}!\r\n0\r\n\r\n", b"-2\r\n{}\r\n"], ids=["size", "end", "negative"]
)
async def test_broken_chunks_are_400(chunks: bytes) -> None:
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        answer = await _sent(here, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert _problem(answer)["status"] == 400


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"hello\r\n\r\n",
        HEAD.replace(b"POST", b"BREW") + b"\r\n",
        HEAD + HEAD.partition(b"\r\n")[2] + b"Content-Length: 0\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 2x\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"X-Long: " + b"4" * 9000 + b"\r\n\r\n",
        HEAD + b"4111 1111: x\r\n\r\n",
        HEAD + b"Many: x\r\n" * 200 + b"\r\n",
    ],
    ids=["tls", "word", "method", "twice", "negative", "no-number", "two-lengths", "smuggling", "long", "name", "many"],
)
async def test_malformed_request_is_400_without_an_echo(request_: bytes) -> None:
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        answer = await _sent(here, request_)
        assert _problem(answer)["rule"] == "malformed"
        assert b"4111" not in answer
        assert b"4444" not in answer
        labels = {"integration": "unknown", "status": "400", "reason": "malformed"}
        assert here.metrics.registry.get_sample_value("pipeline_ingress_requests_total", labels) == 1


async def test_garbage_behind_a_good_request_is_refused_too() -> None:
    """Each answer is a problem document, the last one a 400; then the connection is closed."""
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(here.server.url.rpartition(":")[2]))
        writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
        writer.write(b"\x00garbage\r\n\r\n")
        async with asyncio.timeout(5):
            everything = await reader.read()
        writer.close()
        await writer.wait_closed()
        answers = [line for line in everything.split(b"\r\n") if line.startswith(b"HTTP/1.")]
        assert answers[-1].endswith(b" 400 Bad Request")
        assert everything.count(b"application/problem+json") == len(answers)


async def test_two_requests_in_one_packet_are_both_answered() -> None:
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(here.server.url.rpartition(":")[2]))
        one = HEAD + b"Content-Length: 2\r\n\r\n{}"
        writer.write(one + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        async with asyncio.timeout(5):
            everything = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert everything.count(b"HTTP/1.1 422 ") == 2


async def test_sender_that_goes_away_in_mid_body_leaves_nothing_behind() -> None:
    publisher = MemoryPublisher()
    settings = SMALL.model_copy(update={"read_timeout_seconds": 5.0})
    async with serving(publisher, settings=settings) as here:
        _, writer = await asyncio.open_connection("127.0.0.1", int(here.server.url.rpartition(":")[2]))
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(5):
            await here.ingress.limits.idle()
        labels = {"integration": "acme", "status": "400", "reason": "body_incomplete"}
        assert here.metrics.registry.get_sample_value("pipeline_ingress_requests_total", labels) == 1
    assert publisher.published == []


async def test_connection_without_a_request_is_closed() -> None:
    async with serving(MemoryPublisher(), settings=SMALL.model_copy(update={"idle_timeout_seconds": 0.03})) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(here.server.url.rpartition(":")[2]))
        writer.write(b"POST /webh")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("target", [b"*", b"//", b"/%ff%00", b"http://elsewhere/webhooks", b"/" + b"a" * 8000])
async def test_odd_targets_are_unknown_paths(target: bytes) -> None:
    async with serving(MemoryPublisher(), settings=SMALL) as here:
        answer = await _sent(here, b"OPTIONS " + target + b" HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n")
        assert _problem(answer)["status"] == 404


NOW = datetime(2026, 1, 22, 22, 44, tzinfo=UTC)
TIME = str(int(NOW.timestamp() * 1000)).encode()
WEAVR = b"POST /webhooks/weavr/acme/novelties/watch HTTP/1.1\r\nHost: here\r\n"
EVENT = b'{"note": "Zo\xc3\xab"}'
SIZED = b"Content-Length: 16\r\n\r\n" + EVENT
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def _signed(call_ref: bytes = b"") -> bytes:
    digest = hmac.digest(API_KEY.encode(), call_ref + EVENT + TIME, "sha256")
    return b"signature-v2: " + base64.b64encode(digest) + b"\r\nPUBLISHED-TIMESTAMP: " + TIME + b"\r\n"


async def _weavr(*pieces: bytes, publisher: MemoryPublisher | None = None, pause: float = 0.0) -> int:
    """Return the status that a request to a Weavr webhook is answered."""
    webhooks = [weavr_webhook()]
    async with serving(publisher or MemoryPublisher(), webhooks=webhooks, settings=SMALL, clock=lambda: NOW) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(here.server.url.rpartition(":")[2]))
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause)
        async with asyncio.timeout(5):
            line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return int(line.split()[1])


@pytest.mark.parametrize(
    ("head", "call_ref"),
    [
        (b"", b""),
        (b"call-ref:\r\n", b""),
        (b"call-ref: \t \r\n", b""),
        (b"CALL-REF: ref-1\r\n", b"ref-1"),
        (b"call-ref:ref-1\r\n", b"ref-1"),
        (b"call-ref:  ref 1 \t\r\n", b"ref 1"),
        (b"call-ref: Zo\xeb\r\n", b"Zo\xeb"),
        (b"call-ref: Zo\xc3\xab\r\n", b"Zo\xc3\xab"),
        (b"call-ref: " + b"r" * 255 + b"\r\n", b"r" * 255),
        (b"call-ref: 0042\r\n", b"0042"),
    ],
)
async def test_a_call_ref_is_signed_as_its_bytes_came(head: bytes, call_ref: bytes) -> None:
    """Names in any case; whitespace around a value is no part of it (RFC 9110, section 5.5)."""
    publisher = MemoryPublisher()
    assert await _weavr(WEAVR + head + _signed(call_ref) + SIZED, publisher=publisher) == 204
    record = publisher.published[0]
    assert (record.topic, record.value) == (Topic.EVENTS_QUARANTINE, EVENT)
    assert dict(record.headers).get("call-ref", b"") == call_ref


@pytest.mark.parametrize(
    "head",
    [
        b"call-ref: ref-1\r\ncall-ref: ref-1\r\n",
        b"call-ref: ref-1\r\nCall-Ref: other\r\n",
        b"call-ref: ref-1\r\npublished-timestamp: " + TIME + b"\r\n",
        b"call-ref: ref-1\r\nSignature-V2: AAAA\r\n",
    ],
    ids=["call-ref", "another-call-ref", "time", "signature"],
)
async def test_a_repeated_header_is_401(head: bytes) -> None:
    """Two programs on the way may each look at another one."""
    assert await _weavr(WEAVR + head + _signed(b"ref-1") + SIZED) == 401


@pytest.mark.parametrize(
    "head",
    [
        b"call-ref: ref\x00-1\r\n",
        b"call-ref: ref\r\n -1\r\n",
        b"call-ref : ref-1\r\n",
        b"call-ref: " + b"r" * 9000 + b"\r\n",
    ],
    ids=["zero", "folded", "space", "long"],
)
async def test_a_head_that_is_none_is_400(head: bytes) -> None:
    """Nothing else can be done with it, and no sender that keeps to HTTP writes it."""
    assert await _weavr(WEAVR + head + _signed(b"ref-1") + SIZED) == 400


async def test_a_body_that_ends_early_is_asked_for_again() -> None:
    """A 400 would lose the event; 408 brings it again."""
    assert await _weavr(WEAVR + _signed() + CHUNKED, b"zz\r\n" + EVENT, pause=0.01) == 408
    assert await _weavr(WEAVR + _signed() + SIZED[:-3], pause=0.01) == 408


async def test_a_chunked_body_is_signed_without_its_chunks() -> None:
    chunks = b"5\r\n" + EVENT[:5] + b"\r\nb\r\n" + EVENT[5:] + b"\r\n0\r\n\r\n"
    assert await _weavr(WEAVR + _signed() + CHUNKED + chunks) == 204


@pytest.mark.parametrize("target", [b"%2e%2e/ecs/acme", b"..%2f..", b"%ff", b"a//b", b"a?b=c", b"a%0d%0ab", b""])
async def test_an_odd_path_below_is_an_unknown_kind(target: bytes) -> None:
    """It is kept with its path as text that a header can hold."""
    publisher = MemoryPublisher()
    head = b"POST /webhooks/weavr/acme/" + target + b" HTTP/1.1\r\nHost: here\r\n"
    assert await _weavr(head + _signed() + SIZED, publisher=publisher) == 204
    assert dict(publisher.published[0].headers)["pipeline_path"].decode().startswith("/")

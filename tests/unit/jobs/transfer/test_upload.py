"""Uploads: what goes out, what is checked, and when it is sent again."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
import time
import zlib
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta

import pytest
from pydantic import SecretStr
from support.transfer_ground import QUERY, SECRET, Ground, error_document, ground, now, refusing

from pipeline.errors import LeaseLost, TransientError
from pipeline.jobs.transfer import MAX_PUT_BYTES, SignedUrl, UploadRefused
from pipeline.jobs.transfer.digests import Digests
from pipeline.jobs.transfer.testing import Act, Exchange, scripted_server
from pipeline.outbound import AddressRefused

DATA = b"card_number,status,message\n" + b"".join(b"99999900%08d,ok,\n" % n for n in range(20_000))
EMPTY_CRC32 = f"{QUERY}&x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32"


def md5(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class Kept:
    """Stores bodies as S3 does: 100 Continue where expected, then the body, then its MD5 as ETag."""

    def __init__(self, etag: str | None = None, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.bodies: list[bytes] = []
        self._etag = etag
        self._status = status
        self._headers = headers or {}

    async def __call__(self, exchange: Exchange) -> None:
        if "expect" in exchange.request.headers:
            await exchange.head(100)
        self.bodies.append(await exchange.body())
        etag = md5(self.bodies[-1]) if self._etag is None else self._etag
        tag = [("ETag", etag)] if etag else []
        length = [("Content-Length", "0"), ("Connection", "close")]
        await exchange.head(self._status, [*tag, *length, *self._headers.items()])


async def test_put() -> None:
    """A body goes out with its length, byte for byte, after 100 Continue; the ETag comes back."""
    store = Kept()
    async with ground(store) as target:
        assert await target.put(DATA) == md5(DATA)
    assert store.bodies == [DATA]
    (request,) = target.server.requests
    assert (request.method, request.target) == ("PUT", f"/b%2Fucket/in%7Eput.csv?{QUERY}")
    assert set(request.headers) == {"host", "accept", "accept-encoding", "user-agent", "content-length", "expect"}
    assert request.headers["content-length"] == str(len(DATA))


@pytest.mark.parametrize("piece", [150_000, 40_000])
async def test_pieces_are_hashed_while_they_are_sent(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer waits for their digests, and they are those of all bytes in their order."""

    class Slow(Digests):
        def update_md5(self, piece: bytes) -> None:
            threads.add(threading.get_ident())
            time.sleep(0.02)
            super().update_md5(piece)

    monkeypatch.setattr("pipeline.jobs.transfer.digests.Digests", Slow)
    threads: set[int] = set()
    damaged, store = Kept(md5(b"else"), headers={"x-amz-checksum-crc32": "AAAAAA=="}), Kept()
    async with ground(damaged, store) as target:
        assert await target.put(DATA, piece=piece) == md5(DATA)
    assert damaged.bodies == store.bodies == [DATA]
    assert target.retries("upload") == {"upload_corrupted": 1}
    assert threads - {threading.get_ident()}


async def test_empty_body() -> None:
    """An empty result is put with length 0."""
    store = Kept()
    async with ground(store) as target:
        assert await target.put(b"") == md5(b"")
    assert target.server.requests[0].headers["content-length"] == "0"


async def test_without_expectation() -> None:
    """100-continue can be switched off."""
    store = Kept()
    async with ground(store, expect_continue=False) as target:
        await target.put(DATA)
    assert "expect" not in target.server.requests[0].headers
    assert store.bodies == [DATA]


@pytest.mark.parametrize("status", [201, 204])
async def test_other_successes(status: int) -> None:
    """Gateways answer 201 or 204, too."""
    async with ground(Kept(status=status)) as target:
        assert await target.put(DATA) == md5(DATA)


@pytest.mark.parametrize(
    ("etag", "headers"),
    [
        ('"00000000000000000000000000000000"', {"x-amz-server-side-encryption": "aws:kms"}),
        ('"00000000000000000000000000000000"', {"x-amz-server-side-encryption-customer-algorithm": "AES256"}),
        ('"00000000000000000000000000000000-2"', {}),
        ('"not a hash"', {}),
        ("", {}),
    ],
    ids=["SSE-KMS", "SSE-C", "multipart", "opaque", "none"],
)
async def test_etags_that_are_no_md5(etag: str, headers: dict[str, str]) -> None:
    """An ETag that is not the body's MD5 by definition is not compared with it."""
    async with ground(Kept(etag, headers=headers)) as target:
        assert await target.put(DATA) == etag


async def test_wrong_etag_is_put_again() -> None:
    """When something else was stored, it is put again."""
    bad, good = Kept(md5(b"else")), Kept()
    async with ground(bad, good) as target:
        assert await target.put(DATA) == md5(DATA)
    assert (bad.bodies, good.bodies) == ([DATA], [DATA])
    assert target.retries("upload") == {"upload_corrupted": 1}


async def test_sse_s3_is_verified() -> None:
    """With SSE-S3 the ETag is an MD5 still."""
    async with ground(Kept(md5(b"else"), headers={"x-amz-server-side-encryption": "AES256"}), max_tries=1) as target:
        with pytest.raises(TransientError, match="upload_corrupted"):
            await target.put(DATA)


OTHER = '"00000000000000000000000000000000"'
"""An ETag of 32 digits that is no MD5."""


def head_of(data: bytes, etag: str = OTHER, **headers: str) -> Act:
    """Answer a HEAD as a store that has these bytes."""

    async def act(exchange: Exchange) -> None:
        assert exchange.request.method == "HEAD"
        named = [(name.replace("_", "-"), value) for name, value in headers.items()]
        await exchange.head(200, [("ETag", etag), ("Content-Length", str(len(data))), ("Connection", "close"), *named])

    return act


async def test_other_etags_are_checked_by_head_after_three_tries() -> None:
    """Then the next result of the same store is sent once."""
    stores = [Kept(OTHER) for _ in range(4)]
    first = head_of(DATA)
    async with ground(*stores[:3], first, stores[3], first) as target:
        assert await target.put(DATA) == OTHER
        assert [request.method for request in target.server.requests] == ["PUT", "PUT", "PUT", "HEAD"]
        assert target.server.requests[3].target == target.server.requests[0].target
        assert await target.put(DATA) == OTHER
    assert [request.method for request in target.server.requests[4:]] == ["PUT", "HEAD"]


async def test_other_etags_of_one_host_say_nothing_of_another_host() -> None:
    """A result that was damaged on its way to that one has the right size: it is sent again."""
    stores = [Kept(OTHER) for _ in range(3)]
    damaged, good = Kept(md5(b"else")), Kept()
    async with scripted_server(*stores, head_of(DATA), damaged, good) as server:
        port = server.url.rpartition(":")[2]
        rules = {"result": (f"127.0.0.1:{port}", f"localhost:{port}")}
        async with ground(rules=rules) as target:
            for host, etag in (("127.0.0.1", OTHER), ("localhost", md5(DATA))):
                url = SignedUrl(SecretStr(f"http://{host}:{port}/result?{QUERY}"), now() + timedelta(minutes=1))
                target.urls = [url]
                assert await target.put(DATA) == etag
    assert (damaged.bodies, good.bodies) == ([DATA], [DATA])


async def test_other_etags_that_nothing_explains_name_the_cause_after_three_tries() -> None:
    """A PUT for each try until the deadline would bring no other answer."""
    store = Kept(OTHER)
    async with ground(store, store, store, refusing(403, "SignatureDoesNotMatch")) as target:
        with pytest.raises(UploadRefused) as caught:
            await target.put(DATA)
    assert [request.method for request in target.server.requests] == ["PUT", "PUT", "PUT", "HEAD"]
    assert (caught.value.code, "transfer.etag_is_md5 = false" in caught.value.message) == ("upload_etag_unknown", True)
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    "answer",
    [head_of(DATA[:-1]), head_of(DATA, x_amz_checksum_crc32="AAAAAA=="), head_of(DATA, Content_MD5="A" * 22 + "==")],
    ids=["shorter", "other CRC32", "other MD5"],
)
async def test_a_head_that_shows_other_bytes_is_damage(answer: Act) -> None:
    store = Kept(OTHER)
    async with ground(store, store, store, answer, Kept()) as target:
        assert await target.put(DATA) == md5(DATA)
    assert target.retries("upload") == {"upload_corrupted": 3}


@pytest.mark.parametrize(
    "answer", [head_of(DATA, '"another"'), refusing(404), refusing(405)], ids=["ETag", "404", "405"]
)
async def test_a_head_that_says_nothing_about_it(answer: Act) -> None:
    store = Kept(OTHER)
    async with ground(store, store, store, answer) as target:
        with pytest.raises(UploadRefused, match="upload_etag_unknown"):
            await target.put(DATA)


async def test_etags_that_are_no_md5_by_setting() -> None:
    async with ground(Kept(OTHER), etag_is_md5=False) as target:
        assert await target.put(DATA) == OTHER


CRC = base64.b64encode(zlib.crc32(DATA).to_bytes(4, "big")).decode()
MD5 = base64.b64encode(hashlib.md5(DATA, usedforsecurity=False).digest()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-crc32": CRC},
        {"x-amz-checksum-crc32": CRC, "x-amz-checksum-type": "FULL_OBJECT"},
        {"Content-MD5": MD5},
        {"x-goog-hash": f"crc32c=AAAAAA==,md5={MD5}"},
        {"x-oss-server-side-encryption": "KMS"},
        {"x-obs-server-side-encryption": "kms"},
        {"x-amz-server-side-encryption": "aws:kms:dsse"},
        {"x-goog-encryption-kms-key-name": "projects/p/key"},
        {"x-oss-server-side-encryption-customer-algorithm": "AES256"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_another_checksum_or_a_foreign_key_explains_another_etag(headers: dict[str, str]) -> None:
    async with ground(Kept(OTHER, headers=headers)) as target:
        assert await target.put(DATA) == OTHER
    assert len(target.server.requests) == 1


@pytest.mark.parametrize("etag", [OTHER, '"opaque"', ""])
async def test_a_checksum_of_other_bytes_is_damage_whatever_the_etag_is(etag: str) -> None:
    damaged = Kept(etag, headers={"x-amz-checksum-crc32": "AAAAAA=="})
    async with ground(damaged, Kept()) as target:
        assert await target.put(DATA) == md5(DATA)
    assert target.retries("upload") == {"upload_corrupted": 1}


def failing_late(code: str, document: bytes | None = None, status: int = 200) -> Act:
    """Take the body, answer with success, and say in the body that it failed."""

    async def act(exchange: Exchange) -> None:
        await exchange.head(100)
        body = await exchange.body()
        await exchange.answer(status, error_document(code) if document is None else document, ETag=md5(body))

    return act


@pytest.mark.parametrize("code", ["InternalError", "SlowDown", "ServiceUnavailable", "Unheard"])
async def test_a_success_with_an_error_in_its_body_is_put_again(code: str) -> None:
    async with ground(failing_late(code), Kept()) as target:
        assert await target.put(DATA) == md5(DATA)
    assert sum(target.retries("upload").values()) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("AccessDenied", "upload_forbidden"),
        ("BadDigest", "upload_checksum_refused"),
        ("EntityTooLarge", "upload_too_large"),
        ("SignatureDoesNotMatch", "upload_signature_refused"),
    ],
)
async def test_a_success_with_an_error_for_good_in_its_body_is_refused(code: str, expected: str) -> None:
    async with ground(failing_late(code)) as target:
        with pytest.raises(UploadRefused, match=rf"{expected}: .*\(the store answered 200 {code}\)"):
            await target.put(DATA)
    assert len(target.server.requests) == 1


@pytest.mark.parametrize(
    ("document", "tries"),
    [
        (b"<Error/>", 2),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\r\n<Error xmlns="x"><Code>InternalError</Code>', 2),
        (b"<s3:Error><Code>InternalError</Code></s3:Error>", 2),
        (b"<html><body>Created</body></html>", 1),
        (b"<PutObjectResult><ETag>x</ETag></PutObjectResult>", 1),
        (b"<Errors/>", 1),
        (b"Error", 1),
        (b" " * 200_000, 1),
    ],
)
async def test_what_is_an_error_document(document: bytes, tries: int) -> None:
    """Of any size, with or without a prolog; a page of a gateway is none."""
    async with ground(failing_late("", document), Kept()) as target:
        assert await target.put(DATA) == md5(DATA)
    assert len(target.server.requests) == tries


@pytest.mark.parametrize(
    ("etag", "tries"), [("", 2), ('"opaque"', 2), (OTHER, 2), (md5(DATA), 1)], ids=["none", "opaque", "other", "MD5"]
)
async def test_a_success_whose_body_broke_off_is_put_again_unless_the_etag_proves_it(etag: str, tries: int) -> None:
    """The cut body may have been an error document."""

    async def cut(exchange: Exchange) -> None:
        await exchange.head(100)
        await exchange.body()
        await exchange.head(200, [*([("ETag", etag)] if etag else []), ("Content-Length", "300")])

    async with ground(cut, Kept()) as target:
        assert await target.put(DATA) == md5(DATA)
    assert len(target.server.requests) == tries
    assert target.retries("upload") == ({"upload_cut": 1} if tries == 2 else {})


async def test_refused_before_the_body() -> None:
    """With 100-continue a refusal comes before a byte of the body was read from the parts."""
    read: list[int] = []

    async def body() -> AsyncGenerator[bytes, None]:
        read.append(1)
        yield DATA

    async with ground(refusing(403, "AccessDenied", "Request has expired")) as target:
        with pytest.raises(UploadRefused, match="upload_expired"):
            await target.transfers.uploader.put(target.source, size=len(DATA), body=body)
    assert read == []


async def test_early_refusal_in_the_middle() -> None:
    """An answer that comes while the body is being sent is read and reported, not the broken pipe after it."""
    big = DATA * 30

    async def early(exchange: Exchange) -> None:
        await exchange.reader.readexactly(1000)
        await exchange.answer(400, error_document("EntityTooLarge"))

    async with ground(early, expect_continue=False) as target:
        with pytest.raises(UploadRefused, match="upload_too_large"):
            await target.put(big, piece=65_536)
    assert len(target.server.requests) == 1


async def test_early_success_is_none() -> None:
    """A success before the whole body was taken is not believed."""

    async def early(exchange: Exchange) -> None:
        await exchange.answer(200, ETag=md5(DATA))
        await asyncio.sleep(0.03)

    async with ground(early, expect_continue=False, max_tries=1) as target:
        with pytest.raises(TransientError, match="upload_cut"):
            await target.put(DATA * 60, piece=65_536)


async def test_lost_answer_is_put_again() -> None:
    """A PUT whose answer was lost is repeated: it replaces the object whole."""
    store = Kept()

    async def lost(exchange: Exchange) -> None:
        await exchange.head(100)
        await exchange.body()

    async with ground(lost, store) as target:
        assert await target.put(DATA) == md5(DATA)
    assert store.bodies == [DATA]
    assert target.retries("upload") == {"upload_cut": 1}


async def test_lost_for_good() -> None:
    """When answers keep getting lost the runner comes back later."""

    async def lost(exchange: Exchange) -> None:
        await exchange.head(100)
        await exchange.body()

    async with ground(lost, max_tries=2) as target:
        with pytest.raises(TransientError, match="upload_cut"):
            await target.put(DATA)
    assert len(target.server.requests) == 2


async def test_too_large() -> None:
    """More than one PUT takes is refused before anything is asked."""
    async with ground(Kept()) as target:
        with pytest.raises(UploadRefused, match=f"upload_too_large: .*{MAX_PUT_BYTES}"):
            await target.put(b"", size=MAX_PUT_BYTES + 1)
    assert (target.asked, target.server.requests) == (0, [])


@pytest.mark.parametrize("code", ["BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch"])
async def test_enforced_empty_checksum_is_named(code: str) -> None:
    """A store that enforces the CRC32 of an empty body refuses every result: the message names the URL's parameter."""
    async with ground(refusing(400, code)) as target:
        target.urls = [target.signed(EMPTY_CRC32)]
        with pytest.raises(UploadRefused, match=r"upload_checksum_refused: .*x-amz-checksum-crc32 with AAAAAA=="):
            await target.put(DATA)
    assert len(target.server.requests) == 1


async def test_empty_checksum_in_an_aws_like_store() -> None:
    """Real S3 signs the parameter and ignores its value: it is sent unchanged, and no checksum header with it."""
    async with ground(Kept()) as target:
        target.urls = [target.signed(EMPTY_CRC32)]
        assert await target.put(DATA) == md5(DATA)
    (request,) = target.server.requests
    assert request.target.endswith(EMPTY_CRC32)
    assert not [name for name in request.headers if name.startswith("x-amz")]


async def test_signed_content_length_can_be_sent() -> None:
    """The length is a header that we send, so it may be signed; a content type is not."""
    async with ground(Kept()) as target:
        target.urls = [target.signed("X-Amz-SignedHeaders=content-length%3Bhost")]
        await target.put(DATA)
        target.urls = [target.signed("X-Amz-SignedHeaders=content-type%3Bhost")]
        with pytest.raises(UploadRefused, match=r"upload_signed_headers: .*\(content-type\)"):
            await target.put(DATA)


async def mute(_: Exchange) -> None:
    await asyncio.sleep(1)


async def test_server_that_never_continues() -> None:
    """Where 100 Continue does not come, the next try does not wait for it."""
    store = Kept()
    async with ground(mute, store, connect_timeout_seconds=0.1, read_timeout_seconds=0.1) as target:
        assert await target.put(DATA) == md5(DATA)
    assert ["expect" in request.headers for request in target.server.requests] == [True, False]
    assert target.retries("upload") == {"upload_timeout": 1}


async def test_server_that_knows_no_expectation() -> None:
    """417: the next try goes without."""
    store = Kept()
    async with ground(refusing(417), store) as target:
        assert await target.put(DATA) == md5(DATA)
    assert ["expect" in request.headers for request in target.server.requests] == [True, False]


async def test_long_upload_outlives_the_read_timeout() -> None:
    """While a body is on its way the other side is silent, as it should be: no read timeout may end it."""
    big = DATA * 30

    async def slow(exchange: Exchange) -> None:
        await exchange.head(100)
        body = b""
        while len(body) < len(big):
            body += await exchange.reader.read(1 << 20)
            await asyncio.sleep(0.01)
        await exchange.answer(200, ETag=md5(body))

    async with ground(slow, read_timeout_seconds=0.05) as target:
        assert await target.put(big, piece=65_536) == md5(big)
    assert target.retries("upload") == {}


async def test_stalled_upload() -> None:
    """A server that stops taking the body is given up by the minimum rate."""

    async def stalled(exchange: Exchange) -> None:
        await exchange.head(100)
        await asyncio.sleep(1)

    async with ground(stalled, rate_window_seconds=0.04, max_tries=1) as target:
        with pytest.raises(TransientError, match="upload_too_slow"):
            await target.put(DATA * 60, piece=65_536)


async def test_deadline_in_the_middle() -> None:
    """The deadline ends a running upload; without a newer URL that is final."""

    async def stalled(exchange: Exchange) -> None:
        await exchange.head(100)
        await asyncio.sleep(1)

    async with ground(stalled) as target:
        target.urls = [target.signed(seconds=0.04)]
        with pytest.raises(UploadRefused, match="upload_deadline_passed"):
            await target.put(DATA * 60, piece=65_536)


async def test_missing_answer() -> None:
    """An answer that never comes is a timeout, and the PUT is worth repeating."""

    async def forgetful(exchange: Exchange) -> None:
        await exchange.head(100)
        await exchange.body()
        await asyncio.sleep(1)

    async with ground(forgetful, rate_window_seconds=0.02, read_timeout_seconds=0.02, max_tries=1) as target:
        with pytest.raises(TransientError, match="upload_timeout"):
            await target.put(DATA)


class Broken(Exception):
    """An unexpected error."""


@pytest.mark.parametrize(
    "error",
    [
        TransientError("store_unavailable", "later"),
        LeaseLost("lease_lost", "stop"),
        UploadRefused("parts_gone", "gone"),
        Broken(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_of_the_body_come_through(error: Exception) -> None:
    """What the body's source raises is raised, unchanged, at once, and its source is closed."""
    closed: list[int] = []

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            yield DATA[:1000]
            raise error
        finally:
            closed.append(1)

    async with ground(Kept()) as target:
        with pytest.raises(type(error)) as caught:
            await target.transfers.uploader.put(target.source, size=len(DATA), body=body)
    assert caught.value is error
    assert closed == [1]
    assert len(target.server.requests) == 1


@pytest.mark.parametrize(("count", "how"), [(999, "fewer"), (1001, "more")])
async def test_body_of_another_size(count: int, how: str) -> None:
    """The store never gets a complete body of the wrong length."""
    async with ground(Kept()) as target:
        with pytest.raises(UploadRefused, match=f"upload_size_mismatch: .*{how}"):
            await target.put(DATA[:count], size=1000)


async def test_body_is_closed_when_nobody_wants_it() -> None:
    """An early refusal closes the body's source."""
    closed = asyncio.Event()

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            for _ in range(1000):
                yield bytes(65_536)
        finally:
            closed.set()

    async def early(exchange: Exchange) -> None:
        await exchange.head(100)
        await exchange.reader.readexactly(1000)
        await exchange.answer(400, error_document("EntityTooLarge"))

    async with ground(early) as target:
        with pytest.raises(UploadRefused):
            await target.transfers.uploader.put(target.source, size=65_536_000, body=body)
        await asyncio.wait_for(closed.wait(), 1)


async def test_cancellation_comes_through() -> None:
    """A cancelled upload stops at once."""
    waiting = asyncio.Event()

    async def waited_for(_: Exchange) -> None:
        waiting.set()
        await asyncio.sleep(1)

    async def run(target: Ground) -> None:
        task = asyncio.create_task(target.put(DATA))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async with ground(waited_for) as target:
        await run(target)


async def test_host_not_allowed() -> None:
    """A URL of another host is refused, and nothing is sent."""
    async with ground(Kept(), rules={"result": ()}) as target:
        with pytest.raises(AddressRefused, match="host_not_allowed: result_upload_url"):
            await target.put(DATA)
    assert target.server.requests == []

"""Every row of what S3 does with pre-signed URLs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import zlib
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import pytest
from support.sandbox_world import Clock, Start, prepare
from yarl import URL

from pipeline.sandbox import Sandbox
from pipeline.sandbox.s3_objects import UnsatisfiableRange, asked_range, matches

BODY = b"card_number,status\n1,ok\n"


def code_of(text: str) -> str:
    found = re.search(r"<Code>(.*?)</Code>", text)
    assert found, text
    return found[1]


async def refusal(response: aiohttp.ClientResponse) -> tuple[int, str]:
    async with response:
        return response.status, code_of(await response.text())


async def raw(sandbox: Sandbox, text: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes as they are; return all that comes back."""
    parts = urlsplit(sandbox.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(text)
        await writer.drain()
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_the_input_file_comes_whole(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """GET gives the bytes, their length and their MD5 as ETag."""
    job = await prepare(sandbox)
    async with http.get(job.input_url) as response:
        body = await response.read()
    stored = sandbox.store.disk.get(job.job.input_key)
    assert stored is not None
    assert body == stored.path.read_bytes()
    assert response.status == 200
    assert response.headers["ETag"] == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    assert response.headers["Content-Length"] == str(len(body))
    assert response.headers["Accept-Ranges"] == "bytes"
    assert not any(name.lower().startswith("x-amz-checksum") for name in response.headers)
    assert sandbox.store.traffic.round_trips(job.job.input_key) == 1
    assert sandbox.store.traffic.sent[job.job.input_key] == len(body)


async def test_the_urls_look_like_those_of_ecs(sandbox: Sandbox) -> None:
    """Path style; the parameters of the seed, spelled as there."""
    job = await prepare(sandbox)
    path = f"/ecs-card-batches/03338397-83da-470d-9cd7-241f6b5dbd62/{job.job.guid}"
    assert job.input_url.raw_path == f"{path}/input.csv"
    assert job.result_url.raw_path == f"{path}/output.csv"
    names = [part.partition("=")[0] for part in job.result_url.raw_query_string.split("&")]
    assert names == [
        "X-Amz-Algorithm",
        "X-Amz-Content-Sha256",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
        "x-amz-checksum-crc32",
        "x-amz-sdk-checksum-algorithm",
        "x-id",
    ]
    assert "x-amz-checksum-crc32=AAAAAA%3D%3D" in job.result_url.raw_query_string
    assert "x-amz-checksum-mode=ENABLED&x-id=GetObject" in job.input_url.raw_query_string


async def test_an_upload_replaces_whole_and_answers_its_md5(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The empty CRC32 in the URL does not matter to an AWS-like store; the last PUT stands."""
    job = await prepare(sandbox)
    for body in (b"first, and longer than the second one\n", BODY):
        async with http.put(job.result_url, data=body) as response:
            assert response.status == 200
            assert response.headers["ETag"] == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    stored = sandbox.store.disk.get(job.job.result_key)
    assert stored is not None
    assert stored.path.read_bytes() == BODY
    assert len(list(stored.path.parent.iterdir())) == 2


async def test_a_value_enforcing_store_refuses_the_empty_crc(start: Start, http: aiohttp.ClientSession) -> None:
    """As R2, Garage and SeaweedFS: 400 BadDigest, unless the body is empty or the URL is without the parameter."""
    sandbox = await start(object_store={"mode": "value-enforcing"})
    job = await prepare(sandbox)
    assert await refusal(await http.put(job.result_url, data=BODY)) == (400, "BadDigest")
    assert sandbox.store.disk.get(job.job.result_key) is None
    async with http.put(job.result_url, data=b"") as response:
        assert response.status == 200
    other = await prepare(sandbox, upload_checksum=False)
    async with http.put(other.result_url, data=BODY) as response:
        assert response.status == 200


async def test_changing_or_removing_a_parameter_breaks_the_signature(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    """The CRC32 parameter is signed: a right value, or none, is 403."""
    job = await prepare(sandbox)
    right = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
    for changed in (
        str(job.result_url).replace("AAAAAA%3D%3D", right.replace("=", "%3D").replace("+", "%2B").replace("/", "%2F")),
        str(job.result_url).replace("&x-amz-checksum-crc32=AAAAAA%3D%3D", ""),
        str(job.result_url).replace("output.csv", "input.csv"),
        str(job.result_url) + "&more=1",
    ):
        url = URL(changed, encoded=True)
        assert await refusal(await http.put(url, data=BODY)) == (403, "SignatureDoesNotMatch")
    assert await refusal(await http.get(job.result_url)) == (403, "SignatureDoesNotMatch")


async def test_another_host_breaks_the_signature(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The host header is signed."""
    job = await prepare(sandbox)
    answer = await refusal(await http.get(job.input_url, headers={"Host": "elsewhere.example"}))
    assert answer == (403, "SignatureDoesNotMatch")


async def test_another_encoding_is_accepted_and_counted(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """S3 decodes before it compares; the control API still tells that a client rewrites URLs."""
    job = await prepare(sandbox)
    async with http.get(job.input_url) as response:
        assert response.status == 200
    assert not sandbox.store.traffic.rewritten
    async with http.get(URL(str(job.input_url).replace("%2F", "/"), encoded=True)) as response:
        assert response.status == 200
    assert sandbox.store.traffic.rewritten[job.job.input_key] == 1


@pytest.mark.parametrize("name", ["x-amz-checksum-crc32", "X-Amz-Meta-Who", "x-amz-content-sha256"])
async def test_an_unsigned_amz_header_is_refused(sandbox: Sandbox, http: aiohttp.ClientSession, name: str) -> None:
    """403 AccessDenied that names the header in HeadersNotSigned."""
    job = await prepare(sandbox)
    async with http.put(job.result_url, data=BODY, headers={name: "AAAAAA=="}) as response:
        text = await response.text()
    assert response.status == 403
    assert code_of(text) == "AccessDenied"
    assert f"<HeadersNotSigned>{name.lower()}</HeadersNotSigned>" in text


async def test_an_expired_url_says_since_when(sandbox: Sandbox, http: aiohttp.ClientSession, clock: Clock) -> None:
    """403 AccessDenied, "Request has expired", with Expires and ServerTime; the last second still counts."""
    job = await prepare(sandbox, expires_in_seconds=60)
    clock.move(60)
    async with http.get(job.input_url) as response:
        assert response.status == 200
    clock.move(1)
    async with http.get(job.input_url) as response:
        text = await response.text()
    assert (response.status, code_of(text)) == (403, "AccessDenied")
    assert "<Message>Request has expired</Message>" in text
    assert "<Expires>2026-01-21T22:44:59Z</Expires><ServerTime>2026-01-21T22:45:00Z</ServerTime>" in text


async def test_a_signers_clock_may_be_ahead_by_a_quarter_of_an_hour(
    sandbox: Sandbox, http: aiohttp.ClientSession, clock: Clock
) -> None:
    """More than that is "not yet valid"."""
    job = await prepare(sandbox)
    clock.move(-900)
    async with http.get(job.input_url) as response:
        assert response.status == 200
    clock.move(-1)
    async with http.get(job.input_url) as response:
        text = await response.text()
    assert (response.status, code_of(text)) == (403, "AccessDenied")
    assert "not yet valid" in text


async def test_revoked_urls_count_as_expired_and_fresh_ones_work(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """Fresh URLs differ from the old ones even when they are signed in the same second."""
    job = await prepare(sandbox)
    sandbox.ecs.expire(job.job.guid)
    async with http.get(job.input_url) as response:
        assert "Request has expired" in await response.text()
    fresh = sandbox.ecs.prepare(job.job)
    async with http.get(URL(fresh.urls[0], encoded=True)) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "", (403, "AccessDenied")),
        ("&X-Amz-Expires=3600", "", (400, "AuthorizationQueryParametersError")),
        ("Expires=3600", "Expires=604801", (400, "AuthorizationQueryParametersError")),
        ("Expires=3600", "Expires=soon", (400, "AuthorizationQueryParametersError")),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", (400, "AuthorizationQueryParametersError")),
        ("Date=2026", "Date=xxxx", (400, "AuthorizationQueryParametersError")),
        ("20260121T224359Z", "20260121_224359Z", (400, "AuthorizationQueryParametersError")),
        ("us-east-1", "eu-west-1", (400, "AuthorizationQueryParametersError")),
        ("AKIASANDBOXSANDBOX00", "AKIASOMEBODYELSE0000", (403, "InvalidAccessKeyId")),
        ("SignedHeaders=host", "SignedHeaders=accept", (403, "AccessDenied")),
    ],
)
async def test_authentication_parameters_are_checked(
    sandbox: Sandbox,
    http: aiohttp.ClientSession,
    old: str,
    new: str,
    expected: tuple[int, str],
) -> None:
    """Missing, malformed or foreign parameters each have their code."""
    job = await prepare(sandbox)
    text = str(job.input_url)
    changed = text.replace(old, new) if old else text.partition("?")[0]
    assert await refusal(await http.get(URL(changed, encoded=True))) == expected


async def test_a_missing_object_is_no_such_key(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """404 with the key; HEAD without a body."""
    job = await prepare(sandbox, content="nothing")
    async with http.get(job.input_url) as response:
        text = await response.text()
    assert (response.status, code_of(text)) == (404, "NoSuchKey")
    assert f"<Key>{job.job.input_key}</Key>" in text


async def test_other_methods_are_not_allowed(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """Neither DELETE nor POST."""
    job = await prepare(sandbox)
    assert await refusal(await http.delete(job.input_url)) == (405, "MethodNotAllowed")
    assert await refusal(await http.post(job.input_url)) == (405, "MethodNotAllowed")


async def test_head_needs_its_own_signature(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """A GET URL does not serve HEAD; one signed for HEAD answers without a body."""
    job = await prepare(sandbox)
    async with http.head(job.input_url) as response:
        assert (response.status, await response.read()) == (403, b"")
    url = sandbox.store._presigned("HEAD", sandbox.url, key=job.job.input_key, expires=60, now=None, extra=())
    async with http.head(URL(url, encoded=True)) as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) > 0


class TestRanges:
    """Range and If-Match."""

    async def test_a_range_is_206(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """From the middle to the end, a piece, the last bytes."""
        job = await prepare(sandbox)
        async with http.get(job.input_url) as response:
            whole, etag = await response.read(), response.headers["ETag"]
        size = len(whole)
        for asked, start, end in (
            ("100-", 100, size),
            ("5-9", 5, 10),
            ("-7", size - 7, size),
            ("10-99999999", 10, size),
        ):
            headers = {"Range": f"bytes={asked}", "If-Match": etag}
            async with http.get(job.input_url, headers=headers) as response:
                assert response.status == 206
                assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
                assert response.headers["ETag"] == etag
                assert await response.read() == whole[start:end]

    async def test_a_range_behind_the_end_is_416(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """The answer has the size in Content-Range."""
        job = await prepare(sandbox)
        stored = sandbox.store.disk.get(job.job.input_key)
        assert stored is not None
        async with http.get(job.input_url, headers={"Range": f"bytes={stored.size}-"}) as response:
            assert (response.status, code_of(await response.text())) == (416, "InvalidRange")
            assert response.headers["Content-Range"] == f"bytes */{stored.size}"

    async def test_if_match_of_another_object_is_412(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """The old ETag gets 412 too after the object was changed."""
        job = await prepare(sandbox)
        async with http.get(job.input_url) as response:
            etag = response.headers["ETag"]
        await sandbox.ecs.change_input(job.job.guid)
        headers = {"Range": "bytes=10-", "If-Match": etag}
        assert await refusal(await http.get(job.input_url, headers=headers)) == (412, "PreconditionFailed")

    async def test_if_none_match_is_304(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """The answer has no body."""
        job = await prepare(sandbox)
        async with http.get(job.input_url, headers={"If-None-Match": "*"}) as response:
            assert (response.status, await response.read()) == (304, b"")
        async with http.get(job.input_url, headers={"If-None-Match": '"other"'}) as response:
            assert response.status == 200

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("bytes=0-", (0, 10)),
            ("bytes=3-3", (3, 4)),
            ("bytes=-3", (7, 10)),
            ("bytes=-30", (0, 10)),
            ("bytes=5-3", None),
            ("bytes=-", None),
            ("bytes=0-1,4-5", None),
            ("lines=1-2", None),
        ],
    )
    def test_what_a_range_header_asks_for(self, value: str, expected: tuple[int, int] | None) -> None:
        """S3 ignores a header that it cannot read, and so does the sandbox."""
        assert asked_range(value, 10) == expected

    @pytest.mark.parametrize("value", ["bytes=10-", "bytes=11-12", "bytes=-0"])
    def test_what_no_range_can_satisfy(self, value: str) -> None:
        """Behind the end, or nothing at all."""
        with pytest.raises(UnsatisfiableRange):
            asked_range(value, 10)

    def test_etags_match_in_lists_with_or_without_quotes(self) -> None:
        """As S3 reads If-Match."""
        assert matches('"a", "b"', '"b"')
        assert matches("b", '"b"')
        assert matches("*", '"b"')
        assert not matches('"a"', '"b"')


class TestChecksums:
    """What the store says of the body, and what it checks."""

    async def test_checksum_headers_come_with_a_whole_get_where_the_object_has_one(
        self, sandbox: Sandbox, http: aiohttp.ClientSession
    ) -> None:
        """The value of the whole object, a multipart one, a wrong one; none with a range."""
        job = await prepare(sandbox, checksum="crc32")
        async with http.get(job.input_url) as response:
            value = base64.b64encode(zlib.crc32(await response.read()).to_bytes(4, "big")).decode()
            assert response.headers["x-amz-checksum-crc32"] == value
            assert response.headers["x-amz-checksum-type"] == "FULL_OBJECT"
        async with http.get(job.input_url, headers={"Range": "bytes=1-"}) as response:
            assert "x-amz-checksum-crc32" not in response.headers
        multipart = await prepare(sandbox, checksum="composite")
        async with http.get(multipart.input_url) as response:
            assert response.headers["x-amz-checksum-crc32"] == f"{value}-3"
            assert response.headers["x-amz-checksum-type"] == "COMPOSITE"
        wrong = await prepare(sandbox, checksum="wrong")
        async with http.get(wrong.input_url) as response:
            assert response.headers["x-amz-checksum-crc32"] != value

    async def test_content_md5_is_checked(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """A wrong one is BadDigest, one that is no MD5 is InvalidDigest."""
        job = await prepare(sandbox)

        async def put(md5: str) -> aiohttp.ClientResponse:
            return await http.put(job.result_url, data=BODY, headers={"Content-MD5": md5})

        right = base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()
        async with await put(right) as response:
            assert response.status == 200
        other = base64.b64encode(bytes(16)).decode()
        assert await refusal(await put(other)) == (400, "BadDigest")
        assert await refusal(await put("AAAA")) == (400, "InvalidDigest")
        assert await refusal(await put("not base64!")) == (400, "InvalidDigest")

    async def test_content_encoding_is_said_as_stored(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """The bytes go out as they lie there."""
        job = await prepare(sandbox, content_encoding="gzip", cards={"records": 5, "gzip": True})
        async with http.get(job.input_url) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert (await response.read()).startswith(b"\x1f\x8b")


class TestLengths:
    """Bodies of unknown, wrong and excessive length."""

    async def test_a_chunked_put_is_501(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """Transfer-Encoding is not implemented."""
        job = await prepare(sandbox)
        response = await http.put(job.result_url, data=BODY, chunked=True)
        assert await refusal(response) == (501, "NotImplemented")

    async def test_a_put_without_length_is_411(self, sandbox: Sandbox) -> None:
        """Neither Content-Length nor Transfer-Encoding."""
        job = await prepare(sandbox)
        head = f"PUT {job.result_url.raw_path_qs} HTTP/1.1\r\nHost: {job.result_url.authority}\r\nConnection: close\r\n"
        answer = await raw(sandbox, f"{head}\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 411 ")
        assert b"MissingContentLength" in answer

    async def test_too_large_is_refused_by_its_announcement(self, start: Start, http: aiohttp.ClientSession) -> None:
        """400 EntityTooLarge before the body is read; the limit itself is allowed."""
        sandbox = await start(object_store={"max_object_bytes": 100})
        job = await prepare(sandbox)
        async with http.put(job.result_url, data=b"x" * 101, expect100=True) as response:
            text = await response.text()
        assert (response.status, code_of(text)) == (400, "EntityTooLarge")
        assert "<ProposedSize>101</ProposedSize><MaxSizeAllowed>100</MaxSizeAllowed>" in text
        assert not sandbox.store.traffic.received
        async with http.put(job.result_url, data=b"x" * 100, expect100=True) as response:
            assert response.status == 200

    def test_the_usual_limit_is_five_gibibytes(self) -> None:
        """As S3 documents for one PUT."""
        from pipeline.sandbox import ObjectStoreSettings  # noqa: PLC0415

        assert ObjectStoreSettings().max_object_bytes == 5_368_709_120

    async def test_expect_continue_asks_for_the_body_only_when_it_is_welcome(self, sandbox: Sandbox) -> None:
        """100 Continue to a good request, the refusal at once to another."""
        job = await prepare(sandbox)
        head = (
            f"PUT {job.result_url.raw_path_qs} HTTP/1.1\r\nHost: {job.result_url.authority}\r\nConnection: close\r\n"
            f"Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n"
        )
        good = await raw(sandbox, f"{head}\r\n".encode() + BODY)
        assert good.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
        bad = await raw(sandbox, f"{head}x-amz-acl: private\r\n\r\n".encode() + BODY)
        assert bad.startswith(b"HTTP/1.1 403 ")

    async def test_a_body_that_stops_coming_is_a_request_timeout(self, start: Start) -> None:
        """400 RequestTimeout, and nothing is stored."""
        sandbox = await start(object_store={"body_timeout_seconds": 0.05})
        job = await prepare(sandbox)
        head = (
            f"PUT {job.result_url.raw_path_qs} HTTP/1.1\r\nHost: {job.result_url.authority}\r\nContent-Length: 100\r\n"
        )
        answer = await raw(sandbox, f"{head}Connection: close\r\n\r\nshort".encode())
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"<Code>RequestTimeout</Code>" in answer
        assert sandbox.store.disk.get(job.job.result_key) is None

    async def test_a_body_that_is_cut_off_leaves_nothing(self, sandbox: Sandbox) -> None:
        """The client goes away in mid-body: no answer, no object."""
        job = await prepare(sandbox)
        head = (
            f"PUT {job.result_url.raw_path_qs} HTTP/1.1\r\nHost: {job.result_url.authority}\r\nContent-Length: 100\r\n"
        )
        assert await raw(sandbox, f"{head}\r\nshort".encode(), half_close=True) == b""
        assert sandbox.store.disk.get(job.job.result_key) is None
        input_file = sandbox.store.disk.get(job.job.input_key)
        assert input_file is not None
        for _ in range(100):
            if len(list(input_file.path.parent.iterdir())) == 1:
                break
            await asyncio.sleep(0.01)
        assert list(input_file.path.parent.iterdir()) == [input_file.path]

"""The S3 store against a server that misbehaves on request; tests/contract shows that it works with a real one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import SecretStr

from pipeline.errors import FatalError
from pipeline.storage import ObjectNotFound, S3Settings, S3Store, StoreUnavailable
from pipeline.storage import s3 as module

SECRET = "hush-not-shown"
Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Bucket:
    """One bucket's objects, and what to do instead of the next requests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults: deque[Fault | None] = deque()
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/cards/{key:.+}", self._serve)
        app.router.add_route("POST", "/cards", self._refuse_bulk)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.method)
        self.headers.append(dict(request.headers))
        fault = self.faults.popleft() if self.faults else None
        return await (fault or self.answer)(request)

    async def _refuse_bulk(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.method)
        return error(501, "NotImplemented")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        if request.method == "PUT":
            if request.headers.get("If-None-Match") == "*" and key in self.objects:
                return error(412, "PreconditionFailed")
            self.objects[key] = await request.read()
            return web.Response(headers={"ETag": '"e"'})
        if key not in self.objects:
            return error(404, "NoSuchKey")
        if request.method == "DELETE":
            del self.objects[key]
            return web.Response(status=204)
        data, asked = self.objects[key], request.headers.get("Range")
        headers = {"ETag": '"e"', "Last-Modified": "Thu, 22 Jan 2026 12:00:00 GMT"}
        if asked is None:
            return web.Response(body=data, headers=headers)
        start = int(asked.removeprefix("bytes=").split("-")[0])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return web.Response(status=206, body=data[start:], headers=headers)

    async def store_and_lose_the_answer(self, request: web.Request) -> web.StreamResponse:
        await self.answer(request)
        return await cut(request)

    async def cut_in_the_middle(self, request: web.Request) -> web.StreamResponse:
        data = self.objects[request.match_info["key"]]
        answer = web.StreamResponse(
            headers={"Content-Length": str(len(data)), "ETag": '"e"', "Last-Modified": "Thu, 22 Jan 2026 12:00:00 GMT"}
        )
        await answer.prepare(request)
        await answer.write(data[: len(data) // 2])
        return await cut(request)


def error(status: int, code: str) -> web.Response:
    body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message><StringToSign>{SECRET}</StringToSign></Error>"
    return web.Response(status=status, text=body, content_type="application/xml")


def answering(status: int, code: str) -> Fault:
    async def fault(_: web.Request) -> web.StreamResponse:
        return error(status, code)

    return fault


async def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport
    request.transport.abort()
    return web.Response()


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
async def server(bucket: Bucket) -> AsyncIterator[TestServer]:
    server = TestServer(bucket.app())
    await server.start_server()
    yield server
    await server.close()


Open = Callable[..., S3Store]


@pytest.fixture
async def opened(server: TestServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    stores: list[S3Store] = []
    monkeypatch.setattr(module, "_CLOSE_PAUSE_SECONDS", 0.01)

    def open_one(*, retries: int = 0, **changes: Any) -> S3Store:
        settings: dict[str, Any] = {
            "kind": "s3",
            "bucket": "cards",
            "endpoint": str(server.make_url("/")),
            "access_key_id": SecretStr("AKIA"),
            "secret_access_key": SecretStr(SECRET),
            "allow_http": True,
        }
        stores.append(S3Store(S3Settings(**{**settings, **changes}), retries=retries))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


class TestLostAnswers:
    async def test_the_existing_object_is_recognised_as_own(self, bucket: Bucket, opened: Open) -> None:
        bucket.faults.append(bucket.store_and_lose_the_answer)
        assert await opened().create("k", b"mine") is True
        assert bucket.seen == ["PUT", "GET"]
        assert bucket.headers[0]["If-None-Match"] == "*"

    async def test_an_existing_object_of_another_is_a_loss(self, bucket: Bucket, opened: Open) -> None:
        bucket.objects["k"] = b"other's"
        bucket.faults.append(cut)
        assert await opened().create("k", b"mine") is False

    async def test_a_missing_object_is_for_the_caller_to_repeat(self, bucket: Bucket, opened: Open) -> None:
        """The request may still land: then the repetition finds its own bytes."""
        bucket.faults.append(cut)
        store = opened()
        with pytest.raises(StoreUnavailable, match=r"Could not create 'k'"):
            await store.create("k", b"mine")
        assert await store.create("k", b"mine") is True

    async def test_the_clients_own_repetition_is_no_loss(self, bucket: Bucket, opened: Open) -> None:
        """It repeats a request whose answer was lost, and is refused by its own object."""
        bucket.faults.append(bucket.store_and_lose_the_answer)
        assert await opened(retries=2).create("k", b"mine") is True

    async def test_a_success_with_an_error_in_its_body_is_none(self, bucket: Bucket, opened: Open) -> None:
        """S3 may answer 200 before it fails; such an answer has no ETag."""

        async def late(_: web.Request) -> web.StreamResponse:
            return error(200, "InternalError")

        bucket.faults.append(late)
        store = opened()
        with pytest.raises(StoreUnavailable):
            await store.create("k", b"mine")
        assert await store.create("k", b"mine") is True
        assert bucket.objects["k"] == b"mine"

    async def test_an_object_deleted_before_it_is_read_back_is_created(self, bucket: Bucket, opened: Open) -> None:
        """No object of another is there, so the creation has not lost against one."""
        bucket.faults += [answering(412, "PreconditionFailed")]
        assert await opened().create("k", b"mine") is True
        assert bucket.objects["k"] == b"mine"

    @pytest.mark.parametrize("conflicts", [1, 3])
    async def test_a_conflict_with_a_request_that_fails_is_tried_again(
        self, bucket: Bucket, opened: Open, conflicts: int
    ) -> None:
        """S3 answers so while another request for the key is under way: nothing is decided by it."""
        for _ in range(conflicts):
            bucket.faults += [answering(409, "ConditionalRequestConflict"), None]
        assert await opened().create("k", b"mine") is True
        assert bucket.seen == ["PUT", "GET"] * conflicts + ["PUT"]

    async def test_a_conflict_with_a_request_that_wins_is_a_loss(self, bucket: Bucket, opened: Open) -> None:
        async def conflict(request: web.Request) -> web.StreamResponse:
            bucket.objects["k"] = b"other's"
            return await answering(409, "ConditionalRequestConflict")(request)

        bucket.faults.append(conflict)
        assert await opened().create("k", b"mine") is False

    async def test_a_conflict_with_ones_own_lost_request_is_no_loss(self, bucket: Bucket, opened: Open) -> None:
        async def conflict(request: web.Request) -> web.StreamResponse:
            await bucket.answer(request)
            return await answering(409, "ConditionalRequestConflict")(request)

        bucket.faults.append(conflict)
        assert await opened().create("k", b"mine") is True

    async def test_conflicts_without_end_are_for_the_caller_to_repeat(self, bucket: Bucket, opened: Open) -> None:
        for _ in range(4):
            bucket.faults += [answering(409, "ConditionalRequestConflict"), None]
        store = opened()
        with pytest.raises(StoreUnavailable, match=r"Could not create 'k'.*there is no such object"):
            await store.create("k", b"mine")
        assert await store.create("k", b"mine") is True

    async def test_a_silent_server_does_not_hold_us(self, bucket: Bucket, opened: Open) -> None:
        bucket.faults += [never, None]
        store = opened(request_timeout_seconds=0.05)
        with pytest.raises(StoreUnavailable):
            await store.create("k", b"mine")

    async def test_what_the_client_does_not_bound_is_bounded_here(
        self, bucket: Bucket, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket.objects["k"] = b""
        bucket.faults.append(never)
        store = opened()
        monkeypatch.setattr(store, "_deadline", 0.05)
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await store.get("k")


async def test_a_server_without_bulk_deletion_is_asked_key_by_key(bucket: Bucket, opened: Open) -> None:
    store = opened()
    for keys in (["a", "b", "c"], ["d", "e"]):
        bucket.objects = dict.fromkeys(keys, b"")
        await store.delete_all([*keys, "missing"])
        assert bucket.objects == {}
    assert bucket.seen == ["POST", *["DELETE"] * 7]


CODES = {403: "store_forbidden", 507: "store_full"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "code", "words"),
        [
            (403, "AccessDenied", "allow this key to get, put, list and delete"),
            (403, "SignatureDoesNotMatch", "secret does not belong"),
            (403, "InvalidAccessKeyId", "does not know the access key"),
            (404, "NoSuchBucket", "create it, or correct store.bucket"),
            (501, "NotImplemented", "does not support conditional writes"),
            (503, "SlowDown", "slow down"),
            (507, "XMinioStorageFull", "free space"),
            (500, "InternalError", "answered 500 InternalError"),
            (400, "Odd", "answered 400 Odd"),
        ],
    )
    async def test_the_code_says_what_to_do_and_the_body_is_not_repeated(
        self, bucket: Bucket, opened: Open, *, status: int, code: str, words: str
    ) -> None:
        store = opened()
        for call in (lambda: store.get("k"), lambda: store.delete("k"), lambda: anext(store.stream("k"))):
            bucket.faults.append(answering(status, code))
            with pytest.raises(StoreUnavailable, match=words) as caught:
                await call()
            assert caught.value.code == CODES.get(status, "store_unavailable")
            assert SECRET not in "".join(_chain(caught.value))
        bucket.faults += [answering(status, code), None]
        with pytest.raises(StoreUnavailable, match=words):
            await store.create("k", b"")

    async def test_slow_down_asks_for_a_pause(self, bucket: Bucket, opened: Open) -> None:
        bucket.faults.append(answering(503, "SlowDown"))
        with pytest.raises(StoreUnavailable) as caught:
            await opened().get("k")
        assert caught.value.retry_after == 5

    async def test_a_server_that_is_not_there(self, opened: Open) -> None:
        with pytest.raises(StoreUnavailable, match="check that the endpoint is right"):
            await opened(endpoint="http://127.0.0.1:9").get("k")

    async def test_5xx_answers_are_repeated_within_the_call(self, bucket: Bucket, opened: Open) -> None:
        bucket.objects["k"] = b"x"
        bucket.faults.append(answering(500, "InternalError"))
        assert await opened(retries=1).get("k") == b"x"

    async def test_deleting_what_a_server_says_is_missing_is_no_error(self, bucket: Bucket, opened: Open) -> None:
        bucket.faults.append(answering(404, "NoSuchKey"))
        await opened().delete("k")


class TestStreams:
    async def test_a_read_that_is_cut_goes_on_where_it_was(self, bucket: Bucket, opened: Open) -> None:
        data = bytes(range(256)) * 4096
        bucket.objects["k"] = data
        bucket.faults += [bucket.cut_in_the_middle]
        assert b"".join([piece async for piece in opened().stream("k", chunk_bytes=10_000)]) == data

    async def test_a_read_that_brings_nothing_more_is_given_up(self, bucket: Bucket, opened: Open) -> None:
        bucket.objects["k"] = b"x" * 1000
        bucket.faults += [bucket.cut_in_the_middle, cut, cut]
        with pytest.raises(StoreUnavailable, match="Could not read"):
            [piece async for piece in opened().stream("k", chunk_bytes=10)]
        assert len(bucket.seen) == 2

    async def test_a_read_cut_after_the_last_byte_is_whole(self, bucket: Bucket, opened: Open) -> None:
        """The rest that is asked for begins at the end, and the server knows no such range."""
        bucket.faults += [answering(416, "InvalidRange")]
        pieces = [piece async for piece in opened()._stream_from("k", 100, 10)]
        assert pieces == []

    async def test_a_missing_object_is_named(self, opened: Open) -> None:
        with pytest.raises(ObjectNotFound):
            await anext(opened().stream("k"))


async def test_a_missing_ca_file_is_named(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"store_ca_unreadable.*none\.pem"):
        opened(ca_file=tmp_path / "none.pem")


async def test_a_ca_file_must_hold_certificates(opened: Open, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(_certificate())
    assert repr(opened(ca_file=file)) == "S3Store('s3://cards/')"
    file.write_bytes(b"nothing")
    with pytest.raises(FatalError, match=r"store_ca_unreadable.*no certificate"):
        opened(ca_file=file)


def _certificate() -> bytes:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return built.sign(key, None).public_bytes(Encoding.PEM)


def test_a_process_that_ends_right_after_close_ends_well(tmp_path: Path) -> None:
    """The client's runtime aborts an interpreter that ends too soon: close() pauses."""
    code = textwrap.dedent(
        """
        import asyncio
        from pipeline.storage import S3Settings, S3Store, StoreUnavailable
        async def main():
            store = S3Store(S3Settings(kind="s3", bucket="cards", endpoint="http://127.0.0.1:9", allow_http=True,
                                       access_key_id="a", secret_access_key="b"), retries=0)
            try:
                await store.get("k")
            except StoreUnavailable:
                pass
            await store.close()
        asyncio.run(main())
        """
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, cwd=tmp_path)
        assert done.returncode == 0


def _chain(error: BaseException | None) -> list[str]:
    found = []
    while error is not None:
        found.append(f"{error!r} {error}")
        error = error.__cause__
    return found

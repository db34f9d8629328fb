"""Callbacks over loopback: what is sent where, and what comes of each answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from structlog.testing import capture_logs

from pipeline.errors import TransientError
from pipeline.jobs.ecs import CallbackSettings, HttpCaller, TokenProvider, TokenWatch, request_id
from pipeline.jobs.ecs.testing import ACCEPTED, Call, FakeCaller, FakeTokenProvider
from pipeline.jobs.partners import Answer
from pipeline.observability import Metrics
from pipeline.outbound import AddressRefused, HostRules, NetworkSettings, TokenUnavailable, open_session

GUID = UUID("cffde776-1d2a-4614-8023-a5148e411462")
BODY = b'{"success":true,"records_processed":200,"records_failed":0,"error_message":null}'
REQUEST_ID = request_id(GUID, BODY)
NOW = datetime(2026, 1, 21, 22, 50, tzinfo=UTC)
TOKEN = "first-opaque-token"

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


def confirmation(status: str = "RESULT_RECEIVED") -> dict[str, Any]:
    """Return the success answer of the seed."""
    attributes = {"status": status, "message": "Result upload confirmed"}
    return {
        "data": {"type": "batch-job-result", "id": str(GUID), "attributes": attributes},
        "meta": {"requestId": "req-1"},
    }


@dataclass
class Ecs:
    """A server that answers from a script, and records the requests."""

    script: list[Respond]
    seen: list[tuple[web.Request, bytes]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Play the next line; the last one stays."""
        self.seen.append((request, await request.read()))
        respond = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await respond(request)


def says(status: int, body: object = b"", **headers: str) -> Respond:
    """Return a line of the script."""

    async def respond(_request: web.Request) -> web.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(status=status, body=raw, headers={name.replace("_", "-"): v for name, v in headers.items()})

    return respond


@dataclass
class World:
    """One caller and the server that it calls."""

    caller: HttpCaller
    ecs: Ecs
    url: str
    tokens: FakeTokenProvider
    metrics: Metrics
    watch: TokenWatch
    dates: list[tuple[str | None, datetime]]

    async def notify(self, url: str | None = None) -> Answer:
        """Send the callback."""
        return await self.caller.notify(
            SecretStr(url or self.url), job_guid=str(GUID), body=BODY, request_id=REQUEST_ID
        )

    def counted(self, reaction: str, code: str) -> float | None:
        """Return how many answers have this label."""
        labels = {"integration": "acme", "result": reaction, "code": code}
        return self.metrics.registry.get_sample_value("pipeline_callback_answers_total", labels)


@asynccontextmanager
async def world(
    *script: Respond,
    tokens: FakeTokenProvider | None = None,
    rules: HostRules | None = None,
    timeout_seconds: float = 5.0,
) -> AsyncIterator[World]:
    """Start a server and a caller that may reach it."""
    ecs = Ecs(list(script) or [says(200, confirmation())])
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", ecs.answer)
    settings = CallbackSettings(token_file=Path("unused"), timeout_seconds=timeout_seconds)
    async with TestServer(app) as server:
        rules = rules or HostRules(callback=(f"127.0.0.1:{server.port}",), allow_http=True, allow_private=True)
        provider = tokens or FakeTokenProvider(TOKEN)
        async with open_session(rules, NetworkSettings(), "callback") as session:
            metrics = Metrics()
            dates: list[tuple[str | None, datetime]] = []
            watch = TokenWatch(
                as_provider(provider), integration="acme", metrics=metrics, clock=lambda: NOW, resume=no_resume
            )
            await watch.poll()
            caller = HttpCaller(
                settings,
                integration="acme",
                rules=rules,
                session=session,
                tokens=as_provider(provider),
                metrics=metrics,
                clock=lambda: NOW,
                watch=watch,
                saw_date=lambda header, began: dates.append((header, began)),
            )
            url = f"http://127.0.0.1:{server.port}/partner/batch-jobs/{GUID}/result-uploaded?a=%2F"
            yield World(caller, ecs, url, provider, metrics, watch, dates)


async def no_resume(code: str | None = None) -> None:
    """Resume nothing."""
    del code


def as_provider(provider: TokenProvider) -> TokenProvider:
    """Have the type checker hold the fake against the protocol."""
    return provider


async def test_the_date_of_an_answer_is_compared_with_the_clock() -> None:
    """ECS' clock decides when its URLs expire."""
    async with world(says(200, confirmation(), Date="Wed, 21 Jan 2026 22:40:00 GMT")) as w:
        await w.notify()
    assert w.dates == [("Wed, 21 Jan 2026 22:40:00 GMT", NOW)]


async def test_the_request_is_as_documented() -> None:
    """One POST, plain JSON, bearer token, idempotency key, the URL byte for byte."""
    async with world() as w:
        assert await w.notify() == ACCEPTED
        ((request, body),) = w.ecs.seen
    assert (request.method, body) == ("POST", BODY)
    assert request.raw_path == f"/partner/batch-jobs/{GUID}/result-uploaded?a=%2F"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Accept"] == "application/vnd.api+json, application/json"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["X-Request-Id"] == REQUEST_ID
    assert request.headers["Content-Length"] == str(len(BODY))
    assert w.counted("accepted", "callback_accepted") == 1


@pytest.mark.parametrize(
    "media_type", ["text/html", "application/vnd.api+json", "application/octet-stream", "nonsense"]
)
async def test_the_media_type_of_a_confirmation_does_not_matter(media_type: str) -> None:
    """ECS documents none."""
    async with world(says(201, confirmation(), Content_Type=media_type)) as w:
        assert (await w.notify()).result == "accepted"


async def test_an_unknown_status_is_accepted_and_logged_as_warning() -> None:
    """With what ECS's support will ask for."""
    async with world(says(200, confirmation("ARCHIVED"))) as w:
        with capture_logs() as logs:
            assert (await w.notify()).result == "accepted"
    (line,) = logs
    assert (line["log_level"], line["warning"], line["partner_request_id"]) == ("warning", "unknown_status", "req-1")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "callback_refused"),
        (404, "callback_refused"),
        (409, "callback_conflict"),
        (415, "callback_refused"),
        (422, "callback_refused"),
    ],
)
async def test_refusals_are_answers(status: int, code: str) -> None:
    """Repeating cannot help: the stage gets the answer, sent once."""
    async with world(says(status, b"", Location="/elsewhere")) as w:
        answer = await w.notify()
        assert (answer.result, answer.status, answer.code) == ("refused", status, code)
        assert len(w.ecs.seen) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_passing_trouble_is_transient(status: int) -> None:
    """With the pause that ECS asks for."""
    async with world(says(status, b"<html>busy</html>", Retry_After="7")) as w:
        with pytest.raises(TransientError, match="busy") as caught:
            await w.notify()
        assert caught.value.retry_after == 7
        assert len(w.ecs.seen) == 1
        assert w.counted("retry", caught.value.code) == 1


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b"<html>We are back soon</html>", "callback_unclear"),
        (204, b"", "callback_unclear"),
        (302, b"", "callback_redirected"),
        (403, b"", "callback_forbidden"),
    ],
)
async def test_an_answer_that_is_not_about_the_job_is_transient(status: int, body: bytes, code: str) -> None:
    """A gateway or a maintenance page answers: the partner has not refused the outcome."""
    async with world(says(status, body, Location="/elsewhere")) as w:
        with pytest.raises(TransientError, match=f"ECS answered {status}") as caught:
            await w.notify()
        assert caught.value.code == code
        assert len(w.ecs.seen) == 1


async def test_retry_after_may_be_a_date_and_may_be_missing() -> None:
    async with world(says(503, b"", Retry_After="Wed, 21 Jan 2026 22:51:00 GMT"), says(503)) as w:
        with pytest.raises(TransientError) as caught:
            await w.notify()
        assert caught.value.retry_after == 60
        with pytest.raises(TransientError) as caught:
            await w.notify()
        assert caught.value.retry_after is None


async def test_a_401_renews_the_token_once() -> None:
    """The second request carries the new token, and is otherwise the same."""
    tokens = FakeTokenProvider(TOKEN, "second-opaque-token")
    async with world(says(401), says(200, confirmation()), tokens=tokens) as w:
        assert (await w.notify()).result == "accepted"
        (first, first_body), (second, second_body) = w.ecs.seen
    assert second.headers["Authorization"] == "Bearer second-opaque-token"
    assert first_body == second_body
    assert first.headers["X-Request-Id"] == second.headers["X-Request-Id"]
    assert w.counted("unauthorized", "callback_unauthorized") == 1


async def test_the_alarm_of_the_token_follows_the_answers() -> None:
    async with world(says(401, {"errors": [{"title": "revoked"}]}), says(200, confirmation())) as w:
        assert w.watch.check().ok
        with pytest.raises(TransientError):
            await w.notify()
        assert "ECS rejects the callback token (revoked" in w.watch.check().message
        await w.notify()
        assert w.watch.check().ok


async def test_a_second_401_is_transient_with_an_alarm() -> None:
    """The job waits for a token that ECS accepts."""
    tokens = FakeTokenProvider(TOKEN, "second-opaque-token", "third-opaque-token")
    async with world(says(401, {"errors": [{"title": "expired"}]}), tokens=tokens) as w:
        with capture_logs() as logs, pytest.raises(TransientError, match="ECS answered 401: expired") as caught:
            await w.notify()
        assert caught.value.code == "callback_unauthorized"
        assert len(w.ecs.seen) == 2
    assert [line["event"] for line in logs if line["log_level"] == "error"] == [
        "callback_token_rejected",
        "token_health_changed",
    ]


async def test_the_same_token_is_not_sent_again() -> None:
    """ECS would reject it again."""
    async with world(says(401)) as w:
        with pytest.raises(TransientError, match="callback_unauthorized"):
            await w.notify()
        assert (len(w.ecs.seen), w.tokens.renewals) == (1, 1)


async def test_a_token_that_is_known_to_be_expired_is_not_sent() -> None:
    """ECS would answer 401. The token may have been replaced a moment ago, so it is read again first."""
    tokens = FakeTokenProvider(TOKEN, expires_at=NOW)
    async with world(tokens=tokens) as w:
        for call in (w.caller.ready, w.notify):
            with pytest.raises(
                TransientError, match=r"expired at 2026-01-21 22:50:00\+00:00.*callback.token_file"
            ) as caught:
                await call()
            assert caught.value.code == "token_expired"
        assert w.ecs.seen == []
        assert tokens.renewals == 2
        tokens.expires_at = NOW + timedelta(seconds=1)
        await w.caller.ready()
        assert (await w.notify()).result == "accepted"


async def test_without_a_token_nothing_is_sent() -> None:
    """It is tried again when there is one."""
    tokens = FakeTokenProvider(TOKEN, failure=TokenUnavailable("token_unreadable", "gone"))
    async with world(tokens=tokens) as w:
        with pytest.raises(TokenUnavailable):
            await w.notify()
        assert w.ecs.seen == []


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://other.example/x", "host_not_allowed"),
        ("http://127.0.0.1:1/x", "host_not_allowed"),
        ("ftp://127.0.0.1/x", "url_scheme"),
        ("not a url", "url_malformed"),
    ],
)
async def test_the_token_is_for_the_configured_host_alone(url: str, code: str) -> None:
    """Another host, port or scheme gets neither token nor body; the token is not even read."""
    tokens = FakeTokenProvider(TOKEN, failure=TokenUnavailable("token_unreadable", "gone"))
    async with world(tokens=tokens) as w:
        with pytest.raises(AddressRefused) as caught:
            await w.notify(url)
        assert caught.value.code == code


async def test_http_is_refused_unless_allowed() -> None:
    """A bearer token does not go over plain HTTP by accident."""
    async with world(rules=HostRules(callback=("127.0.0.1",), allow_private=True)) as w:
        with pytest.raises(AddressRefused) as caught:
            await w.notify()
        assert caught.value.code == "url_http_not_allowed"


async def test_a_name_that_leads_to_a_private_address_is_refused() -> None:
    """The session looks at the address that it really connects to."""
    async with world() as w:
        port = w.url.split(":")[2].split("/")[0]
        rules = HostRules(callback=(f"localhost:{port}",), allow_http=True)
        async with world(rules=rules) as inner:
            with pytest.raises(AddressRefused) as caught:
                await inner.notify(f"http://localhost:{port}/x")
        assert caught.value.code == "address_not_allowed"
        assert w.ecs.seen == []


async def test_a_redirect_is_not_followed() -> None:
    """Following it would re-send the body."""
    async with world(says(307, b"", Location="/other")) as w:
        with pytest.raises(TransientError, match="callback_redirected"):
            await w.notify()
        assert len(w.ecs.seen) == 1


async def test_a_refused_connection_means_not_sent() -> None:
    """ECS cannot have received the callback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    rules = HostRules(callback=(f"127.0.0.1:{port}",), allow_http=True, allow_private=True)
    async with world(rules=rules) as w:
        with pytest.raises(TransientError, match="no connection") as caught:
            await w.notify(f"http://127.0.0.1:{port}/x?token=planted")
        assert caught.value.code == "callback_not_sent"
        assert "planted" not in str(caught.value)
        assert w.counted("retry", "callback_not_sent") == 1


async def test_a_connection_that_is_never_made_means_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to connect is bounded on its own."""

    async def never(*_args: object, **_kwargs: object) -> None:
        await asyncio.sleep(30)

    async with world(timeout_seconds=0.1) as w:
        monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", never)
        with pytest.raises(TransientError) as caught:
            await w.notify()
        assert caught.value.code == "callback_not_sent"


async def test_silence_means_unanswered() -> None:
    """ECS may have received the callback, so a later conflict is a confirmation."""

    async def silent(_request: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response()

    async with world(silent, timeout_seconds=0.1) as w:
        with pytest.raises(TransientError, match=r"no answer in 0\.1 s") as caught:
            await w.notify()
        assert caught.value.code == "callback_unanswered"
        assert len(w.ecs.seen) == 1


async def test_a_connection_cut_before_the_answer_means_unanswered() -> None:
    """The request was read, the answer is lost."""

    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with world(cut) as w:
        with pytest.raises(TransientError, match="connection broke") as caught:
            await w.notify()
        assert caught.value.code == "callback_unanswered"


async def test_an_answer_cut_in_its_middle_means_unanswered() -> None:
    """A status without its body confirms nothing."""

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"data"')
        assert request.transport is not None
        request.transport.abort()
        return response

    async with world(half) as w:
        with pytest.raises(TransientError) as caught:
            await w.notify()
        assert caught.value.code == "callback_unanswered"


async def test_a_huge_answer_is_read_up_to_a_bound() -> None:
    """64 KiB are looked at, the rest is left on the wire."""
    async with world(says(200, b" " * 5_000_000 + json.dumps(confirmation()).encode())) as w:
        with pytest.raises(TransientError, match="callback_unclear"):
            await w.notify()


async def test_a_compressed_answer_is_understood() -> None:
    """Gateways may compress an answer although the request asks for identity."""
    packed = gzip.compress(json.dumps(confirmation()).encode())
    async with world(says(200, packed, Content_Encoding="gzip"), says(200, b"rubbish", Content_Encoding="gzip")) as w:
        assert (await w.notify()).result == "accepted"
        with pytest.raises(TransientError, match="callback_unclear"):
            await w.notify()


async def test_cancelling_a_callback_is_not_swallowed() -> None:
    """A worker that loses its lease stops in mid-request."""

    async def silent(_request: web.Request) -> web.Response:
        await asyncio.sleep(0.05)
        return web.Response()

    async with world(silent) as w:
        task = asyncio.ensure_future(w.notify())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_no_secret_reaches_log_error_or_answer() -> None:
    """Even when ECS echoes token, card and URL."""
    echo = f"Bearer {TOKEN} or {TOKEN} card 100001 http://h/p?sig=planted"
    async with world(says(400, {"errors": [{"detail": echo}]}), says(500, echo.encode())) as w:
        with capture_logs() as logs:
            answer = await w.notify()
            with pytest.raises(TransientError) as caught:
                await w.notify()
    for text in (repr(logs), repr(answer), str(caught.value)):
        for secret in (TOKEN, "100001", "planted"):
            assert secret not in text


async def test_the_fake_caller_plays_its_script() -> None:
    """The tests of stages use it."""
    refused = Answer("refused", 409, "callback_conflict", "")
    fake = FakeCaller([refused, TransientError("callback_unanswered", "lost")])
    url = SecretStr("https://h/p")
    assert await fake.notify(url, job_guid="g", body=b"b", request_id="r") == refused
    with pytest.raises(TransientError):
        await fake.notify(url, job_guid="g", body=b"b", request_id="r")
    assert await fake.notify(url, job_guid="g", body=b"b", request_id="r") == ACCEPTED
    assert fake.calls == [Call("https://h/p", "g", b"b", "r")] * 3

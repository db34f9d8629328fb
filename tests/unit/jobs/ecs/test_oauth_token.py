"""OAuth client credentials in ECS's form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from structlog.testing import capture_logs

from pipeline.jobs.ecs import CallbackSettings, EcsPartner, OAuthTokenProvider, TokenUnavailable
from pipeline.jobs.ecs.oauth_answers import read_token
from pipeline.jobs.ecs.settings import OAuthSettings
from pipeline.jobs.partners import Notifications, NotifierContext
from pipeline.observability import Metrics
from pipeline.outbound import HostRules, NetworkSettings, open_session

NOW = datetime(2026, 1, 21, 22, 50, tzinfo=UTC)
SECRET = "planted-client-secret"


def document(access_token: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return ECS's answer, with some attributes changed; None leaves one out."""
    token = "opaque-access-token" if access_token is None else access_token
    attributes = {"access_token": token, "token_type": "Bearer", "expires_in": 86_400, "scope": "x"} | changes
    present = {name: value for name, value in attributes.items() if value is not None}
    return {"data": {"type": "token", "attributes": present}}


@dataclass
class TokenServer:
    """Gives numbered tokens, or what it was told to answer."""

    seen: list[tuple[web.Request, Any]] = field(default_factory=list)
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    life: float = 86_400
    delay: float = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one token request."""
        self.seen.append((request, await request.json()))
        await asyncio.sleep(self.delay)
        body = self.body if self.body is not None else document(f"token-{len(self.seen)}", expires_in=self.life)
        return web.Response(status=self.status, text=json.dumps(body), headers=self.headers)


@dataclass
class World:
    """A provider, its server and its clock."""

    tokens: OAuthTokenProvider
    server: TokenServer
    known: list[SecretStr]
    now: datetime = NOW

    def clock(self) -> datetime:
        """Tell the time of this world."""
        return self.now

    def wait(self, seconds: float) -> None:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)

    async def value(self) -> str:
        """Return the current token's text."""
        return (await self.tokens.token()).value.get_secret_value()


@asynccontextmanager
async def world(*, rules: HostRules | None = None, timeout_seconds: float = 5.0, **oauth: Any) -> AsyncIterator[World]:
    """Start a token server and a provider that may reach it."""
    server = TokenServer()
    app = web.Application()
    app.router.add_post("/auth/token", server.answer)
    async with TestServer(app) as running:
        url = f"http://127.0.0.1:{running.port}/auth/token"
        allowed = rules or HostRules(callback=(f"127.0.0.1:{running.port}",), allow_http=True, allow_private=True)
        fields = {"token_url": url, "client_id": "me", "client_secret": SECRET, **oauth}
        settings = CallbackSettings.model_validate({"oauth": fields, "timeout_seconds": timeout_seconds})
        async with open_session(allowed, NetworkSettings(), "callback") as session:
            made: list[World] = []
            known: list[SecretStr] = []
            tokens = OAuthTokenProvider(
                OAuthSettings.model_validate(fields),
                settings,
                integration="acme",
                session=session,
                clock=lambda: made[0].now if made else NOW,
                remember=known.append,
            )
            made.append(World(tokens, server, known))
            yield made[0]


async def test_the_request_is_json_and_the_answer_json_api() -> None:
    """Not RFC 6749's form; secret and token become known to the redaction."""
    async with world(scope="batch") as w:
        token = await w.tokens.token()
        assert token.value == SecretStr("token-1")
        assert token.expires_at == NOW + timedelta(days=1)
        ((request, body),) = w.server.seen
        assert request.headers["Content-Type"] == "application/json"
        assert body == {
            "client_id": "me",
            "client_secret": SECRET,
            "grant_type": "client_credentials",
            "scope": "batch",
        }
        assert w.known == [SecretStr(SECRET), token.value]


async def test_the_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    """Read again before every request; no scope is sent unless configured."""
    path = tmp_path / "secret"
    path.write_text("from-a-file\n")
    async with world(client_secret=None, client_secret_file=path) as w:
        await w.value()
        assert w.server.seen[0][1] == {
            "client_id": "me",
            "client_secret": "from-a-file",
            "grant_type": "client_credentials",
        }
        path.unlink()
        w.wait(86_400)
        with pytest.raises(TokenUnavailable, match="OAuth client secret"):
            await w.value()


async def test_a_token_is_kept_until_shortly_before_it_expires() -> None:
    """600 seconds before, the next one is fetched."""
    async with world() as w:
        assert await w.value() == "token-1"
        w.wait(86_400 - 601)
        assert await w.value() == "token-1"
        w.wait(2)
        assert await w.value() == "token-2"
        assert len(w.server.seen) == 2


async def test_a_short_life_is_renewed_in_its_middle() -> None:
    """Otherwise a token of five minutes would be fetched each time."""
    async with world() as w:
        w.server.life = 300
        assert await w.value() == "token-1"
        w.wait(149)
        assert await w.value() == "token-1"
        w.wait(2)
        assert await w.value() == "token-2"


async def test_many_callers_cause_one_request() -> None:
    """Single-flight, also when it fails."""
    async with world() as w:
        w.server.delay = 0.02
        assert set(await asyncio.gather(*(w.value() for _ in range(20)))) == {"token-1"}
        assert len(w.server.seen) == 1
        w.wait(86_400)
        w.server.status = 500
        results = await asyncio.gather(*(w.value() for _ in range(20)), return_exceptions=True)
        assert {type(result) for result in results} == {TokenUnavailable}
        assert len(w.server.seen) == 2


async def test_a_cancelled_caller_leaves_the_fetch_to_the_next() -> None:
    """Nobody waits for someone who has gone."""
    async with world() as w:
        w.server.delay = 0.02
        first = asyncio.ensure_future(w.value())
        await asyncio.sleep(0.01)
        second = asyncio.ensure_future(w.value())
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "token-2"
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_a_401_renews_once_for_all() -> None:
    """Who comes with the old token gets the new one without a request."""
    async with world() as w:
        old = await w.tokens.token()
        w.wait(60)
        renewed = await asyncio.gather(*(w.tokens.renew(old) for _ in range(5)))
        assert {token.value.get_secret_value() for token in renewed} == {"token-2"}
        assert (await w.tokens.renew(old)).value == SecretStr("token-2")
        assert len(w.server.seen) == 2


async def test_a_token_that_is_seconds_old_is_not_renewed() -> None:
    """A storm of 401s does not become a storm of token requests."""
    async with world() as w:
        token = await w.tokens.token()
        w.wait(9)
        assert await w.tokens.renew(token) is token
        assert len(w.server.seen) == 1


async def test_a_failed_renewal_keeps_the_old_token_while_it_is_good() -> None:
    """With a warning; the token server is not asked again at once."""
    async with world() as w:
        await w.value()
        w.server.status = 503
        w.wait(86_400 - 500)
        with capture_logs() as logs:
            assert await w.value() == "token-1"
            assert await w.value() == "token-1"
        assert len(w.server.seen) == 2
        assert [line["event"] for line in logs] == ["old_token_kept"] * 2
        w.wait(6)
        w.server.status = 200
        assert await w.value() == "token-3"


async def test_an_expired_token_is_not_given_after_a_failed_renewal() -> None:
    """Then there is none."""
    async with world() as w:
        await w.value()
        w.server.status = 500
        w.wait(86_400)
        with pytest.raises(TokenUnavailable):
            await w.value()


async def test_a_refusal_says_what_the_server_wrote_without_the_secret() -> None:
    """Status and words, masked; Retry-After is honoured."""
    async with world() as w:
        w.server.status, w.server.headers = 429, {"Retry-After": "60"}
        w.server.body = {"errors": [{"title": "slow down", "detail": f"client_secret {SECRET}"}]}
        with pytest.raises(TokenUnavailable, match="answered 429: slow down") as caught:
            await w.value()
        assert SECRET not in str(caught.value)
        assert (caught.value.code, caught.value.retry_after) == ("callback_token_refused", 60)
        w.wait(59)
        with pytest.raises(TokenUnavailable) as again:
            await w.value()
        assert again.value.retry_after == 1
        assert len(w.server.seen) == 1
        w.wait(1)
        w.server.status, w.server.body = 200, None
        assert await w.value() == "token-2"


async def test_an_unreachable_server_is_transient() -> None:
    """Time out."""
    async with world(timeout_seconds=0.02) as w:
        w.server.delay = 0.05
        with pytest.raises(TokenUnavailable, match="token server 127") as caught:
            await w.value()
        assert caught.value.code == "callback_token_unanswered"


async def test_an_address_that_is_not_allowed_is_no_verdict_on_the_callback() -> None:
    """The callback waits until the configuration is right."""
    async with world(rules=HostRules(callback=("127.0.0.1",))) as w:
        with pytest.raises(TokenUnavailable, match=r"token_url is not allowed.*url_http_not_allowed"):
            await w.value()


async def test_a_token_without_expiry_is_renewed_on_401_only() -> None:
    """Neither ``expires_in`` nor ``exp``."""
    async with world() as w:
        w.server.body = document(expires_in=None)
        token = await w.tokens.token()
        assert token.expires_at is None
        w.wait(10 * 86_400)
        assert await w.tokens.token() is token
        w.server.status = 500
        with pytest.raises(TokenUnavailable):
            await w.tokens.renew(token)
        assert await w.tokens.token() is token


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "document"),
        (b"<html>", "document"),
        (b"[]", "document"),
        (b"{}", "data"),
        (json.dumps({"access_token": "flat-as-in-the-rfc"}).encode(), "data"),
        (json.dumps({"data": {"attributes": {}}}).encode(), "data.attributes.access_token"),
        (json.dumps(document(token_type="mac")).encode(), "data.attributes.token_type"),
        (json.dumps(document(expires_in=-1)).encode(), "data.attributes.expires_in"),
        (json.dumps(document(expires_in=1e99)).encode(), "data.attributes.expires_in"),
        (json.dumps(document("planted token")).encode(), "one word"),
        (json.dumps(document("")).encode(), "is empty"),
    ],
)
def test_answers_that_are_not_as_documented(body: bytes, where: str) -> None:
    """The message names the field, never a value."""
    with pytest.raises(TokenUnavailable, match=where) as caught:
        read_token(body, now=NOW)
    assert caught.value.code == "callback_token_malformed"
    assert "planted" not in str(caught.value)


def test_forms_of_a_good_answer() -> None:
    """``expires_in`` as text, another case of the type, no type; the token's own ``exp`` where there is no other."""
    assert read_token(json.dumps(document(expires_in="60")).encode(), now=NOW).expires_at == NOW + timedelta(minutes=1)
    assert read_token(json.dumps(document(token_type="bearer")).encode(), now=NOW).expires_at is not None
    signed = jwt.encode({"exp": 4_000_000_000}, "k" * 32, algorithm="HS256")
    bare = read_token(json.dumps(document(signed, token_type=None, expires_in=None)).encode(), now=NOW)
    assert bare.expires_at == datetime.fromtimestamp(4_000_000_000, UTC)


def surroundings(hosts: HostRules, metrics: Metrics) -> NotifierContext:
    return NotifierContext("acme", hosts, NetworkSettings(), metrics, lambda: NOW, lambda _secret: None)


async def until_usable(notifications: Notifications) -> None:
    """Run the services until the readiness check of the token passes."""
    services = [asyncio.create_task(service()) for service in notifications.services]
    async with asyncio.timeout(10):
        while not notifications.checks["token"]().ok:  # noqa: ASYNC110 - a check has no event
            await asyncio.sleep(0.01)
    for service in services:
        service.cancel()


async def test_a_whole_integration_by_oauth() -> None:
    """The token server's host need not be a callback host, and gets no bearer token."""
    server = TokenServer()
    app = web.Application()
    app.router.add_post("/auth/token", server.answer)
    async with TestServer(app) as running:
        oauth = {"token_url": f"http://127.0.0.1:{running.port}/auth/token", "client_id": "me", "client_secret": SECRET}
        metrics = Metrics()
        hosts = HostRules(callback=("ecs.example",), allow_http=True, allow_private=True)
        partner = EcsPartner(CallbackSettings.model_validate({"oauth": oauth}))
        async with partner.open_notifications(surroundings(hosts, metrics)) as notifications:
            await until_usable(notifications)
            labels = {"integration": "acme"}
            assert metrics.registry.get_sample_value("pipeline_token_seconds_left", labels) == 86_400
    assert "Authorization" not in server.seen[0][0].headers


async def test_a_whole_integration_by_token_file(tmp_path: Path) -> None:
    """The other way."""
    path = tmp_path / "token"
    path.write_text("opaque-token")
    partner = EcsPartner(CallbackSettings(token_file=path))
    hosts = HostRules(callback=("ecs.example",))
    async with partner.open_notifications(surroundings(hosts, Metrics())) as notifications:
        await until_usable(notifications)

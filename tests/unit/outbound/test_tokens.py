"""OAuth client credentials, in both forms of token servers: one request for all callers, renewal, failures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from structlog.testing import capture_logs

from pipeline.jobs.ecs import EcsTokens
from pipeline.outbound import (
    ClientCredentials,
    FormTokens,
    HostRules,
    NetworkSettings,
    TokenFormat,
    TokenUnavailable,
    open_session,
)
from pipeline.secret_files import TokenFile

NOW = datetime(2026, 1, 21, 22, 50, tzinfo=UTC)
SECRET = "planted-client-secret"
BASIC = "Basic bWU6cGxhbnRlZC1jbGllbnQtc2VjcmV0"
"""``me`` and the secret."""


@dataclass(frozen=True)
class Form:
    """One form of token servers: its client's side, and an answer with a token and its life."""

    client: Callable[[str, str | None], TokenFormat]
    answer: Callable[[str, float | None], dict[str, Any]]


def flat(token: str, life: float | None) -> dict[str, Any]:
    """Answer as RFC 6749 has it."""
    return {"access_token": token, "token_type": "Bearer"} | ({} if life is None else {"expires_in": life})


def json_api(token: str, life: float | None) -> dict[str, Any]:
    """Answer as eCard Systems does."""
    return {"data": {"type": "token", "attributes": flat(token, life)}}


RFC = Form(FormTokens, flat)
ECS = Form(EcsTokens, json_api)


@pytest.fixture(params=[RFC, ECS], ids=["rfc", "ecs"])
def form(request: pytest.FixtureRequest) -> Form:
    """Return each form in turn."""
    found: Form = request.param
    return found


@dataclass
class TokenServer:
    """Gives numbered tokens, or the answer that the test sets."""

    form: Form
    seen: list[tuple[web.Request, str]] = field(default_factory=list)
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    life: float | None = 86_400
    delay: float = 0.0
    hold: asyncio.Event | None = None

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one token request."""
        self.seen.append((request, await request.text()))
        await asyncio.sleep(self.delay)
        if self.hold:
            await self.hold.wait()
        body = self.body if self.body is not None else self.form.answer(f"token-{len(self.seen)}", self.life)
        return web.Response(status=self.status, text=json.dumps(body), headers=self.headers)


@dataclass
class World:
    """A provider, its server and its clock."""

    tokens: ClientCredentials
    server: TokenServer
    known: list[SecretStr]
    now: datetime = NOW

    def wait(self, seconds: float) -> None:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)

    async def value(self) -> str:
        """Return the current token's text."""
        return (await self.tokens.token()).value.get_secret_value()


@asynccontextmanager
async def world(
    form: Form,
    *,
    rules: HostRules | None = None,
    timeout_seconds: float = 5.0,
    secret: SecretStr | TokenFile | None = None,
    scope: str | None = None,
) -> AsyncIterator[World]:
    """Start a token server and a provider that may reach it."""
    server = TokenServer(form)
    app = web.Application()
    app.router.add_post("/auth/token", server.answer)
    async with TestServer(app) as running:
        allowed = rules or HostRules(callback=(f"127.0.0.1:{running.port}",), allow_http=True, allow_private=True)
        made: list[World] = []
        known: list[SecretStr] = []
        tokens = ClientCredentials(
            f"http://127.0.0.1:{running.port}/auth/token",
            form.client("me", scope),
            secret=secret or SecretStr(SECRET),
            session=partial(open_session, allowed, NetworkSettings(), "callback"),
            timeout_seconds=timeout_seconds,
            clock=lambda: made[0].now if made else NOW,
            remember=known.append,
        )
        made.append(World(tokens, server, known))
        yield made[0]


async def test_rfc_6749_has_a_form_and_basic_authentication() -> None:
    """Secret and token become known to the redaction."""
    async with world(RFC, scope="batch all") as w:
        token = await w.tokens.token()
        assert token.value == SecretStr("token-1")
        assert token.expires_at == NOW + timedelta(days=1)
        ((request, body),) = w.server.seen
        assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
        assert request.headers["Authorization"] == BASIC
        assert body == "grant_type=client_credentials&scope=batch+all"
        assert w.known == [SecretStr(SECRET), token.value]


async def test_ecs_has_json_and_a_json_api_document() -> None:
    """Secret and token become known to the redaction."""
    async with world(ECS, scope="batch") as w:
        token = await w.tokens.token()
        assert token.value == SecretStr("token-1")
        assert token.expires_at == NOW + timedelta(days=1)
        ((request, body),) = w.server.seen
        assert request.headers["Content-Type"] == "application/json"
        assert json.loads(body) == {
            "client_id": "me",
            "client_secret": SECRET,
            "grant_type": "client_credentials",
            "scope": "batch",
        }
        assert w.known == [SecretStr(SECRET), token.value]


async def test_the_secret_may_lie_in_a_file(form: Form, tmp_path: Path) -> None:
    """Read again before every request; no scope is sent unless configured."""
    path = tmp_path / "secret"
    path.write_text("from-a-file\n")
    async with world(form, secret=TokenFile(path)) as w:
        await w.value()
        assert w.known[0] == SecretStr("from-a-file")
        assert "scope" not in w.server.seen[0][1]
        path.write_text("not one word")
        w.wait(86_400)
        with pytest.raises(TokenUnavailable, match="OAuth client secret: secret file") as caught:
            await w.value()
        assert caught.value.code == "token_malformed"
        path.unlink()
        w.wait(6)
        with pytest.raises(TokenUnavailable, match="OAuth client secret: secret file") as caught:
            await w.value()
        assert caught.value.code == "token_unreadable"
        assert len(w.server.seen) == 1


async def test_a_token_is_kept_until_shortly_before_it_expires(form: Form) -> None:
    """600 seconds before, the next one is fetched."""
    async with world(form) as w:
        assert await w.value() == "token-1"
        w.wait(86_400 - 601)
        assert await w.value() == "token-1"
        w.wait(2)
        assert await w.value() == "token-2"
        assert len(w.server.seen) == 2


async def test_a_short_life_is_renewed_in_its_middle(form: Form) -> None:
    """Otherwise a token of five minutes would be fetched each time."""
    async with world(form) as w:
        w.server.life = 300
        assert await w.value() == "token-1"
        w.wait(149)
        assert await w.value() == "token-1"
        w.wait(2)
        assert await w.value() == "token-2"


async def test_many_callers_cause_one_request(form: Form) -> None:
    """Single-flight, also when it fails."""
    async with world(form) as w:
        w.server.delay = 0.02
        assert set(await asyncio.gather(*(w.value() for _ in range(20)))) == {"token-1"}
        assert len(w.server.seen) == 1
        w.wait(86_400)
        w.server.status = 500
        results = await asyncio.gather(*(w.value() for _ in range(20)), return_exceptions=True)
        assert {type(result) for result in results} == {TokenUnavailable}
        assert len(w.server.seen) == 2


async def test_a_cancelled_caller_leaves_the_fetch_to_the_next(form: Form) -> None:
    async with world(form) as w:
        w.server.hold = asyncio.Event()
        first = asyncio.ensure_future(w.value())
        while not w.server.seen:  # noqa: ASYNC110 - the server has no event
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(w.value())
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        w.server.hold.set()
        assert await second == "token-2"


async def test_a_401_renews_once_for_all(form: Form) -> None:
    """A caller with the old token gets the new one without another request."""
    async with world(form) as w:
        old = await w.tokens.token()
        w.wait(60)
        renewed = await asyncio.gather(*(w.tokens.renew(old) for _ in range(5)))
        assert {token.value.get_secret_value() for token in renewed} == {"token-2"}
        assert (await w.tokens.renew(old)).value == SecretStr("token-2")
        assert len(w.server.seen) == 2


async def test_a_token_that_is_seconds_old_is_not_renewed(form: Form) -> None:
    """A storm of 401s does not become a storm of token requests."""
    async with world(form) as w:
        token = await w.tokens.token()
        w.wait(9)
        assert await w.tokens.renew(token) is token
        assert len(w.server.seen) == 1


async def test_a_failed_renewal_keeps_the_old_token_while_it_is_good(form: Form) -> None:
    """With a warning; the token server is not asked again at once."""
    async with world(form) as w:
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


async def test_an_expired_token_is_not_given_after_a_failed_renewal(form: Form) -> None:
    async with world(form) as w:
        await w.value()
        w.server.status = 500
        w.wait(86_400)
        with pytest.raises(TokenUnavailable):
            await w.value()


async def test_a_refusal_is_not_repeated_before_the_server_allows_it(form: Form) -> None:
    """The status is named, the secret is not; Retry-After is honoured."""
    async with world(form) as w:
        w.server.status, w.server.headers = 429, {"Retry-After": "60"}
        w.server.body = {"errors": [{"title": "slow down", "detail": f"client_secret {SECRET}"}]}
        with pytest.raises(TokenUnavailable, match="the token server answered 429") as caught:
            await w.value()
        assert SECRET not in str(caught.value)
        assert (caught.value.code, caught.value.retry_after) == ("token_refused", 60)
        w.wait(59)
        with pytest.raises(TokenUnavailable) as again:
            await w.value()
        assert again.value.retry_after == 1
        assert len(w.server.seen) == 1
        w.wait(1)
        w.server.status, w.server.body = 200, None
        assert await w.value() == "token-2"


async def test_ecs_says_why_it_refuses() -> None:
    """The message quotes the text of ECS, masked."""
    async with world(ECS) as w:
        w.server.status = 403
        w.server.body = {"errors": [{"title": "no access", "detail": f"client_secret {SECRET}"}]}
        with pytest.raises(TokenUnavailable, match="answered 403: no access") as caught:
            await w.value()
        assert SECRET not in str(caught.value)


async def test_an_unreachable_server_is_transient(form: Form) -> None:
    """A time-out is an example."""
    async with world(form, timeout_seconds=0.1) as w:
        w.server.delay = 0.2
        with pytest.raises(TokenUnavailable, match="token server 127") as caught:
            await w.value()
        assert caught.value.code == "token_unanswered"


async def test_an_address_that_is_not_allowed_is_transient(form: Form) -> None:
    """The callback waits until an operator corrects the configuration."""
    async with world(form, rules=HostRules(callback=("127.0.0.1",))) as w:
        with pytest.raises(TokenUnavailable, match=r"token_url is not allowed.*url_http_not_allowed"):
            await w.value()


async def test_a_token_without_expiry_is_renewed_on_401_only() -> None:
    """Neither ``expires_in`` nor ``exp``."""
    async with world(ECS) as w:
        w.server.body = json_api("token-x", None)
        token = await w.tokens.token()
        assert token.expires_at is None
        w.wait(10 * 86_400)
        assert await w.tokens.token() is token
        w.server.status = 500
        with pytest.raises(TokenUnavailable):
            await w.tokens.renew(token)
        assert await w.tokens.token() is token


@pytest.mark.parametrize("life", [None, 0, -1, True, "60", 1e99])
async def test_a_form_answer_without_a_usable_life_is_used_for_a_minute(life: Any) -> None:
    """``expires_in`` is only recommended."""
    token = FormTokens("me").token(json.dumps(flat("t", 1) | {"expires_in": life}).encode(), now=NOW)
    assert token.expires_at == NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "no access_token"),
        (b"<html>", "no access_token"),
        (b"[" * 100_000, "no access_token"),
        (b"[]", "no access_token"),
        (b"{}", "no access_token"),
        (b'{"access_token": ""}', "no access_token"),
        (b'{"access_token": 7}', "no access_token"),
        (b'{"access_token": "planted token"}', "one word"),
    ],
)
def test_a_form_answer_without_a_token_is_refused(body: bytes, fault: str) -> None:
    with pytest.raises(TokenUnavailable, match=fault) as caught:
        FormTokens("me").token(body, now=NOW)
    assert caught.value.code == "token_malformed"
    assert "planted" not in str(caught.value)

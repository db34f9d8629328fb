"""Bearer tokens of callbacks: the token file, the token server's answers, expiry, readiness."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from structlog.testing import capture_logs

from pipeline.errors import TransientError
from pipeline.jobs.ecs import CallbackSettings, EcsPartner, EcsTokens, FileTokenProvider, TokenWatch
from pipeline.jobs.ecs.tokens import read_expiry
from pipeline.jobs.partners import Notifications, NotifierContext
from pipeline.observability import Metrics
from pipeline.outbound import HostRules, NetworkSettings, Token, TokenUnavailable

KEY = "k" * 32
SECRET = "planted-client-secret"
NOW = datetime(2026, 1, 21, 22, 50, tzinfo=UTC)


def signed(**claims: Any) -> str:
    """Return a JWT of a secret that the code under test does not know."""
    return jwt.encode(claims, KEY, algorithm="HS256")


def claiming(claims: str) -> str:
    """Return a JWT with these claims, byte for byte."""
    head, body = (base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in ('{"alg":"HS256"}', claims))
    return f"{head}.{body}.{'x' * 43}"


def provider(path: Path, known: list[SecretStr] | None = None) -> FileTokenProvider:
    """Return a provider that remembers into a list."""
    return FileTokenProvider(path, integration="acme", remember=(known if known is not None else []).append)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
async def test_one_newline_at_the_end_is_stripped(tmp_path: Path, end: str) -> None:
    """Editors add one."""
    path = tmp_path / "token"
    path.write_bytes(f"abc.def~+/=-_{end}".encode())
    known: list[SecretStr] = []
    token = await provider(path, known).token()
    assert token.value == SecretStr("abc.def~+/=-_")
    assert known == [token.value]


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"abc\n\n", "the secret alone"),
        (b" abc", "the secret alone"),
        (b"abc \n", "the secret alone"),
        (b"abc def", "one word"),
        (b"abc\tdef", "the secret alone"),
        (b"abc\r\nX-Injected: 1", "the secret alone"),
        (b"\xef\xbb\xbfabc", "the secret alone"),
        ("schlüssel".encode(), "one word"),
        (b"x" * 20_000, "longer than 16384 bytes"),
    ],
)
async def test_anything_else_is_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    """White space or odd characters mean a wrong file; its content is not repeated."""
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(TokenUnavailable, match=rule) as caught:
        await provider(path).token()
    assert caught.value.code == "token_malformed"
    assert "abc" not in caught.value.message


async def test_a_missing_file_is_transient(tmp_path: Path) -> None:
    """It may be mounted in a moment."""
    with pytest.raises(TokenUnavailable, match="No such file") as caught:
        await provider(tmp_path / "token").token()
    assert caught.value.code == "token_unreadable"
    with pytest.raises(TokenUnavailable, match="Is a directory"):
        await provider(tmp_path).token()


async def test_a_file_system_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a secret is bounded in time."""
    monkeypatch.setattr("pipeline.secret_files._TIMEOUT", 0.0)
    path = tmp_path / "token"
    path.write_text("abc")
    with pytest.raises(TokenUnavailable, match="took over"):
        await provider(path).token()


async def test_a_swapped_symlink_counts_at_once(tmp_path: Path) -> None:
    """Mounted secrets are rotated so: the path is opened each time, also on a 401."""
    (tmp_path / "one").write_text("first-token")
    (tmp_path / "two").write_text("second-token")
    path = tmp_path / "token"
    path.symlink_to("one")
    tokens = provider(path)
    first = await tokens.token()
    assert await tokens.token() is first
    assert await tokens.renew(first) is first
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(path)
    assert (await tokens.renew(first)).value == SecretStr("second-token")
    assert (await tokens.token()).value == SecretStr("second-token")


async def test_an_unknown_expiry_is_warned_of_once_per_token(tmp_path: Path) -> None:
    """Opaque tokens are legal, but no alarm can be set on them."""
    path = tmp_path / "token"
    path.write_text("opaque-token")
    tokens = provider(path)
    with capture_logs() as logs:
        await tokens.token()
        await tokens.token()
        path.write_text(signed(sub="x", exp=4_000_000_000))
        await tokens.token()
    assert [(line["log_level"], str(line["expiry"])) for line in logs] == [
        ("warning", "unknown"),
        ("info", "2096-10-02 07:06:40+00:00"),
    ]


@pytest.mark.parametrize(
    ("token", "expiry"),
    [
        (signed(exp=4_000_000_000), datetime.fromtimestamp(4_000_000_000, UTC)),
        (signed(exp=1_000_000_000), datetime.fromtimestamp(1_000_000_000, UTC)),
        (signed(exp=4_000_000_000, nbf=3_900_000_000, iat=3_900_000_000, aud="ecs"), datetime.fromtimestamp(4e9, UTC)),
        (signed(sub="x"), None),
        (signed(exp="never"), None),
        (signed(exp=1e300), None),
        (signed(exp=10**30), None),
        (claiming('{"exp": null}'), None),
        (claiming('{"exp": []}'), None),
        (claiming('{"exp": [1]}'), None),
        (claiming('{"exp": {}}'), None),
        (claiming('{"exp": 1e999}'), None),
        (claiming('{"exp": -1e999}'), None),
        (claiming('{"exp": NaN}'), None),
        (claiming('{"exp": ' + "9" * 5000 + "}"), None),
        (claiming("[" * 50_000), None),
        (claiming("null"), None),
        ("opaque", None),
        ("a.b.c", None),
    ],
)
def test_expiry_is_read_without_verification(token: str, expiry: datetime | None) -> None:
    """It works for any JWT with any signature; an invalid date means an unknown expiry."""
    assert read_expiry(token) == expiry


class Resumes:
    """Remembers what was resumed; fails as often as a test says."""

    def __init__(self) -> None:
        self.codes: list[str | None] = []
        self.failures = 0

    async def __call__(self, code: str | None = None) -> None:
        if self.failures:
            self.failures -= 1
            raise TransientError("store_unavailable", "down")
        self.codes.append(code)


async def watch(path: Path, *, metrics: Metrics | None = None, resumes: Resumes | None = None) -> TokenWatch:
    """Return a watch that has looked once."""
    found = TokenWatch(
        provider(path),
        integration="acme",
        metrics=metrics or Metrics(),
        clock=lambda: NOW,
        resume=resumes or Resumes(),
    )
    await found.poll()
    return found


async def test_an_expired_token_is_given_but_not_ready(tmp_path: Path) -> None:
    """ECS decides about the request, but readiness and the metric warn the operator before."""
    path, metrics = tmp_path / "token", Metrics()
    path.write_text(signed(exp=int((NOW - timedelta(seconds=90)).timestamp())))
    assert (await provider(path).token()).expires_at == NOW - timedelta(seconds=90)
    found = await watch(path, metrics=metrics)
    assert not found.check().ok
    assert found.check().message.startswith("the callback token expired at 2026-01-21T22:48:30+00:00")
    assert metrics.registry.get_sample_value("pipeline_token_seconds_left", {"integration": "acme"}) == -90


async def test_a_good_token_is_ready_and_counted_down(tmp_path: Path) -> None:
    """The message says until when."""
    path = tmp_path / "token"
    path.write_text(signed(exp=int((NOW + timedelta(hours=1)).timestamp())))
    found = await watch(path)
    assert found.check().ok
    assert "expires at 2026-01-21T23:50:00+00:00" in found.check().message
    assert found.seconds_left() == 3600


async def test_an_opaque_token_is_ready_with_unknown_time_left(tmp_path: Path) -> None:
    """Unknown is not expired."""
    path = tmp_path / "token"
    path.write_text("opaque-token")
    found = await watch(path)
    assert found.check().ok
    assert math.isnan(found.seconds_left())


async def test_no_token_is_not_ready_until_there_is_one(tmp_path: Path) -> None:
    """Changes are logged once, in both directions."""
    path = tmp_path / "token"
    with capture_logs() as logs:
        found = await watch(path)
        await found.poll()
        assert not found.check().ok
        assert "No such file" in found.check().message
        assert math.isnan(found.seconds_left())
        path.write_text("opaque-token")
        await found.poll()
        assert found.check().ok
    assert [(line["event"], line["ok"]) for line in logs if "ok" in line] == [
        ("token_health_changed", False),
        ("token_health_changed", True),
    ]


async def test_the_alarm_follows_what_callbacks_show(tmp_path: Path) -> None:
    """At once, not at the next look; a rejected token stays rejected until there is another one, or ECS accepts it."""
    path, metrics = tmp_path / "token", Metrics()
    path.write_text("first-token")
    found = await watch(path, metrics=metrics)

    def usable() -> float | None:
        return metrics.registry.get_sample_value("pipeline_token_usable", {"integration": "acme"})

    assert (found.check().ok, usable()) == (True, 1)
    found.rejected("token is revoked")
    await found.poll()
    assert (found.check().ok, usable()) == (False, 0)
    assert "ECS rejects the callback token (token is revoked)" in found.check().message
    found.accepted()
    assert (found.check().ok, usable()) == (True, 1)
    found.rejected("token is revoked")
    path.write_text("second-token")
    await found._provider.renew(Token(SecretStr("first-token"), None))
    await found.poll()
    assert (found.check().ok, usable()) == (True, 1)
    found.unavailable(TokenUnavailable("token_unreadable", "callback token: no such file"))
    assert "no callback token: callback token: no such file" in found.check().message


async def test_a_new_token_resumes_the_waiting_callbacks(tmp_path: Path) -> None:
    """Twice: a callback may just be parked because of the old token. A failed store is tried again."""
    path, resumes = tmp_path / "token", Resumes()
    path.write_text(signed(exp=int((NOW - timedelta(seconds=90)).timestamp())))
    found = await watch(path, resumes=resumes)
    assert resumes.codes == []
    path.write_text(signed(exp=int((NOW + timedelta(hours=1)).timestamp())))
    resumes.failures = 1
    for _ in range(5):
        await found.poll()
    assert resumes.codes == [None, None]
    path.write_text("another-token")
    for _ in range(5):
        await found.poll()
    assert resumes.codes == [None] * 4


async def test_a_token_that_was_replaced_while_no_process_ran_resumes_what_waits_for_it(tmp_path: Path) -> None:
    path, resumes = tmp_path / "token", Resumes()
    path.write_text("opaque-token")
    found = await watch(path, resumes=resumes)
    for _ in range(3):
        await found.poll()
    assert resumes.codes == ["token_expired"] * 2


def test_before_the_first_look_it_is_not_ready(tmp_path: Path) -> None:
    """Nothing is known yet."""
    found = TokenWatch(provider(tmp_path), integration="acme", metrics=Metrics(), clock=lambda: NOW, resume=Resumes())
    assert found.check().message == "no callback token: not looked at yet"


async def test_the_watch_looks_again_and_again(tmp_path: Path) -> None:
    """It needs neither a callback nor a restart for that."""
    path = tmp_path / "token"
    found = TokenWatch(provider(path), integration="acme", metrics=Metrics(), clock=lambda: NOW, resume=Resumes())
    task = asyncio.ensure_future(found.run(interval=0.001))
    await asyncio.sleep(0.02)
    path.write_text("opaque-token")
    async with asyncio.timeout(2):
        while not found.check().ok:  # noqa: ASYNC110 - it is a poll that is under test
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def document(access_token: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return ECS's answer, with some attributes changed; None leaves one out."""
    token = "opaque-access-token" if access_token is None else access_token
    attributes = {"access_token": token, "token_type": "Bearer", "expires_in": 86_400, "scope": "x"} | changes
    present = {name: value for name, value in attributes.items() if value is not None}
    return {"data": {"type": "token", "attributes": present}}


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
        EcsTokens("me").token(body, now=NOW)
    assert caught.value.code == "token_malformed"
    assert "planted" not in str(caught.value)


def test_forms_of_a_good_answer() -> None:
    """``expires_in`` as text, another case of the type, no type; the token's own ``exp`` where there is no other."""
    ecs = EcsTokens("me")
    assert ecs.token(json.dumps(document(expires_in="60")).encode(), now=NOW).expires_at == NOW + timedelta(minutes=1)
    assert ecs.token(json.dumps(document(token_type="bearer")).encode(), now=NOW).expires_at is not None
    signed = jwt.encode({"exp": 4_000_000_000}, "k" * 32, algorithm="HS256")
    bare = ecs.token(json.dumps(document(signed, token_type=None, expires_in=None)).encode(), now=NOW)
    assert bare.expires_at == datetime.fromtimestamp(4_000_000_000, UTC)


def surroundings(hosts: HostRules, metrics: Metrics) -> NotifierContext:
    return NotifierContext("acme", hosts, NetworkSettings(), metrics, lambda: NOW, lambda _secret: None, Resumes())


async def until_usable(notifications: Notifications) -> None:
    """Run the services until the readiness check of the token passes."""
    services = [asyncio.create_task(service()) for service in notifications.services]
    async with asyncio.timeout(10):
        while not notifications.alarms["token"]().ok:  # noqa: ASYNC110 - a check has no event
            await asyncio.sleep(0.01)
    for service in services:
        service.cancel()


async def test_a_whole_integration_by_oauth() -> None:
    """The token server's host need not be a callback host, and gets no bearer token."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response(document())

    app = web.Application()
    app.router.add_post("/auth/token", answer)
    async with TestServer(app) as running:
        oauth = {"token_url": f"http://127.0.0.1:{running.port}/auth/token", "client_id": "me", "client_secret": SECRET}
        metrics = Metrics()
        hosts = HostRules(callback=("ecs.example",), allow_http=True, allow_private=True)
        partner = EcsPartner(CallbackSettings.model_validate({"oauth": oauth}))
        async with partner.open_notifications(surroundings(hosts, metrics)) as notifications:
            await until_usable(notifications)
            labels = {"integration": "acme"}
            assert metrics.registry.get_sample_value("pipeline_token_seconds_left", labels) == 86_400
    assert "Authorization" not in seen[0].headers


async def test_a_whole_integration_by_token_file(tmp_path: Path) -> None:
    """The test before this one uses OAuth client credentials."""
    path = tmp_path / "token"
    path.write_text("opaque-token")
    partner = EcsPartner(CallbackSettings(token_file=path))
    hosts = HostRules(callback=("ecs.example",))
    async with partner.open_notifications(surroundings(hosts, Metrics())) as notifications:
        await until_usable(notifications)

"""How the processor ``http`` proves who it is: HTTP Basic, OAuth client credentials, a client certificate."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.certificates import certificate

from pipeline.errors import FatalError, TransientError
from pipeline.jobs.processors import Card, ProcessorSettings, adopt, load
from pipeline.jobs.processors.http import Http
from pipeline.outbound import NetworkSettings
from pipeline.testing import job_context, run_processor

SECRET = "planted-secret-0123456789"


class Service:
    """A card service and its token server."""

    def __init__(self) -> None:
        self.authorizations: list[str] = []
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.accepted = ""
        self.token_status = 200
        self.url = ""

    async def card(self, request: web.Request) -> web.StreamResponse:
        """Accept the credentials that are accepted now; empty: all."""
        self.authorizations.append(request.headers.get("Authorization", ""))
        return web.Response(status=201 if self.accepted in self.authorizations[-1] else 401)

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Issue tokens by number."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append((request.headers["Authorization"], form))
        answer = {"access_token": f"t-{len(self.forms)}", "expires_in": 3600, "token_type": "Bearer"}
        return web.json_response(answer, status=self.token_status)

    async def run(self, *numbers: str, **options: Any) -> list[dict[str, str]]:
        """Run the processor over cards."""
        common: dict[str, Any] = {"url": f"{self.url}/cards", "allow_http": True, "allow_private": True}
        return await run_processor("http", [{"card_number": number} for number in numbers], **(common | options))

    def oauth(self, file: Path, **more: str) -> dict[str, str]:
        """Return the option ``oauth``."""
        file.write_text(SECRET)
        return {"token_url": f"{self.url}/token", "client_id": "we", "client_secret_file": str(file), **more}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """Serve on a free port."""
    found = Service()
    app = web.Application()
    app.router.add_post("/cards", found.card)
    app.router.add_post("/token", found.token)
    async with TestServer(app) as server:
        found.url = str(server.make_url("/")).rstrip("/")
        yield found


def written(user: str, password: str) -> str:
    """Return the header field of HTTP Basic."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


async def test_user_and_password_are_sent_by_http_basic(service: Service, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    rows = await service.run("1", basic={"user": "wé", "password_file": str(tmp_path / "password")})
    assert (rows[0]["status"], service.authorizations) == ("ok", [written("wé", SECRET)])


async def test_a_new_password_is_used_at_once_when_the_old_one_is_refused(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old-password")
    service.accepted = written("we", "new-password")
    options = {"url": f"{service.url}/cards", "allow_http": True, "allow_private": True}
    options["basic"] = {"user": "we", "password_file": str(file)}
    async with load(ProcessorSettings(name="http", options=options)) as loaded:
        processor = loaded.processor
        assert isinstance(processor, Http)
        card = Card(1, "1", {}, "key")
        with pytest.raises(TransientError, match="http_credentials_refused"):
            await processor.process(card, job_context())
        file.write_text("new-password")
        with pytest.raises(Exception, match="replaced meanwhile"):
            await processor.process(card, job_context())
        assert (await processor.process(card, job_context())).status == "ok"


async def test_a_bearer_token_is_fetched_once_for_all_cards(service: Service, tmp_path: Path) -> None:
    """By the one implementation of client credentials, as RFC 6749 writes them."""
    rows = await service.run("1", "2", "3", oauth=service.oauth(tmp_path / "client", scope="cards"))
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert service.authorizations == ["Bearer t-1"] * 3
    assert service.forms == [(written("we", SECRET), {"grant_type": "client_credentials", "scope": "cards"})]


async def test_a_refused_young_token_puts_the_job_off_without_another_request(service: Service, tmp_path: Path) -> None:
    service.accepted = "t-9"
    with pytest.raises(TransientError, match="http_credentials_refused"):
        await service.run("1", oauth=service.oauth(tmp_path / "client"))
    assert len(service.forms) == 1


@pytest.mark.parametrize("status", [400, 401, 503])
async def test_a_token_server_that_gives_no_token_puts_the_job_off(
    service: Service, tmp_path: Path, status: int
) -> None:
    """No card fails for it, and the message holds no secret."""
    service.token_status = status
    with pytest.raises(TransientError, match=f"http_token_unavailable.*answered {status}") as caught:
        await service.run("1", oauth=service.oauth(tmp_path / "client"))
    assert SECRET not in caught.value.message
    assert service.authorizations == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"token_file": "/t", "basic": {"user": "we", "password_file": "/p"}},
            "token_file and basic exclude each other: delete one",
        ),
        ({"basic": {"user": "a:b", "password_file": "/p"}}, "basic.user: must not hold a colon"),
        ({"basic": {"user": "we"}}, "basic.password_file: Field required"),
        (
            {"basic": {"user": "we", "password_file": "/p"}, "headers": {"authorization": "x"}},
            "headers must not set authorization: another option does",
        ),
        (
            {"oauth": {"token_url": "tokens", "client_id": "we", "client_secret_file": "/s"}},
            "oauth.token_url: the URL must be an absolute URL",
        ),
        (
            {"oauth": {"token_url": "http://t.example", "client_id": "we", "client_secret_file": "/s"}},
            "oauth.token_url must begin with https://",
        ),
        ({"client_cert_file": "/c"}, "client_cert_file needs client_key_file"),
        ({"client_key_file": "/k"}, "client_key_file needs client_cert_file"),
        (
            {"url": "http://c.example", "allow_http": True, "client_cert_file": "/c", "client_key_file": "/k"},
            "client_cert_file needs a url that begins with https://",
        ),
    ],
)
def test_wrong_credentials_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(FatalError) as caught:
        adopt(Http, ProcessorSettings(name="http", options={"url": "https://c.example", **options}))
    assert said in caught.value.message


@asynccontextmanager
async def mutual_tls(folder: Path, client: Path) -> AsyncIterator[tuple[str, Path, list[str]]]:
    """Serve over https to holders of one certificate; yield URL, authority, and the names of the clients."""
    cert_file, key_file = certificate(folder, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(cert_file, key_file)
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        seen.append(request.transport.get_extra_info("peercert")["subject"][0][0][1])
        return web.Response(status=201)

    app = web.Application()
    app.router.add_post("/cards", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/cards", cert_file, seen
    finally:
        await runner.cleanup()


async def test_the_client_certificate_is_shown(tmp_path: Path) -> None:
    """The service accepts no connection without it."""
    client = certificate(tmp_path, "client")
    async with mutual_tls(tmp_path, client[0]) as (url, ca_file, seen):
        network = NetworkSettings(ca_file=ca_file)
        options: dict[str, Any] = {"url": url, "allow_private": True}
        files = {"client_cert_file": str(client[0]), "client_key_file": str(client[1])}
        card = Card(1, "1", {}, "key")
        async with load(ProcessorSettings(name="http", options=options | files), network) as loaded:
            assert isinstance(loaded.processor, Http)
            assert (await loaded.processor.process(card, job_context())).status == "ok"
        async with load(ProcessorSettings(name="http", options=options), network) as loaded:
            assert isinstance(loaded.processor, Http)
            with pytest.raises(Exception, match="gave no answer"):
                await loaded.processor.process(card, job_context())
        assert seen == ["client"]


@pytest.mark.parametrize("fault", ["missing", "no PEM", "another key", "key alone"])
async def test_a_client_certificate_that_cannot_be_used_puts_the_jobs_off(tmp_path: Path, fault: str) -> None:
    """The process goes on with its other integrations; the message names the option, never a path or the content."""
    cert_file, key_file = certificate(tmp_path, "client")
    if fault == "missing":
        cert_file.unlink()
    elif fault == "no PEM":
        cert_file.write_text(SECRET)
    elif fault == "another key":
        key_file = certificate(tmp_path, "other")[1]
    else:
        cert_file = key_file
    options = {"url": "https://c.example", "client_cert_file": str(cert_file), "client_key_file": str(key_file)}
    loaded = load(ProcessorSettings(name="http", options=options))
    with pytest.raises(TransientError, match=r"http_certificate_unusable: .*client_cert_file") as caught:
        await loaded.open()
    assert str(tmp_path) not in caught.value.message
    assert SECRET not in caught.value.message

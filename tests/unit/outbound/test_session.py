"""Sessions that reach only what is allowed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from socket import AF_INET, AddressFamily

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import SecretStr
from support.certificates import certificate
from support.transfer_ground import ETAG, PATH, QUERY, ground, now, whole

from pipeline.errors import FatalError, TransientError
from pipeline.jobs.transfer import HttpDownloader, HttpUploader, SignedUrl, SourceRefused, TransferParameters
from pipeline.jobs.transfer.testing import Exchange, ScriptedServer, scripted_server
from pipeline.outbound import AddressRefused, HostRules, NetworkSettings, open_session, request_url

DATA = b"card_number\n9999990000000006\n"


class Names(AbstractResolver):
    """Gives a name one list of addresses after the other, as a rebinding name server does."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: AddressFamily | int = AF_INET) -> list[ResolveResult]:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family or AF_INET, proto=0, flags=0)
            for address in answer
        ]

    async def close(self) -> None:
        """Nothing is open."""


def named(port: int, *, allow_private: bool) -> HostRules:
    return HostRules(input=(f"files.example.com:{port}",), allow_http=True, allow_private=allow_private)


async def get(server: ScriptedServer, names: Names, *, allow_private: bool) -> bytes:
    port = int(server.url.rpartition(":")[2])
    rules = named(port, allow_private=allow_private)
    async with (
        open_session(rules, NetworkSettings(), "input", resolver=names) as session,
        session.get(request_url(f"http://files.example.com:{port}/x")) as response,
    ):
        return await response.read()


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["10.0.0.1", "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]],
    ids=["loopback", "two", "two kinds", "mapped", "metadata"],
)
async def test_allowed_name_at_forbidden_address(addresses: list[str]) -> None:
    """An allowed name that resolves to a private address is refused before a socket is opened."""
    async with scripted_server(whole(DATA)) as server:
        with pytest.raises(AddressRefused, match="address_not_allowed"):
            await get(server, Names(addresses), allow_private=False)
    assert server.requests == []


async def test_rebinding() -> None:
    """What is checked is the address that the socket is made for: a second answer of the name is never asked for."""
    names = Names(["127.0.0.1"], ["93.184.216.34"])
    async with scripted_server(whole(DATA)) as server:
        with pytest.raises(AddressRefused, match="address_not_allowed"):
            await get(server, names, allow_private=False)
    assert names.asked == 1
    assert server.requests == []


async def test_private_where_allowed() -> None:
    """With allow_private a name may be at a private address."""
    async with scripted_server(whole(DATA)) as server:
        assert await get(server, Names(["127.0.0.1"]), allow_private=True) == DATA


@pytest.mark.parametrize("address", ["169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255"])  # noqa: S104
async def test_never_allowed(address: str) -> None:
    """No setting allows link-local (metadata services), unspecified and multicast addresses."""
    async with scripted_server(whole(DATA)) as server:
        with pytest.raises(AddressRefused, match="no setting allows it"):
            await get(server, Names([address]), allow_private=True)


async def test_address_literal_in_url() -> None:
    """An address in the URL is checked like one that a name gave."""
    async with ground(whole(DATA), rules={"allow_private": False}) as opened:
        with pytest.raises(AddressRefused, match="address_not_allowed"):
            await opened.fetch()
    assert opened.server.requests == []


async def test_refused_address_beside_a_dead_one() -> None:
    """Where some addresses are refused and the others dead, the host is unreachable."""
    async with scripted_server(whole(DATA)) as server:
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(server, Names(["169.254.169.254", "127.0.0.9"]), allow_private=True)


async def test_other_url_in_the_same_session() -> None:
    """A session refuses hosts that its rules do not list, http, and hosts of another purpose."""
    rules = HostRules(input=("127.0.0.1:1",), result=("127.0.0.1:2",), allow_private=True)
    async with open_session(rules, NetworkSettings(), "input") as session:
        for url in ("https://127.0.0.1:2/", "http://127.0.0.1:1/", "https://localhost:1/"):
            with pytest.raises(AddressRefused):
                await session.get(request_url(url))


async def test_an_allowed_url_allows_no_other_one() -> None:
    """A URL that was allowed once is not checked again; each other URL is, before and after it."""
    async with scripted_server(whole(DATA)) as server:
        host = server.url.removeprefix("http://")
        rules = HostRules(input=(host,), allow_http=True, allow_private=True)
        async with open_session(rules, NetworkSettings(), "input") as session:
            for _ in range(2):
                async with session.get(request_url(f"{server.url}/x")) as response:
                    assert await response.read() == DATA
                for other in (f"{server.url}1/x", f"https://else.example.com:{host.rpartition(':')[2]}/x"):
                    with pytest.raises(AddressRefused):
                        await session.get(request_url(other))
    assert [request.target for request in server.requests] == ["/x", "/x"]


async def test_redirect_is_never_followed() -> None:
    """This also holds for a caller that did not turn redirects off, and for redirects to an allowed host."""

    async def away(exchange: Exchange) -> None:
        await exchange.answer(302, Location="/elsewhere")

    async with scripted_server(away, whole(DATA)) as server:
        with pytest.raises(AddressRefused, match="redirect_refused"):
            await get(server, Names(["127.0.0.1"]), allow_private=True)
    assert len(server.requests) == 1


async def test_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is ignored: only the settings apply."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with ground(whole(DATA)) as opened:
        assert (await opened.fetch())[1] == DATA


async def test_no_cookies() -> None:
    """What a server sets is not sent back."""

    async def setting(exchange: Exchange) -> None:
        await exchange.head(200, [("Set-Cookie", "a=b"), ("ETag", ETAG), ("Content-Length", str(len(DATA)))])

    async with ground(setting, whole(DATA)) as opened:
        await opened.fetch()
    assert "cookie" not in opened.server.requests[1].headers


async def test_answers_come_as_sent() -> None:
    """The session does not decompress answers."""
    async with scripted_server(whole(b"\x1f\x8bnot gzip", Content_Encoding="gzip")) as server:
        assert await get(server, Names(["127.0.0.1"]), allow_private=True) == b"\x1f\x8bnot gzip"


async def test_proxy() -> None:
    """With a proxy all goes through it, credentials included, and only the URL is checked here."""
    seen: list[tuple[str, str | None]] = []

    async def act(exchange: Exchange) -> None:
        seen.append((exchange.request.target, exchange.request.headers.get("proxy-authorization")))
        await exchange.answer(200, DATA, ETag=ETAG)

    async with scripted_server(act) as proxy:
        network = NetworkSettings(proxy=SecretStr(proxy.url.replace("//", "//user:pass@")))
        rules = {"input": ("files.example.com",), "allow_private": False}
        async with ground(whole(DATA), network=network, rules=rules) as opened:
            opened.server.url = "http://files.example.com"
            assert (await opened.fetch())[1] == DATA
            opened.server.url = "http://evil.example.com"
            with pytest.raises(AddressRefused, match="host_not_allowed"):
                await opened.fetch()
            opened.server.url = "http://10.0.0.1"
            with pytest.raises(AddressRefused):
                await opened.fetch()
    assert seen == [(f"http://files.example.com{PATH}?{QUERY}", "Basic dXNlcjpwYXNz")]


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_proxy_that_refuses_a_tunnel(status: int) -> None:
    """The fault is in the own network, so another try may help."""

    async def no(exchange: Exchange) -> None:
        await exchange.answer(status)

    async with scripted_server(no) as proxy:
        network = NetworkSettings(proxy=SecretStr(proxy.url))
        rules = {"input": ("files.example.com",)}
        async with ground(whole(DATA), network=network, rules=rules, max_tries=2) as opened:
            opened.server.url = "https://files.example.com"
            with pytest.raises(TransientError, match="source_proxy_failed"):
                await opened.fetch()
    assert [request.target for request in proxy.requests] == ["files.example.com:443"] * 2


@asynccontextmanager
async def tls_server(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """Serve DATA over https; yield host:port and the file of the certificate to trust."""
    cert_file, key_file = certificate(folder, "tests")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert_file, key_file)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=DATA, headers={"ETag": ETAG})

    runner = web.AppRunner(app := web.Application())
    app.router.add_get("/{path:.*}", answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}", cert_file
    finally:
        await runner.cleanup()


async def test_own_certificate_authority(tmp_path: Path) -> None:
    """A host whose certificate the configured bundle vouches for is trusted; without the bundle it is not."""
    async with tls_server(tmp_path) as (host, ca_file):
        rules = {"input": (host,)}
        async with ground(whole(b""), network=NetworkSettings(ca_file=ca_file), rules=rules) as opened:
            opened.server.url = f"https://{host}"
            assert (await opened.fetch())[1] == DATA
        async with ground(whole(b""), rules=rules, max_tries=1) as opened:
            opened.server.url = f"https://{host}"
            with pytest.raises(TransientError, match=r"source_tls_failed: .*network\.ca_file"):
                await opened.fetch()


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_bad_bundle_stops_the_process(tmp_path: Path, content: bytes | None) -> None:
    """A bundle that cannot be read is found out at the start."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FatalError, match="ca_file_unreadable"):
        open_session(HostRules(), NetworkSettings(ca_file=file), "input")


async def test_default_settings_reach_nothing() -> None:
    """Without configured hosts no URL is allowed."""
    async with ground(whole(DATA), rules={"input": ()}) as opened:
        with pytest.raises(AddressRefused, match="host_not_allowed"):
            await opened.fetch()
    assert TransferParameters().client_timeout.total is None


class SlowNames(Names):
    """A name server that does not answer in time."""

    async def resolve(self, host: str, port: int = 0, family: AddressFamily | int = AF_INET) -> list[ResolveResult]:
        await asyncio.sleep(1)
        return await super().resolve(host, port, family)


async def test_resolving_is_bounded() -> None:
    """If a name is not resolved in time, the request times out instead of hanging, with and without a proxy."""
    rules = HostRules(input=("files.example.com",), result=("files.example.com",))
    settings = TransferParameters(connect_timeout_seconds=0.02, retry={"max_tries": 1})
    signed = SignedUrl(SecretStr("https://files.example.com/x"), now() + timedelta(seconds=60))

    async def source() -> SignedUrl:
        return signed

    async def body() -> AsyncGenerator[bytes, None]:
        yield DATA

    for purpose in ("input", "result"):
        async with open_session(rules, NetworkSettings(), purpose, resolver=SlowNames(["8.8.8.8"])) as session:
            if purpose == "input":
                with pytest.raises(TransientError, match="source_timeout"):
                    async with HttpDownloader(session, settings, clock=now).open(source):
                        pass
            else:
                with pytest.raises(TransientError, match="upload_timeout"):
                    await HttpUploader(session, settings, clock=now).put(source, size=len(DATA), body=body)


async def test_redirect_of_a_file() -> None:
    """A redirected download is a permanent error."""

    async def away(exchange: Exchange) -> None:
        await exchange.answer(307, Location=opened.server.url)

    async with ground(away) as opened:
        with pytest.raises(SourceRefused, match="source_redirected"):
            await opened.fetch()
    assert len(opened.server.requests) == 1

"""The management server over loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any

import aiohttp
import pytest
from prometheus_client import Metric
from prometheus_client.registry import Collector
from structlog.testing import capture_logs

from pipeline.errors import FatalError
from pipeline.observability import Health, ManagementSettings, Metrics
from pipeline.observability.management import ManagementServer

SETTINGS = ManagementSettings(port=0)


async def get(url: str, **headers: str) -> tuple[int, str, Any]:
    """Return status, media type and body of a GET."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        body = await (response.json() if response.content_type == "application/json" else response.text())
        return response.status, response.content_type, body


async def test_without_checks_it_is_live_and_ready() -> None:
    """An empty list of checks is a good one."""
    async with ManagementServer(SETTINGS, Metrics().registry) as server:
        assert await get(f"{server.url}/healthz/live") == (200, "application/json", {"status": "live", "checks": {}})
        assert (await get(f"{server.url}/healthz/ready"))[0] == 200


async def test_each_check_is_listed_by_name_with_its_message() -> None:
    """One bad check makes 503, and the answer says which and why."""
    server = ManagementServer(SETTINGS, Metrics().registry)
    server.add_readiness("store", lambda: Health(ok=True))
    server.add_readiness("token", lambda: Health(ok=False, message="expired, see https://h/p?sig=1"))
    server.add_liveness("loop", lambda: Health(ok=False, message="stands still"))
    async with server:
        assert await get(f"{server.url}/healthz/ready") == (
            503,
            "application/json",
            {
                "status": "not ready",
                "checks": {
                    "store": {"ok": True, "message": "ok"},
                    "token": {"ok": False, "message": "expired, see https://h/p?…"},
                },
            },
        )
        assert await get(f"{server.url}/healthz/live") == (
            503,
            "application/json",
            {"status": "not live", "checks": {"loop": {"ok": False, "message": "stands still"}}},
        )


async def test_an_alarm_is_shown_and_leaves_the_process_ready() -> None:
    """One partner's trouble must not take the others' pods away."""
    server = ManagementServer(SETTINGS, Metrics().registry)
    server.add_readiness("kafka", lambda: Health(ok=True))
    server.add_alarm("token-acme", lambda: Health(ok=False, message="expired"))
    async with server:
        assert await get(f"{server.url}/healthz/ready") == (
            200,
            "application/json",
            {
                "status": "ready",
                "checks": {"kafka": {"ok": True, "message": "ok"}},
                "alarms": {"token-acme": {"ok": False, "message": "expired"}},
            },
        )


def test_two_checks_of_one_name_are_refused() -> None:
    """A second check would hide the first."""
    server = ManagementServer(SETTINGS, Metrics().registry)
    server.add_liveness("loop", lambda: Health(ok=True))
    with pytest.raises(ValueError, match="loop"):
        server.add_liveness("loop", lambda: Health(ok=True))


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [("", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_are_exposed_in_the_form_asked_for(accept: str, media_type: str) -> None:
    """Prometheus text, or OpenMetrics."""
    metrics = Metrics(version="9.9")
    async with ManagementServer(SETTINGS, metrics.registry) as server:
        status, found, body = await get(f"{server.url}/metrics", Accept=accept)
    assert (status, found) == (200, media_type)
    assert 'pipeline_build_info{version="9.9"} 1.0' in body


@pytest.mark.parametrize("version", ["4111111111111111", "1.0.0000", "1.0.0x", "x", "", "2"])
@pytest.mark.parametrize("media_type", ["application/openmetrics-text", "text/plain"])
async def test_an_unknown_version_is_neither_rendered_nor_repeated(version: str, media_type: str) -> None:
    """Each would be kept in memory for ever, and rendered again; some made the answer fail."""
    metrics = Metrics()
    rendered = _Rendered()
    metrics.registry.register(rendered)
    async with ManagementServer(SETTINGS, metrics.registry) as server, aiohttp.ClientSession() as session:
        assert (await get(f"{server.url}/metrics"))[0] == 200
        rendered.times = 0
        accept = {"Accept": f"{media_type}; version={version}; escaping=dots"}
        async with session.get(f"{server.url}/metrics", headers=accept) as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert rendered.times == 0


async def test_the_header_of_prometheus_3_is_understood() -> None:
    """It names its formats by version and escaping."""
    accept = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
        "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    )
    async with (
        ManagementServer(SETTINGS, Metrics().registry) as server,
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/metrics", headers={"Accept": accept}) as response,
    ):
        assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0;")


async def test_an_unknown_path_is_404() -> None:
    """Nothing else is served here."""
    async with ManagementServer(SETTINGS, Metrics().registry) as server:
        assert (await get(f"{server.url}/"))[0] == 404


async def test_url_is_known_only_while_it_serves() -> None:
    """Port 0 means that the port is known after binding."""
    server = ManagementServer(SETTINGS, Metrics().registry)
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.url
    async with server:
        assert server.url.startswith("http://127.0.0.1:")
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.url
    await server.__aexit__(None, None, None)


async def test_a_taken_port_is_an_error_and_leaves_nothing_open() -> None:
    """The operator reads which keys to change, and the system's own words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ManagementSettings(port=taken.getsockname()[1])
        with pytest.raises(FatalError, match=r"management\.port.*address already in use"):
            await ManagementServer(settings, Metrics().registry).__aenter__()


async def test_ipv6_addresses_are_bracketed() -> None:
    """A literal IPv6 host makes a valid URL."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with ManagementServer(ManagementSettings(host="::1", port=0), Metrics().registry) as server:
        assert server.url.startswith("http://[::1]:")


async def test_fifty_scrapers_cost_one_rendering_a_second() -> None:
    """Rendering takes tens of milliseconds in the loop that answers webhooks, too."""
    metrics = Metrics()
    rendered = _Rendered()
    metrics.registry.register(rendered)
    async with ManagementServer(SETTINGS, metrics.registry) as server:
        rendered.times = 0
        begun = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(get(f"{server.url}/metrics") for _ in range(50)))
        took = asyncio.get_running_loop().time() - begun
        assert {status for status, _, _ in answers} == {200}
        assert rendered.times <= 1 + took
        await asyncio.sleep(1)
        metrics.ingress_connections.set(7)
        assert "pipeline_ingress_connections 7.0" in (await get(f"{server.url}/metrics"))[2]


async def test_scrapers_leave_the_loop_to_others() -> None:
    """However many ask again and again, about fifty are answered per second, and other work goes on meanwhile."""
    answered = turns = 0
    async with ManagementServer(SETTINGS, Metrics().registry) as server:

        async def scrape() -> None:
            nonlocal answered
            while True:
                await get(f"{server.url}/metrics")
                answered += 1

        scrapers = [asyncio.create_task(scrape()) for _ in range(50)]
        until = asyncio.get_running_loop().time() + 1.5
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0)
            turns += 1
        for task in scrapers:
            task.cancel()
        await asyncio.wait(scrapers)
    assert 10 <= answered <= 80
    assert turns > answered


class _Rendered(Collector):
    """Counts how often the metrics are collected."""

    def __init__(self) -> None:
        self.times = 0

    def collect(self) -> Iterable[Metric]:
        self.times += 1
        return ()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /healthz/live HTTP/1.1\r\nHost: here\r\n\r\n", 200),
        (b"GET /4111111111111111 HTTP/1.1\r\nHost: here\r\n\r\n", 404),
        (b"DELETE /metrics HTTP/1.1\r\nHost: here\r\n\r\n", 405),
        (b"4111111111111111\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\nHost: here\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: here\r\n4111111111111111 : x\r\n\r\n", 400),
    ],
    ids=["good", "path", "method", "no request", "no version", "other version", "header"],
)
async def test_no_answer_repeats_bytes_or_names_versions(request_: bytes, status: int) -> None:
    """The management port is as careful as that of the webhooks."""
    async with ManagementServer(SETTINGS, Metrics().registry) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        writer.write(request_)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            answer = head + await reader.read(1000)
        writer.close()
        await writer.wait_closed()
    assert answer.split()[1] == str(status).encode()
    assert answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
    assert b"Server: card-pipeline\r\n" in answer
    assert not any(word in answer for word in (b"4111", b"aiohttp", b"Python"))


async def test_a_head_request_has_no_body() -> None:
    """It is how some probes ask."""
    async with (
        ManagementServer(SETTINGS, Metrics().registry) as server,
        aiohttp.ClientSession() as session,
        session.head(f"{server.url}/healthz/ready") as response,
    ):
        assert (response.status, await response.read()) == (200, b"")


async def test_a_check_that_raises_is_500_without_its_text() -> None:
    """What it raises may hold anything."""

    def fail() -> Health:
        raise RuntimeError("4111111111111111")

    server = ManagementServer(SETTINGS, Metrics().registry)
    server.add_liveness("loop", fail)
    with capture_logs() as logs:
        async with server:
            assert await get(f"{server.url}/healthz/live") == (500, "text/plain", "Internal Server Error")
    assert [(line["event"], line["error"]) for line in logs] == [("management_answer_failed", "RuntimeError")]

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import aiohttp
import pytest

from pipeline.contracts import OutgoingRecord, Topic
from pipeline.errors import FatalError
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics
from pipeline.webhooks.handler import Ingress
from pipeline.webhooks.refusals import RefusalCounts
from pipeline.webhooks.server import IngressServer
from pipeline.webhooks.settings import IngressSettings
from pipeline.webhooks.testing import SECRET_HEADERS, Serving, serving


class _Held:
    """A broker that confirms nothing until it is released."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, record: OutgoingRecord) -> None:
        if record.topic is not Topic.AUDIT_EVENTS:
            self.arrived.set()
            await self.go.wait()


async def _post(here: Serving, body: bytes = b"{}", headers: dict[str, str] = SECRET_HEADERS) -> tuple[int, str | None]:
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{here.server.url}/webhooks/ecs/acme", data=body, headers=headers) as response,
    ):
        return response.status, response.headers.get("Connection")


async def test_ready_from_start_until_drain() -> None:
    async with serving(MemoryPublisher()) as here:
        readiness = [here.server.ready]
        here.server.begin_drain()
        readiness.append(here.server.ready)
    assert [*readiness, here.server.ready] == [True, False, False]


async def test_draining_server_still_serves_but_sends_senders_away() -> None:
    async with serving(MemoryPublisher()) as here:
        assert await _post(here) == (422, None)
        here.server.begin_drain()
        assert await _post(here) == (422, "close")


async def test_stop_lets_requests_in_work_finish() -> None:
    held = _Held()
    async with serving(MemoryPublisher(held)) as here, asyncio.TaskGroup() as group:
        request = group.create_task(_post(here))
        await held.arrived.wait()
        stopping = group.create_task(here.server.stop(5.0))
        await asyncio.sleep(0.01)
        assert not stopping.done()
        with pytest.raises(aiohttp.ClientConnectorError):
            await _post(here)
        held.go.set()
    assert request.result() == (422, "close")


async def test_request_that_outlives_the_grace_is_cut_without_an_answer() -> None:
    held = _Held()
    publisher = MemoryPublisher(held)
    async with serving(publisher) as here:
        request = asyncio.create_task(_post(here))
        await held.arrived.wait()
        await here.server.stop(0.01)
        with pytest.raises(aiohttp.ClientError):
            await request
    assert publisher.published == []


async def test_idle_connections_do_not_hold_up_a_stop() -> None:
    async with serving(MemoryPublisher()) as here, aiohttp.ClientSession() as client:
        async with client.get(here.server.url) as response:
            await response.read()
        async with asyncio.timeout(2):
            await here.server.stop(10.0)


async def test_refusals_are_published_at_the_latest_when_stopping() -> None:
    publisher = MemoryPublisher()
    async with serving(publisher) as here:
        assert (await _post(here, headers={"Content-Type": "application/json"}))[0] == 401
        assert publisher.published == []
    (record,) = publisher.published
    assert json.loads(record.value)["detail"]["counts"] == {"acme/header_missing": 1}


async def test_stopping_twice_and_waiting_for_it_is_harmless() -> None:
    async with serving(MemoryPublisher()) as here, asyncio.TaskGroup() as group:
        group.create_task(here.server.wait())
        await asyncio.sleep(0)
        await here.server.stop(0)


async def test_background_work_that_fails_makes_the_server_unready_and_stops_who_waits() -> None:

    async def broken(record: OutgoingRecord) -> None:
        raise ZeroDivisionError(record.topic)

    async with serving(MemoryPublisher(broken), refusals_interval=0.01) as here:
        await _post(here, headers={"Content-Type": "application/json"})
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(5):
                await here.server.wait()
        assert not here.server.ready


def _server(settings: IngressSettings) -> IngressServer:
    def clock() -> datetime:
        return datetime.now(UTC)

    publisher = MemoryPublisher()
    refusals = RefusalCounts(publisher, clock=clock, instance="test", interval=60, deadline=1)
    ingress = Ingress(
        webhooks=[], publisher=publisher, settings=settings, metrics=Metrics(), refusals=refusals, clock=clock
    )
    return IngressServer(ingress, refusals, settings)


async def test_taken_port_is_fatal_and_named() -> None:
    async with serving(MemoryPublisher()) as here:
        port = int(here.server.url.rpartition(":")[2])
        server = _server(IngressSettings(port=port))
        with pytest.raises(FatalError, match=f"127.0.0.1:{port}"):
            await server.start()
        assert not server.ready


async def test_url_of_a_server_that_was_not_started() -> None:
    server = _server(IngressSettings())
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.url
    await server.wait()
    await server.stop(1)


async def test_url_of_an_ipv6_address_has_brackets() -> None:
    server = _server(IngressSettings(host="::1", port=0))
    await server.start()
    assert server.url.startswith("http://[::1]:")
    await server.stop(0)

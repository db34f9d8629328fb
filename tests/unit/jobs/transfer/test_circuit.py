"""Hosts on real sockets that fail: each failed try counts at once, and an open circuit makes no connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from support.transfer_ground import Ground, ground, now, ranged, refusing, whole

from pipeline.errors import PipelineError
from pipeline.jobs.transfer import SignedUrl
from pipeline.jobs.transfer.testing import Act, Exchange
from pipeline.outbound import CircuitOpen, Circuits, HostUnavailable, host_of

DATA = b"card_number\n" + b"9999990000000006\n" * 10


async def silent(_exchange: Exchange) -> None:
    """Accept the connection, read the request, and never answer."""
    await asyncio.sleep(60)


Transfer = Callable[[Ground], Awaitable[bytes | str]]


async def fetch(ground: Ground) -> bytes:
    return (await ground.fetch())[1]


async def put(ground: Ground) -> str:
    return await ground.put(DATA)


@pytest.mark.parametrize("transfer", [fetch, put])
@pytest.mark.parametrize("act", [silent, refusing(503, "SlowDown"), refusing(500, "InternalError")])
async def test_a_failing_host_is_asked_five_times_and_then_no_more(transfer: Transfer, act: Act) -> None:
    patience: dict[str, Any] = dict.fromkeys(
        ("read_timeout_seconds", "connect_timeout_seconds", "rate_window_seconds"), 0.3
    )
    async with ground(act, circuits=Circuits(), **patience) as one:
        for _ in range(3):
            with pytest.raises(PipelineError):
                await transfer(one)
        with pytest.raises(CircuitOpen):
            await transfer(one)
        assert len(one.server.requests) == 5


async def test_tries_of_jobs_at_the_same_time_count_together() -> None:
    """48 jobs at a silent host: the first five timeouts stop all of them."""
    async with ground(silent, read_timeout_seconds=0.3, connect_timeout_seconds=0.3, circuits=Circuits()) as one:
        found = await asyncio.gather(*(fetch(one) for _ in range(48)), return_exceptions=True)
        assert all(isinstance(error, CircuitOpen) for error in found)
        assert len(one.server.requests) <= 48 + 4, "the fifth failure opens it, so at most four jobs try again before"


async def test_a_host_that_refuses_connections_opens_the_circuit_too() -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{port.getsockname()[1]}"
    async with ground(circuits=Circuits(), rules={"input": (host,)}) as one:
        one.urls.append(SignedUrl(SecretStr(f"http://{host}/in.csv"), now() + timedelta(seconds=60)))
        with pytest.raises(HostUnavailable, match="source_unreachable"):
            await fetch(one)
        with pytest.raises(CircuitOpen, match="no connection can be made"):
            await fetch(one)


async def test_one_probe_finds_that_the_host_works_again() -> None:
    circuits = Circuits(probe_seconds=0.2)
    broken = [refusing(503, "SlowDown")] * 6
    async with ground(*broken, whole(DATA), circuits=circuits, max_tries=1) as one:
        for _ in range(5):
            with pytest.raises(PipelineError, match="source_store_busy"):
                await fetch(one)
        await asyncio.sleep(0.25)
        found = await asyncio.gather(*(fetch(one) for _ in range(10)), return_exceptions=True)
        assert len(one.server.requests) == 6, "one probe, which failed"
        assert sum(isinstance(error, CircuitOpen) for error in found) == 9
        await asyncio.sleep(0.25)
        assert await fetch(one) == DATA
        assert await fetch(one) == DATA


@pytest.mark.parametrize("act", [refusing(403, "AccessDenied"), refusing(404, "NoSuchKey")])
async def test_refusals_are_answers(act: Act) -> None:
    """A job with a wrong URL says nothing about the host: the next job is tried."""
    async with ground(act, circuits=Circuits(), max_tries=1, max_not_found_tries=1) as one:
        for _ in range(10):
            with pytest.raises(PipelineError) as refused:
                await fetch(one)
            assert not isinstance(refused.value, CircuitOpen)


async def test_a_running_download_is_not_cut_by_an_open_circuit() -> None:
    circuits = Circuits()
    data = bytes(range(256)) * 8192
    async with (
        ground(ranged(data), circuits=circuits) as one,
        one.transfers.downloader.open(one.source) as download,
    ):
        for _ in range(5):
            circuits.of("acme", "input").failed(host_of(one.server.url), HostUnavailable("source_timeout", "silent"))
        with pytest.raises(CircuitOpen):
            await fetch(one)
        assert b"".join([piece async for piece in download.chunks()]) == data

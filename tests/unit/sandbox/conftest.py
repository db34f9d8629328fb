"""A running sandbox on a free loopback port, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.sandbox_world import Clock, Start

from pipeline.sandbox import Sandbox, SandboxSettings


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def start(tmp_path: Path, clock: Clock) -> AsyncIterator[Start]:
    """Start a sandbox with settings of the test's own."""
    async with AsyncExitStack() as stack:

        async def started(**settings: Any) -> Sandbox:
            settings = {"data_dir": tmp_path / "sandbox", "port": 0, "webhook_pauses_seconds": ()} | settings
            return await stack.enter_async_context(Sandbox(SandboxSettings(**settings), clock=clock))

        yield started


@pytest.fixture
async def sandbox(start: Start) -> Sandbox:
    return await start()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that changes nothing: no decompression, no cookies."""
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session

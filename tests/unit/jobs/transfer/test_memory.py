"""Memory does not grow with the file."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator, Iterator

import pytest
from support.transfer_ground import ETAG, ground

from pipeline.jobs.transfer.testing import Exchange

SIZE = 200 * 1024 * 1024
BLOCK = bytes(262_144)
BOUND = 12 * 1024 * 1024
"""Read-ahead, socket buffers and a few pieces on both sides; a small part of the file."""


@pytest.fixture
def traced() -> Iterator[None]:
    """Trace allocations, with as little overhead as there can be."""
    tracemalloc.start(1)
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
async def test_download_of_200_mb() -> None:
    """A file of 200 MB goes through a few MB of memory."""

    async def act(exchange: Exchange) -> None:
        await exchange.head(200, [("ETag", ETAG), ("Content-Length", str(SIZE)), ("Connection", "close")])
        for _ in range(SIZE // len(BLOCK)):
            await exchange.send(BLOCK)

    async with ground(act) as store, store.transfers.downloader.open(store.source) as download:
        count = 0
        tracemalloc.reset_peak()
        async for piece in download.chunks():
            count += len(piece)
    assert count == SIZE
    assert tracemalloc.get_traced_memory()[1] < BOUND


@pytest.mark.usefixtures("traced")
async def test_upload_of_200_mb() -> None:
    """A result of 200 MB goes through a few MB of memory."""

    async def act(exchange: Exchange) -> None:
        await exchange.head(100)
        left = int(exchange.request.headers["content-length"])
        while left:
            left -= len(await exchange.reader.read(1 << 20))
        await exchange.answer(200)

    async def body() -> AsyncGenerator[bytes, None]:
        for _ in range(SIZE // len(BLOCK)):
            yield BLOCK

    async with ground(act) as store:
        tracemalloc.reset_peak()
        await store.transfers.uploader.put(store.source, size=SIZE, body=body)
    assert tracemalloc.get_traced_memory()[1] < BOUND

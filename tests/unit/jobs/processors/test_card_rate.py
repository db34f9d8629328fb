"""The processor ``http`` at the limit of the sandbox's card API, over real sockets: one rate for several workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.jobs.csv_engine import Chunk, ChunkEngine, CsvLimits, CsvSettings, Layout, Splitter
from pipeline.jobs.processors import ProcessorSettings, load
from pipeline.jobs.rate_shares import RateShares
from pipeline.outbound import Pace
from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.storage import LocalStore
from pipeline.testing import job_context


@asynccontextmanager
async def limited_api(folder: Path, rate: int) -> AsyncIterator[Sandbox]:
    """Run a sandbox whose card API takes so many requests a second."""
    card_api = {"requests_per_second": rate, "declined_share": 0}
    settings = SandboxSettings.model_validate({"data_dir": folder / "sandbox", "port": 0, "card_api": card_api})
    async with Sandbox(settings) as sandbox:
        yield sandbox


class Workers:
    """Workers that take the chunks of one file from one queue, as those of a shared job do."""

    def __init__(self, sandbox: Sandbox, folder: Path, cards: int, **settings: Any) -> None:
        (folder / "token").write_text(sandbox.settings.card_api.token.get_secret_value())
        options = {
            "url": sandbox.cards_url,
            "body": {"card_number": "{card_number}"},
            "token_file": str(folder / "token"),
            "allow_http": True,
            "allow_private": True,
        }
        self._settings = ProcessorSettings.model_validate(
            {"name": "http", "options": options, "retry": {"first_seconds": 0.1}} | settings
        )
        self._store = LocalStore(folder / "store")
        splitter = Splitter(CsvSettings(), CsvLimits(chunk_records=12))
        lines = ("card_number\n", *(f"{9_999_990_000_000_000 + number}\n" for number in range(cards)))
        self._chunks: Iterator[Chunk] = iter([*splitter.feed("".join(lines).encode()), *splitter.finish()])
        self._header = splitter.header or b""
        self.ok = 0
        self.failed = 0

    async def run(self, count: int) -> None:
        """Process all cards with so many workers."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._worker())

    async def _worker(self) -> None:
        pace = Pace(self._settings.requests_per_second, shared=True)
        shares = RateShares(self._store, {"acme": pace}, lambda: datetime.now(UTC))
        async with AsyncExitStack() as stack:
            processor = await stack.enter_async_context(load(self._settings))
            dividing = asyncio.create_task(shares.run())
            layout = Layout.of(self._header, CsvSettings())
            engine = ChunkEngine(layout, processor, job_context(), pace=pace)
            await asyncio.gather(self._take(engine), self._take(engine))
            dividing.cancel()
            with suppress(asyncio.CancelledError):
                await dividing

    async def _take(self, engine: ChunkEngine) -> None:
        for chunk in self._chunks:
            result = await engine.run(chunk)
            self.ok += result.ok
            self.failed += result.failed


async def rate_between(sandbox: Sandbox, first: int, last: int) -> float:
    """Return the cards per second that the API loaded between two of its cards."""
    counts, times = sandbox.card_api.counts, []
    for card in (first, last):
        while counts.loaded < card:  # noqa: ASYNC110 - the API answers a question, it has no event
            await asyncio.sleep(0.002)
        times.append((time.monotonic(), counts.loaded))
    (began, before), (ended, after) = times
    return (after - before) / (ended - began)


async def test_four_workers_keep_the_rate_of_the_card_api_and_each_card_has_one_effect(tmp_path: Path) -> None:
    """They never use more than 110 % of the limit, and the API refuses almost no request.

    A busy machine delays requests, so the lower bound only says that they use more than two workers' shares. The test
    of the shares under a virtual clock and the benchmark show 90 %.
    """
    rate, cards = 60, 420
    async with limited_api(tmp_path, rate) as sandbox:
        workers = Workers(sandbox, tmp_path, cards, requests_per_second=rate)
        reached, _ = await asyncio.gather(rate_between(sandbox, 30, 360), workers.run(4))
    counts = sandbox.card_api.counts
    assert 0.5 * rate < reached <= 1.1 * rate
    assert counts.limited <= cards / 100
    assert (workers.ok, workers.failed) == (cards, 0)
    assert (counts.loaded, counts.repeats, counts.without_key) == (cards, 0, 0)


@pytest.mark.parametrize("claimed", [None, 2000.0])
async def test_a_worker_that_sends_too_much_finds_the_rate_by_itself(tmp_path: Path, claimed: float | None) -> None:
    """Whether no rate is configured or a wrong one: it falls on 429, waits as asked, and no card fails."""
    async with limited_api(tmp_path, 60) as sandbox:
        workers = Workers(sandbox, tmp_path, 90, requests_per_second=claimed)
        with capture_logs() as logs:
            await workers.run(1)
    counts = sandbox.card_api.counts
    assert counts.limited > 0
    assert "card_rate_lowered" in {line["event"] for line in logs}
    assert (workers.ok, workers.failed, counts.loaded) == (90, 0, 90)
    assert counts.requests - counts.loaded == counts.limited

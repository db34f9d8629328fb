"""The processor ``http`` in four processes at the limit of the sandbox's card API: one rate for all of them.

Each worker has the CSV engine, the processor, a pace, and its part in dividing the rate; the chunks of one file are
taken from one store, as those of a shared job are taken from their topic. The API, a process of its own, counts. Ours
is cards per second from the first request to the last answer, the peer the limit of the API. The row of 20,000 cards
takes 20 seconds; ``python -m benchmarks.card_rate 100000 1000`` takes the cards and the limit that you say.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvloop

from pipeline.jobs.csv_engine import Chunk, ChunkEngine, CsvLimits, CsvSettings, Layout, Splitter, use_system_allocator
from pipeline.jobs.processors import ProcessorSettings, load
from pipeline.jobs.rate_shares import RateShares
from pipeline.outbound import Pace
from pipeline.sandbox import Sandbox, SandboxSettings
from pipeline.storage import LocalStore
from pipeline.testing import job_context

LIMIT: Final = 1_000
WORKERS: Final = 4
CARDS: Final = 20_000
FEWEST: Final = 1_000
CHUNK: Final = 100
ROUNDS_AT_MOST: Final = 1
"""A round takes as long as the limit says."""

RATE: Final = f"card API limited to {LIMIT:,}/s, four workers: cards/s against the limit"
FLOORS: Final = {RATE: 0.75}
TARGETS: Final = {RATE: 0.9}


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return the row of cards per second and the limit."""
    cards = max(FEWEST, int(CARDS * scale))
    return {RATE: [(run(cards), float(LIMIT)) for _ in range(rounds)]}


def run(cards: int, limit: int = LIMIT) -> float:
    """Return the cards per second that the API loaded, after a look at what it counted."""
    with tempfile.TemporaryDirectory() as folder:
        api = _started("api", folder, str(limit))
        url = json.loads(_line(api))["url"]
        workers = [_started("worker", folder, url, str(cards), str(limit)) for _ in range(WORKERS)]
        times: list[dict[str, float]] = [json.loads(_line(worker)) for worker in workers]
        for worker in workers:
            worker.communicate()
        counts = json.loads(api.communicate("")[0])
    if (counts["loaded"], counts["repeats"], sum(one["ok"] for one in times)) != (cards, 0, cards):
        raise SystemExit(f"not every card had one effect: {counts}")
    print(json.dumps(counts), file=sys.stderr)
    return cards / (max(one["ended"] for one in times) - min(one["began"] for one in times))


def _started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.card_rate", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # noqa: S101 - for the type checker
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a process of the benchmark ended before its time")
    return line


async def api(folder: Path, limit: int) -> None:
    """Serve the card API until the input ends; print its URL, and in the end what it counted."""
    card_api = {"requests_per_second": limit, "declined_share": 0}
    settings = SandboxSettings.model_validate({"data_dir": folder / "sandbox", "port": 0, "card_api": card_api})
    (folder / "token").write_text(settings.card_api.token.get_secret_value())
    async with Sandbox(settings) as sandbox:
        print(json.dumps({"url": sandbox.cards_url}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps(sandbox.card_api.view()), flush=True)


async def worker(folder: Path, url: str, cards: int, limit: int) -> None:
    """Do chunks until none is left; print when the first one began and the last one ended."""
    options = {
        "url": url,
        "body": {"card_number": "{card_number}"},
        "token_file": str(folder / "token"),
        "result_columns": {"reference": "/id"},
        "allow_http": True,
        "allow_private": True,
    }
    settings = ProcessorSettings.model_validate(
        {"name": "http", "options": options, "concurrency": 16, "requests_per_second": limit}
    )
    store = LocalStore(folder / "store")
    pace = Pace(limit, shared=True)
    splitter = Splitter(CsvSettings(), CsvLimits(chunk_records=CHUNK))
    chunks = iter([*splitter.feed(b"".join(_lines(cards))), *splitter.finish()])
    ok = 0

    async def work(engine: ChunkEngine) -> None:
        nonlocal ok
        for chunk in chunks:
            if await store.create(f"taken/{chunk.number}", _name(pace, chunk)):
                result = await engine.run(chunk)
                ok += result.ok

    dividing = asyncio.create_task(RateShares(store, {"bench": pace}, lambda: datetime.now(UTC)).run())
    async with load(settings) as processor:
        layout = Layout.of(splitter.header or b"", CsvSettings(), result_columns=processor.result_columns)
        engine = ChunkEngine(layout, processor, job_context(), pace=pace)
        began = time.time()
        await asyncio.gather(*(work(engine) for _ in range(3)))
        print(json.dumps({"began": began, "ended": time.time(), "ok": ok}), flush=True)
    dividing.cancel()


def _name(pace: Pace, chunk: Chunk) -> bytes:
    return f"{id(pace)} {time.time_ns()} {chunk.number}".encode()


def _lines(cards: int) -> Iterator[bytes]:
    yield b"card_number\n"
    for number in range(cards):
        yield b"%d\n" % (9_999_990_000_000_000 + number)


def main() -> None:
    """Run one process of the benchmark, or all of it for so many cards."""
    match sys.argv[1:]:
        case ["api", folder, limit]:
            part: Any = api(Path(folder), int(limit))
        case ["worker", folder, url, cards, limit]:
            use_system_allocator()
            part = worker(Path(folder), url, int(cards), int(limit))
        case [cards, limit]:
            print(f"{run(int(cards), int(limit)):,.1f} cards/s")
            return
        case _:
            raise SystemExit("write how many cards, and the limit of the API")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(part)


if __name__ == "__main__":
    main()

"""The processor ``http`` compared with a bare aiohttp client that sends the same requests.

Ours is the CSV engine with the built-in processor: parse, one request per card with its token, idempotency key and JSON
body, decide by status, take a column from the answer, format. The peer sends the same bodies in the same number of
tasks and reads the answers. Both are one process on the loop that workers have; a small server is another process. A
second pair of rows counts the CPU time of the client alone.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import aiohttp
import uvloop

from benchmarks.local_server import running_local_server
from pipeline.jobs.csv_engine import CsvLimits, CsvSettings, run_stream, use_system_allocator
from pipeline.jobs.processors import ProcessorSettings, load
from pipeline.testing import job_context

CARDS: Final = 20_000
CONCURRENCY: Final = 16
_TOKEN: Final = "token-of-nobody"  # noqa: S105 - of nobody

SPEED: Final = "http processor against a bare aiohttp client, same concurrency: cards/s"
THRIFT: Final = "http processor against a bare aiohttp client, same concurrency: cards per CPU-second"
FLOORS: Final = {SPEED: 0.5, THRIFT: 0.4}
TARGETS: Final = {SPEED: 0.8}


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return rows of (ours, peer): cards per second, and cards per second of CPU time."""
    rows: dict[str, list[tuple[float, float]]] = {SPEED: [], THRIFT: []}
    cards = int(CARDS * scale)
    with tempfile.TemporaryDirectory() as folder, running_local_server() as url:
        token = Path(folder) / "token"
        token.write_text(_TOKEN)
        for _ in range(rounds):
            ours, peer = (_run(who, url, str(token), str(cards)) for who in ("ours", "peer"))
            rows[SPEED].append((cards / ours["seconds"], cards / peer["seconds"]))
            rows[THRIFT].append((cards / ours["cpu"], cards / peer["cpu"]))
    return rows


def _run(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.http", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _numbers(cards: int) -> Iterator[str]:
    return (f"{9_999_990_000_000_000 + number:016d}" for number in range(cards))


async def ours(url: str, token: str, cards: int) -> None:
    """Ask about each card of a file."""
    options = {
        "url": f"{url}/cards",
        "body": {"card": "{card_number}", "amount": "{amount}"},
        "token_file": token,
        "result_columns": {"reference": "/id"},
        "allow_http": True,
        "allow_private": True,
    }
    settings = ProcessorSettings.model_validate({"name": "http", "options": options, "concurrency": CONCURRENCY})
    processor = load(settings)
    written: list[bytes] = []

    async def source() -> AsyncIterator[bytes]:
        yield "".join(("card_number,amount\n", *(f"{number},1.00\n" for number in _numbers(cards)))).encode()

    async def sink(piece: bytes) -> None:
        written.append(piece)

    async with processor:
        summary = await run_stream(
            source(),
            sink,
            settings=CsvSettings(),
            limits=CsvLimits(),
            processor=processor,
            context=job_context(),
            in_flight=1,
        )
    if summary.ok != cards:
        raise SystemExit(f"{summary.ok} of {cards} cards are ok")


async def peer(url: str, token: str, cards: int) -> None:
    """Send the same requests."""
    numbers = _numbers(cards)
    headers = {"Authorization": f"Bearer {Path(token).read_text()}"}  # noqa: ASYNC240 - a small file, once

    async def work(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            key = {"Idempotency-Key": f"0b0c4fa0-0000-4000-8000-{int(number) % 1_000_000:012x}"}
            async with session.post(f"{url}/cards", json={"card": number, "amount": "1.00"}, headers=key) as answer:
                if answer.status != 200:  # noqa: PLR2004 - HTTP
                    raise SystemExit(f"the server answered {answer.status}")
                _ = (await answer.json())["id"]

    async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work(session))


def main() -> None:
    """Run one of both; print its seconds and CPU seconds, without those of the start."""
    use_system_allocator()
    who, url, token, cards = sys.argv[1:]
    client = {"ours": ours, "peer": peer}[who]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(client(url, token, 100))
        begun, cpu = time.perf_counter(), _cpu()
        runner.run(client(url, token, int(cards)))
        print(json.dumps({"seconds": time.perf_counter() - begun, "cpu": _cpu() - cpu}))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

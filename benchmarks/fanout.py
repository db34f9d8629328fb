"""One large file on several workers of PROCESS against one worker, and a small job beside a large one.

Ours and the peer are one pipeline on Apache Kafka, with a local store and one process for each role. The rows are
cards per second from the webhook to the confirmed callback, of several workers beside one; and jobs per second of the
median job of 200 cards (the inverse of its time), while a file of 1,000,000 cards is in work beside alone.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.process import peak_mb
from pipeline.sandbox import CardFile, Job, JobRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from support.brokers import Broker
    from support.flow import Flow
    from support.flow_process import Launch

ROUNDS_AT_MOST: Final = 1
"""A round takes minutes."""

CARDS: Final = 200_000
CARD_SECONDS: Final = 0.005
IN_FLIGHT: Final = 16
WORKERS: Final = 4
ROWS: Final = 5_000_000
BESIDE: Final = 1_000_000
SMALL: Final = 200
SMALL_JOBS: Final = 15

SLOW: Final = f"fan-out, {WORKERS} workers, 5 ms a card"
VALIDATE: Final = "fan-out, 2 workers, validate"
SMALL_JOB: Final = "small job beside a big one"

FLOORS: Final = {SLOW: 2.6, VALIDATE: 1.0, SMALL_JOB: 0.25}
TARGETS: Final = {SLOW: 3.5, VALIDATE: 1.4, SMALL_JOB: 0.33}

_HEADER: Final = b"card_number,amount,note\n"
_ROW: Final = b"9999990000000006,12.50,ok\n"
_ROWS_AT_ONCE: Final = 50_000
_LONGEST: Final = 600.0
FANOUT_BYTES: Final = 50_000
"""Every file is shared, except those of the small jobs."""


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return the rows: cards per second of several workers and of one, and small jobs per second beside and alone."""
    from support.brokers import running_apache_kafka  # noqa: PLC0415 - found once the tests' folder is on the path
    from support.flow_process import environment  # noqa: PLC0415
    from support.prefork import running_prefork  # noqa: PLC0415

    rows: dict[str, list[tuple[float, float]]] = {SLOW: [], VALIDATE: [], SMALL_JOB: []}
    with running_apache_kafka() as broker, running_prefork(environment()) as launch:
        for _ in range(rounds):
            slow, small = asyncio.run(_slow(broker, launch, scale))
            rows[SLOW].append(slow)
            rows[SMALL_JOB].append(small)
            rows[VALIDATE].append(asyncio.run(_validate(broker, launch, scale)))
    return rows


async def _slow(broker: Broker, launch: Launch, scale: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the pairs of the rows whose cards take 5 ms each."""
    processor = {"processor": "support.slow:Slow", "options": {"seconds": CARD_SECONDS}}
    async with _flow(broker, launch, {"chunk_records": 1000}, **processor) as flow:
        pair = await _one_and_several(flow, SLOW, max(4000, int(CARDS * scale)), WORKERS)
        jobs = max(2, int(SMALL_JOBS * scale))
        alone = [await _seconds(flow, SMALL) for _ in range(jobs)]
        large = await _job(flow, max(20_000, int(BESIDE * scale)))
        await flow.sandbox.ecs.announce(large.guid)
        while not _manifests(flow, large):  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.05)
        beside = [await _seconds(flow, SMALL) for _ in range(jobs)]
        if large.called_back.is_set():
            raise SystemExit("the large job ended before the small ones beside it")
    medians = statistics.median(beside), statistics.median(alone)
    _say(f"{SMALL_JOB}: median {medians[0]:.3f} s, alone {medians[1]:.3f} s")
    return pair, (1 / medians[0], 1 / medians[1])


async def _validate(broker: Broker, launch: Launch, scale: float) -> tuple[float, float]:
    async with _flow(broker, launch, {}) as flow:
        return await _one_and_several(flow, VALIDATE, max(20_000, int(ROWS * scale)), 2)


async def _one_and_several(flow: Flow, row: str, cards: int, workers: int) -> tuple[float, float]:
    """Return how many cards a second several workers do, and one."""
    one = await _seconds(flow, cards)
    _describe(flow, f"{row}: one worker", cards, one)
    for number in range(2, workers + 1):
        await flow.start("process", key=f"process-{number}")
    await _seconds(flow, SMALL)  # the group has settled when it is done
    several = await _seconds(flow, cards)
    _describe(flow, row, cards, several)
    return cards / several, cards / one


@asynccontextmanager
async def _flow(broker: Broker, launch: Launch, limits: Mapping[str, int], **processor: Any) -> AsyncIterator[Flow]:
    from support.flow import EVERYTHING, running_flow  # noqa: PLC0415

    tables = {"limits": {"fanout_bytes": FANOUT_BYTES, **limits}, "processor": {"concurrency": IN_FLIGHT}}
    with tempfile.TemporaryDirectory() as name:
        async with running_flow(broker, Path(name), start=(), integration=tables, launch=launch, **processor) as flow:
            for role in EVERYTHING:  # on a busy machine all at once would not be ready in time
                await flow.start(role)
            await _seconds(flow, SMALL)
            yield flow


async def _seconds(flow: Flow, cards: int) -> float:
    """Return how long a job takes, from its webhook to the confirmed callback."""
    job = await _job(flow, cards)
    begun = time.perf_counter()
    await flow.sandbox.ecs.announce(job.guid)
    await flow.notified(job, _LONGEST)
    seconds = time.perf_counter() - begun
    if not job.success:
        raise SystemExit("a job of the benchmark failed")
    return seconds


async def _job(flow: Flow, cards: int) -> Job:
    """Return a job that is not announced yet. Its file is written at once, which the sandbox's own files are not."""
    sandbox = flow.sandbox
    request = JobRequest(announce=False, webhook_url=flow.webhook_url, cards=CardFile(records=1), record_count=cards)
    job = await sandbox.ecs.create(request)
    path = sandbox.store.disk.new_path()
    await asyncio.to_thread(_write, path, cards)
    await sandbox.store.disk.adopt(job.input_key, path, modified=job.created_at)
    return job


def _write(path: Path, cards: int) -> None:
    with path.open("wb") as file:
        file.write(_HEADER)
        for _ in range(cards // _ROWS_AT_ONCE):
            file.write(_ROW * _ROWS_AT_ONCE)
        file.write(_ROW * (cards % _ROWS_AT_ONCE))


def _manifests(flow: Flow, job: Job) -> int:
    parts = flow.store / "jobs" / "acme" / str(job.guid) / "parts"
    return len(list(parts.glob("*/[0-9]*.json")))


def _describe(flow: Flow, what: str, cards: int, seconds: float) -> None:
    """Say what no row shows: which part of the run the splitting took, and the most memory that a worker had."""
    workers = [process for process in flow.processes.values() if process.name == "process"]
    planned = [
        line
        for one in workers
        for text in one.log.splitlines()
        if (line := json.loads(text))["event"] == "file_planned"
    ]
    splitting = max(planned, key=lambda line: line["timestamp"])["seconds"]
    peak = max(peak_mb(one.pid) for one in workers)
    _say(
        f"{what}: {cards:,} cards in {seconds:.1f} s; splitting {splitting / seconds:.1%}; a worker took {peak:.0f} MB"
    )


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)

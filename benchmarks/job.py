"""A 200-card job from webhook to confirmed callback, compared with a bare script without any of the promises.

Ours runs as one process for each role, on Apache Kafka and a local store, and does one job after another. The peer
downloads, checks, uploads and calls back in one function: no Kafka, no receipts, no audit log. Both talk to the same
sandbox, which runs in the process of the benchmark.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog
import yarl

from pipeline.app import Ready, run_dev
from pipeline.sandbox import CardFile, JobRequest, Sandbox, SandboxSettings, parts_snippet, settings_snippet
from pipeline.settings import load_settings

if TYPE_CHECKING:
    from support.flow import Flow

CARDS: Final = 200
JOBS: Final = 20

_IDLE: Final = "200-card job, webhook to confirmed callback, Apache Kafka, idle"
P50: Final = f"{_IDLE}: p50 against 60 ms"
P99: Final = f"{_IDLE}: p99 against 200 ms"
RATE: Final = "200-card job: jobs/s / bare script"

FLOORS: Final = {RATE: 0.08}
CEILINGS: Final = {P50: 2.5, P99: 2.0}
TARGETS: Final = {P50: 1.0, P99: 1.0, RATE: 0.25}


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return the rows: milliseconds and their bound, and jobs per second of the pipeline and of the bare script."""
    return asyncio.run(_measure(rounds, max(2, int(JOBS * scale))))


async def _measure(rounds: int, jobs: int) -> dict[str, list[tuple[float, float]]]:
    from support.brokers import Broker, running_apache_kafka  # noqa: PLC0415 - found once the tests are on the path
    from support.flow import EVERYTHING, running_flow  # noqa: PLC0415

    rows: dict[str, list[tuple[float, float]]] = {P50: [], P99: [], RATE: []}
    with tempfile.TemporaryDirectory() as name, running_apache_kafka() as kafka:
        async with running_flow(Broker("apache", kafka.bootstrap_servers), Path(name), start=()) as flow:
            for role in EVERYTHING:  # on a busy machine, all of them together would not be ready in time
                await flow.start(role)
            await _latencies(flow, 2)
            for _ in range(rounds):
                ours = sorted(await _latencies(flow, jobs))
                peer = await _peer(flow.sandbox, jobs)
                rows[P50].append((1000 * statistics.median(ours), 60.0))
                rows[P99].append((1000 * ours[min(len(ours) - 1, int(0.99 * len(ours)))], 200.0))
                rows[RATE].append((jobs / sum(ours), jobs / peer))
    return rows


async def _latencies(flow: Flow, jobs: int) -> list[float]:
    """Return the seconds of each of this many jobs, one after another."""
    seconds = []
    for _ in range(jobs):
        begun = time.perf_counter()
        job = await flow.send(cards=CardFile(records=CARDS))
        await flow.notified(job)
        seconds.append(time.perf_counter() - begun)
    return seconds


async def cpu(rounds: int, jobs: int) -> list[tuple[float, float]]:
    """Return CPU seconds of a job in all roles, in one process with the sandbox, and of the bare script beside it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Sandbox(SandboxSettings(data_dir=folder / "sandbox", port=0)) as sandbox:
            ready: asyncio.Queue[Ready] = asyncio.Queue()
            stop = asyncio.Event()
            settings = load_settings(_config(sandbox, folder), {}, webhook_secrets=True, warn=print)
            running = asyncio.create_task(run_dev(settings, on_ready=ready.put_nowait, stop=stop))
            try:
                webhook = f"{(await ready.get()).url}/webhooks/ecs/bench"
                await _ours(sandbox, webhook, 2)
                pairs = []
                for _ in range(rounds):
                    begun = time.process_time()
                    await _ours(sandbox, webhook, jobs)
                    ours = time.process_time() - begun
                    begun = time.process_time()
                    await _peer(sandbox, jobs)
                    pairs.append((ours / jobs, (time.process_time() - begun) / jobs))
                return pairs
            finally:
                stop.set()
                await running


def _config(sandbox: Sandbox, folder: Path) -> Path:
    block = parts_snippet(folder / "secrets") + settings_snippet(sandbox, "bench", folder=folder / "secrets").toml
    path = folder / "pipeline.toml"
    path.write_text(
        f'[store]\nkind = "local"\npath = "{folder}/store"\n[ingress]\nport = 0\n[management]\nport = 0\n'
        f'[logging]\nlevel = "error"\n{block}'
    )
    return path


async def _ours(sandbox: Sandbox, webhook: str, jobs: int) -> None:
    for _ in range(jobs):
        job = await sandbox.ecs.create(JobRequest(cards=CardFile(records=CARDS), webhook_url=webhook))
        await sandbox.ecs.wait_callback(job.guid, 60)
        if not job.success:
            raise SystemExit("a job of the benchmark failed")


async def _peer(sandbox: Sandbox, jobs: int) -> float:
    begun = time.perf_counter()
    async with aiohttp.ClientSession() as session:
        for _ in range(jobs):
            job = await sandbox.ecs.create(JobRequest(cards=CardFile(records=CARDS), announce=False))
            await _bare(session, sandbox, job)
            if not job.success:
                raise SystemExit("a job of the peer failed")
    return time.perf_counter() - begun


async def _bare(session: aiohttp.ClientSession, sandbox: Sandbox, job: Any) -> None:
    announced = json.loads(sandbox.ecs.prepare(job).body)
    async with session.get(yarl.URL(announced["input_file_url"], encoded=True)) as answer:
        rows = list(csv.reader(io.StringIO((await answer.read()).decode())))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*rows[0], "status", "message"])
    writer.writerows([*row, "ok" if _luhn(row[0]) else "failed", ""] for row in rows[1:])
    async with session.put(yarl.URL(announced["result_upload_url"], encoded=True), data=out.getvalue().encode()):
        pass
    body = {"success": True, "records_processed": len(rows) - 1, "records_failed": 0, "error_message": None}
    headers = {"Authorization": f"Bearer {sandbox.token()}", "X-Request-Id": str(job.guid)}
    async with session.post(announced["callback_url"], json=body, headers=headers):
        pass


def _luhn(number: str) -> bool:
    digits = [int(digit) for digit in reversed(number)]
    return sum(d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(digits)) % 10 == 0  # noqa: PLR2004


structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))

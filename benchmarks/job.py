"""A 200-card job from webhook to confirmed callback, against a bare script that does the same without any promise.

The peer downloads, checks, uploads and calls back in one function: no Kafka, no receipts, no audit log. Both talk to
the same sandbox. The row is jobs per second of one job after another, so its inverse is the time that a job takes.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import structlog
import yarl

from pipeline.app import Ready, run_dev
from pipeline.sandbox import CardFile, JobRequest, Sandbox, SandboxSettings, parts_snippet, settings_snippet
from pipeline.settings import load_settings

CARDS = 200
JOBS = 10


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return one row of (ours, peer): jobs per second."""
    return {
        "200-card job, webhook to callback: jobs/s, peer bare script": asyncio.run(
            _measure(rounds, max(1, int(JOBS * scale)))
        )
    }


async def _measure(rounds: int, jobs: int) -> list[tuple[float, float]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Sandbox(SandboxSettings(data_dir=folder / "sandbox", port=0)) as sandbox:
            ready: asyncio.Queue[Ready] = asyncio.Queue()
            stop = asyncio.Event()
            settings = load_settings(_config(sandbox, folder), {}, webhook_secrets=True, warn=print)
            running = asyncio.create_task(run_dev(settings, on_ready=ready.put_nowait, stop=stop))
            try:
                webhook = f"{(await ready.get()).url}/webhooks/ecs/bench"
                await _ours(sandbox, webhook, 1)
                pairs = []
                for _ in range(rounds):
                    ours = await _ours(sandbox, webhook, jobs)
                    peer = await _peer(sandbox, jobs)
                    pairs.append((jobs / ours, jobs / peer))
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


async def _ours(sandbox: Sandbox, webhook: str, jobs: int) -> float:
    begun = time.perf_counter()
    for _ in range(jobs):
        job = await sandbox.ecs.create(JobRequest(cards=CardFile(records=CARDS), webhook_url=webhook))
        await sandbox.ecs.wait_callback(job.guid, 60)
        if not job.success:
            raise SystemExit("a job of the benchmark failed")
    return time.perf_counter() - begun


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

"""Memory does not grow with the file: a real process of PROCESS does small files and large ones."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from support.brokers import Broker
from support.flow import INTEGRATION, Flow, Tables, running_flow
from support.members import until

from pipeline.contracts import OutgoingRecord, Topic, job_key
from pipeline.kafka import KafkaPublisher
from pipeline.sandbox import CardFile, JobRequest, write_cards

MEGABYTE: Final = 1_000_000
MOST: Final = 1.15
"""Peak of the large file compared with that of the small one. Both hold the interpreter with its libraries: 127 MB."""

BLOCK: Final = CardFile(size_bytes=MEGABYTE, note_bytes=300, bad_share=0.01)
"""What the files repeat: about 2,700 cards with notes of some length, one in a hundred bad."""

SECONDS: Final = 600.0


@dataclass(frozen=True)
class Run:
    """What one job took. Peak in KiB, of physical memory."""

    peak: int
    records: int
    parts: int


def write_file(path: Path, block: bytes, size: int) -> int:
    """Write a file of at least ``size`` bytes; return how often it holds the block's records."""
    header, _, records = block.partition(b"\n")
    times = 0
    with path.open("wb") as file:
        file.write(header + b"\n")
        while file.tell() < size:
            file.write(records)
            times += 1
    return times


async def run(flow: Flow, size: int) -> Run:
    """Let a fresh process do one job of this size, chunks as by default; its files are deleted afterwards."""
    sandbox = flow.sandbox
    path = sandbox.store.disk.new_path()
    ledger = await asyncio.to_thread(write_cards, path, BLOCK)
    times = await asyncio.to_thread(write_file, path, path.read_bytes(), size)
    count = times * ledger.records
    job = await sandbox.ecs.create(JobRequest(announce=False, content="nothing", record_count=count))
    await sandbox.store.disk.adopt(job.input_key, path, modified=job.created_at)
    folder = flow.store / "jobs" / INTEGRATION / str(job.guid)
    process = await flow.start("process")
    try:
        headers = (("ce_id", job.guid.hex.encode()), ("pipeline_integration", INTEGRATION.encode()))
        async with KafkaPublisher(flow.kafka) as publisher:
            value = sandbox.ecs.prepare(job, expires_in_seconds=3 * SECONDS).body
            await publisher.publish(
                OutgoingRecord(Topic.BATCH_REQUESTED, job_key(INTEGRATION, job.guid), value, headers)
            )
        ends = [folder / "processed.json", folder / "outcome.json"]
        await until(lambda: process.code is not None or any(end.exists() for end in ends), SECONDS)
        assert ends[0].exists(), process.log[-3000:]
        receipt = json.loads(ends[0].read_text())
        assert (receipt["records"], receipt["failed"]) == (count, times * ledger.bad_total)
        peak = peak_of(process.pid)
        await flow.stop("process")
    finally:
        process.kill()
        shutil.rmtree(folder, ignore_errors=True)
        path.unlink()
    return Run(peak, receipt["records"], receipt["parts"])


def peak_of(pid: int) -> int:
    """Return the most physical memory that a process ever had, in KiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc: Linux only")
@pytest.mark.parametrize(
    ("fanout_bytes", "small", "large"), [(0, 10, 1000), (MEGABYTE, 100, 500)], ids=["one worker", "shared chunks"]
)
async def test_peak_of_process(
    embedded_broker: Broker, tmp_path: Path, fanout_bytes: int, small: int, large: int
) -> None:
    """A much larger file, the same memory, whether a worker does it alone or shares its chunks.

    The small shared file has enough chunks to fill every slot of the worker.
    """
    tables: Tables = {"limits": {"fanout_bytes": fanout_bytes}}
    async with running_flow(embedded_broker, tmp_path, start=(), integration=tables) as flow:
        first = await run(flow, small * MEGABYTE)
        second = await run(flow, large * MEGABYTE)
    assert second.records > 0.9 * large / small * first.records
    assert second.parts > 0.9 * large / small * first.parts
    assert second.peak <= MOST * first.peak, f"{second} against {first}"

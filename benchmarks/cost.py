"""The cost of the pipeline: requests to its store, counted by a bucket in memory, and the CPU time of a job."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog

from benchmarks.job import cpu

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW: Final = 1_000
MANY: Final = 100_000
DUE: Final = 10
HOURS: Final = 48
ENOUGH: Final = 2
"""One round is enough, since the counts are the same each time."""

WATCH: Final = f"watch, {MANY:,} open jobs"

SMALL_JOB: Final = "store requests, 200-card job"
CHUNKED_JOB: Final = "store requests, 2,000 cards in 20 chunks"
CPU: Final = "CPU of a 200-card job, all roles / bare script"
JOBS: Final = 10

FLOORS: Final = {WATCH: 0.9, SMALL_JOB: 1.0, CHUNKED_JOB: 1.0}
CEILINGS: Final = {CPU: 9.0}
TARGETS: Final = {WATCH: 0.9, SMALL_JOB: 1.0, CHUNKED_JOB: 1.0}


def measure(rounds: int, scale: float = 1.0) -> dict[str, list[tuple[float, float]]]:
    """Return the rows: numbers of requests, or their fraction of a budget."""
    few = min(rounds, ENOUGH)
    return {
        WATCH: watch(rounds, scale),
        SMALL_JOB: [(25.0, asyncio.run(requests(200, 1))) for _ in range(few)],
        CHUNKED_JOB: [(70.0, asyncio.run(requests(2000, 20))) for _ in range(few)],
        CPU: asyncio.run(cpu(rounds, max(1, int(JOBS * scale)))),
    }


async def requests(cards: int, chunks: int) -> float:
    """Return the requests of all stages and the watch for a job, from its announcement to the confirmation."""
    from support.job_world import PART_CIPHER, World  # noqa: PLC0415
    from support.memory_bucket import MemoryBucket, running_bucket  # noqa: PLC0415

    from pipeline.jobs.job_store import JobStore  # noqa: PLC0415

    bucket = MemoryBucket()
    async with running_bucket(bucket) as store:
        world = World(fresh_seconds=1.0, inline=True, csv_limits={"chunk_records": cards // chunks})
        world.jobs = JobStore(store, PART_CIPHER)
        world.restart()
        record = world.announce(b"card_number,note\n" + b"9999990000000006,a\n" * cards, record_count=cards)
        await world.run(record)
        await world.deliver(world.watch, record)
        if len(world.ecs.calls) != 1 or bucket.keys("open/"):
            raise SystemExit("the job of the benchmark did not end")
        return float(bucket.requests.total())


def watch(rounds: int, scale: float) -> list[tuple[float, float]]:
    """Return the requests of one check of the deadline watch, with few and with many open jobs.

    Both times ten jobs are due, and the others over the next 48 hours.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    many = open_jobs(max(FEW, int(MANY * scale)))
    few = many[:: len(many) // FEW][:FEW]
    return [(asyncio.run(look(few)), asyncio.run(look(many))) for _ in range(min(rounds, ENOUGH))]


def open_jobs(count: int) -> list[str]:
    """Return the markers of this many jobs."""
    from support.job_world import BEGIN  # noqa: PLC0415 - found once the tests' folder is on the path

    from pipeline.jobs.job_tree import JobRef  # noqa: PLC0415

    begin, step = BEGIN + timedelta(minutes=5), timedelta(hours=HOURS) / count
    return [JobRef("acme", UUID(int=number)).marker("open", begin + number * step) for number in range(count)]


async def look(markers: Sequence[str]) -> float:
    """Return the requests of one check with ten due jobs."""
    from support.job_world import BEGIN, PART_CIPHER, World  # noqa: PLC0415
    from support.memory_bucket import MemoryBucket, running_bucket  # noqa: PLC0415

    from pipeline.jobs.job_store import JobStore  # noqa: PLC0415

    bucket = MemoryBucket()
    bucket.fill(markers)
    async with running_bucket(bucket) as store:
        world = World()
        world.jobs = JobStore(store, PART_CIPHER)
        world.restart()
        expiry = (BEGIN + timedelta(minutes=2)).isoformat()
        for number in range(DUE):
            guid = str(UUID(int=2**64 + number))
            await world.deliver(world.watch, world.announce(job_guid=guid, expires_at=expiry))
        world.clock.forward(minutes=3)
        bucket.requests.clear()
        await world.watch.poll()
        if len(bucket.keys("decided/")) != DUE:
            raise SystemExit("the watch did not decide the jobs that were due")
        return float(bucket.requests.total())

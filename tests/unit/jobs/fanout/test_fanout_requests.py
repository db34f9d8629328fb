"""What the chunks of a shared file cost: requests of S3, counted, however many chunks there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from support.job_world import BEGIN, JOB, PART_CIPHER
from support.memory_bucket import MemoryBucket, running_bucket

from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.recent_jobs import RecentJobs

CHUNKS = 1000
GENERATION = "0" * 16
REF = JobRef("acme", JOB)


def objects() -> list[str]:
    """Return the keys of a shared file whose chunks are done: a start, a part and a manifest of each."""
    parts = REF.parts(GENERATION)
    return [
        f"{REF.root}job.json",
        f"{parts}source.json",
        REF.plan(GENERATION),
        REF.plan_page(GENERATION, 0),
        *(f"{REF.chunk_starts(GENERATION, number)}1.json" for number in range(CHUNKS)),
        *(f"{parts}{number:08d}-{'a' * 32}.csv.aes" for number in range(CHUNKS)),
        *(REF.manifest(GENERATION, number) for number in range(CHUNKS)),
    ]


async def _finished_in(jobs: JobStore) -> None:
    assert await jobs.finished_in(REF, GENERATION, CHUNKS) == (set(range(CHUNKS)), False)


async def _finished_chunks(jobs: JobStore) -> None:
    assert await jobs.finished_chunks(REF) == {GENERATION: set(range(CHUNKS))}


async def _look(jobs: JobStore) -> None:
    recent = RecentJobs(jobs, REF, now=lambda: BEGIN)
    await recent.load()
    assert await recent.finished_chunks(REF) == {GENERATION: set(range(CHUNKS))}


async def _watch(jobs: JobStore) -> None:
    assert await jobs.only_announcement(REF, "a") is None


async def _drop(jobs: JobStore) -> None:
    assert await jobs.drop_parts(REF, dry_run=True) == 3 * CHUNKS + 3


async def _urls(jobs: JobStore) -> None:
    assert await jobs.drop_urls(REF, BEGIN + timedelta(hours=1)) == []


async def test_the_waits_of_chunks_hold_no_url_and_are_not_read_when_the_job_ends() -> None:
    bucket = MemoryBucket()
    bucket.fill([f"{REF.waiting}chunks-{number:016x}-0001.json" for number in range(100)])
    async with running_bucket(bucket) as store:
        assert await JobStore(store, PART_CIPHER).drop_urls(REF, BEGIN) == []
    assert bucket.requests == {"list": 1, "get": 1}  # the outcome


@pytest.mark.parametrize("look", [_finished_in, _finished_chunks, _look, _watch, _drop, _urls])
async def test_a_look_at_the_chunks_costs_a_request_for_each_thousand_objects(
    look: Callable[[JobStore], Awaitable[None]],
) -> None:
    bucket = MemoryBucket()
    bucket.fill(objects())
    async with running_bucket(bucket) as store:
        await look(JobStore(store, PART_CIPHER))
    assert bucket.requests["list"] <= 3 * CHUNKS / 1000 + 1


async def test_the_look_of_a_coordinator_lists_no_starts() -> None:
    """They are a folder each, which a local store opens one by one: 8 times the CPU time of a look."""
    bucket = MemoryBucket()
    bucket.fill([f"{REF.chunk_starts(GENERATION, number)}1.json" for number in range(3 * CHUNKS)])
    bucket.fill([REF.manifest(GENERATION, number) for number in (0, 7, 12_345_678)])
    async with running_bucket(bucket) as store:
        jobs = JobStore(store, PART_CIPHER)
        assert await jobs.finished_in(REF, GENERATION, 10**7) == ({0, 7}, False)
        assert bucket.requests["list"] == 1
        bucket.fill([REF.source_changed(GENERATION)])
        assert await jobs.finished_in(REF, GENERATION, 10**7 + 1) == ({0, 7, 12_345_678}, True)

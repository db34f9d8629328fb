"""What a look of the deadline watch costs: requests of S3, counted, with few and many open and refused jobs."""

from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from support.job_world import BEGIN, PART_CIPHER, World
from support.memory_bucket import MemoryBucket, running_bucket

from pipeline.contracts import Topic
from pipeline.errors import PoisonRecord
from pipeline.jobs.job_store import MOST_ANNOUNCEMENTS, JobStore
from pipeline.jobs.job_tree import JobRef, MarkerKind
from pipeline.storage import LocalStore, ObjectStore

HOURS = 48


def markers(count: int, kind: MarkerKind = "open") -> list[str]:
    """Return the markers of so many jobs, spread over 48 hours from the second minute on; refused ones lie behind."""
    begin, step = BEGIN + timedelta(minutes=2), timedelta(hours=HOURS) / count
    if kind == "decided":
        step = -step
    return [JobRef("acme", UUID(int=number)).marker(kind, begin + number * step) for number in range(count)]


def world_on(store: ObjectStore) -> World:
    world = World()
    world.jobs = JobStore(store, PART_CIPHER)
    world.restart()
    return world


@pytest.mark.parametrize("count", [1000, 20_000])
async def test_a_look_at_nothing_due_costs_two_listings_however_many_are_open(count: int) -> None:
    bucket = MemoryBucket()
    bucket.fill([*markers(count), *markers(1000, "decided")])
    async with running_bucket(bucket) as store:
        world = world_on(store)
        await world.watch.poll()
        assert bucket.requests == {"list": 2}  # open/ and purge/
        assert 60 < world.metrics.deadline_seconds_left_min._value.get() <= 180
        bucket.requests.clear()
        await world.watch.count()
        assert bucket.requests["list"] <= count / 1000 + 4
        assert world.metrics.open_jobs._value.get() == count + 1000


async def test_due_jobs_cost_their_own_requests_and_refused_ones_none() -> None:
    """Each of ten due jobs is decided once; then they are refused, and the next look costs what it costs without."""
    bucket = MemoryBucket()
    bucket.fill(markers(5000))
    async with running_bucket(bucket) as store:
        world = world_on(store)
        expiry = (BEGIN + timedelta(minutes=1, seconds=50)).isoformat()
        for number in range(10):
            await world.deliver(world.watch, world.announce(job_guid=str(UUID(int=10**9 + number)), expires_at=expiry))
        world.clock.forward(minutes=1, seconds=55)
        bucket.requests.clear()
        await world.watch.poll()
        assert len(world.bus.on(Topic.BATCH_FAILED)) == 10
        assert bucket.requests.total() <= 2 + 10 * 16
        assert len(bucket.keys("decided/")) == 10
        bucket.requests.clear()
        await world.watch.poll()
        assert bucket.requests == {"list": 2}
        world.restart()
        bucket.requests.clear()
        await world.watch.poll()
        assert bucket.requests == {"list": 2}
        assert len(world.bus.on(Topic.BATCH_FAILED)) == 10


async def test_on_a_folder_a_look_opens_what_is_due_and_the_next_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in [*markers(1000), *markers(200, "decided")]:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).touch()
    opened: Counter[str] = Counter()
    real = os.scandir

    def scandir(path: Path) -> object:
        opened[str(path).removeprefix(str(tmp_path)).split("/")[1]] += 1
        return real(path)

    world = world_on(LocalStore(tmp_path))
    monkeypatch.setattr(os, "scandir", scandir)
    await world.watch.poll()
    assert opened == {"open": 3, "purge": 1}  # the minutes; the first one; its integration
    assert 60 < world.metrics.deadline_seconds_left_min._value.get() <= 180


async def test_a_look_that_was_interrupted_anywhere_is_finished_by_the_next() -> None:
    """The marker in ``open/`` is removed last, so the outcome is published even after an interruption."""
    for calls in range(1, 20):
        world = World()
        await world.deliver(world.watch, world.announce())
        world.clock.forward(hours=1)
        before, left = world.memory.create, [calls]

        async def create(key: str, data: bytes) -> bool:
            left[0] -= 1  # noqa: B023
            if not left[0]:  # noqa: B023
                raise RuntimeError("killed")
            return await before(key, data)  # noqa: B023

        world.memory.create = create  # type: ignore[method-assign]
        await world.watch.poll()
        world.memory.create = before  # type: ignore[method-assign]
        world.restart()
        await world.watch.poll()
        failed = {one.headers for one in world.bus.on(Topic.BATCH_FAILED)}
        assert len(failed) == 1
        assert [key.split("/")[0] for key in world.memory.objects if key.startswith(("open/", "decided/"))] == [
            "decided"
        ]
        await world.deliver(world.confirm, world.records(Topic.BATCH_FAILED)[0])
        assert not [key for key in world.memory.objects if key.startswith(("open/", "decided/"))]
        if left[0] > 0:
            return
    raise AssertionError("the look makes more creations than this test counts")


async def test_a_sender_that_renews_600_times_cannot_make_a_job_expensive() -> None:
    """The 101st announcement is dead-lettered. The job continues with its URLs, and repeats are recognised."""
    bucket = MemoryBucket()
    async with running_bucket(bucket) as store:
        world = world_on(store)
        records = [world.announce(expires_at=(BEGIN + timedelta(hours=2, minutes=n)).isoformat()) for n in range(600)]
        refused: list[str] = []
        for record in records:
            try:
                await world.deliver(world.watch, record)
            except PoisonRecord as error:
                refused.append(error.code)
        assert refused == ["announcements_too_many"] * 500
        assert len(bucket.keys(f"{world.ref.root}announcements/")) == MOST_ANNOUNCEMENTS == 100
        with pytest.raises(PoisonRecord):
            await world.process.arrive(records[-1])
        await world.run(records[99])
        assert await world.jobs.notification_result(world.ref) is not None
        assert bucket.keys("open/") == []
        bucket.requests.clear()
        await world.jobs.drop_urls(world.ref, world.clock())
        assert bucket.requests.total() <= MOST_ANNOUNCEMENTS + 5

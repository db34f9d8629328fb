"""What the work on one message remembers of its job, and for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from support.job_world import BEGIN, World

from pipeline.contracts import Topic
from pipeline.jobs.receipts import Outcome
from pipeline.jobs.recent_jobs import RecentJobs
from pipeline.storage import ObjectInfo
from pipeline.storage.testing import MemoryStore


class Counting(MemoryStore):
    """A store that counts its requests."""

    requests = 0

    async def create(self, key: str, data: bytes) -> bool:
        self.requests += 1
        return await super().create(key, data)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        self.requests += 1
        return await super().get(key, start=start, end=end)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        self.requests += 1
        async for info in super().list(prefix):
            yield info

    async def replace(self, key: str, data: bytes) -> None:
        self.requests += 1
        await super().replace(key, data)

    async def delete_all(self, keys: Sequence[str]) -> None:
        self.requests += 1
        await super().delete_all(keys)


class Moment:
    """A monotonic clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def counted() -> tuple[World, Counting]:
    world, store = World(fresh_seconds=1.0), Counting()
    world.memory, world.jobs.objects = store, store
    return world, store


async def recent(world: World) -> tuple[RecentJobs, Moment]:
    """Return what UPLOAD would look at: a job that is announced and not decided."""
    await world.process.arrive(world.announce())
    moment = Moment()
    jobs = RecentJobs(world.jobs, world.ref, now=world.clock, clock=moment)
    await jobs.look()
    return jobs, moment


def outcome() -> Outcome:
    return Outcome(
        outcome="failed",
        reason="cancelled",
        message="",
        body="",
        request_id="",
        announcement="a",
        generation=None,
        records=0,
        ok=0,
        failed=0,
        result_bytes=0,
        result_etag="",
        decided_by="cli:test",
        at=BEGIN,
    )


async def test_an_outcome_is_noticed_when_the_look_no_longer_counts() -> None:
    world, store = counted()
    jobs, moment = await recent(world)
    await world.jobs.decide(world.ref, outcome())
    store.requests = 0
    assert await jobs.outcome(world.ref) is None
    assert store.requests == 0
    moment.now += 1.0
    assert await jobs.outcome(world.ref) is not None


async def test_a_renewed_announcement_is_used_when_the_look_no_longer_counts() -> None:
    world, store = counted()
    jobs, moment = await recent(world)
    first = await jobs.newest(world.ref)
    await world.process.arrive(world.announce(expires_at="2026-01-21T18:00:00Z"))
    store.requests = 0
    assert await jobs.newest(world.ref) == first
    assert store.requests == 0
    moment.now += 1.0
    assert (await jobs.newest(world.ref)).deadline > first.deadline


async def test_close_to_the_deadline_no_memory_of_announcements_counts() -> None:
    world, _ = counted()
    jobs, _ = await recent(world)
    first = await jobs.newest(world.ref)
    await world.process.arrive(world.announce(expires_at="2026-01-21T18:00:00Z"))
    world.clock.now = first.deadline - timedelta(seconds=2)
    assert (await jobs.newest(world.ref)).deadline > first.deadline


async def test_a_job_that_another_process_announced_first_is_looked_at() -> None:
    """Only the creator of a job knows that the store holds nothing else of it."""
    world, _ = counted()
    record = world.announce()
    await world.deliver(world.watch, record)
    await world.jobs.decide(world.ref, outcome())
    await world.deliver(world.process, record)
    assert world.objects.opened == []


@pytest.mark.parametrize("after_a_restart", [False, True])
async def test_an_arrival_that_is_handled_late_is_looked_at(*, after_a_restart: bool) -> None:
    """Its worker may have been frozen, or the job cancelled while it waited for its turn."""
    world, _ = counted()
    world.fresh_seconds = 0.0 if not after_a_restart else 1.0
    world.restart()
    record = world.announce()
    await world.process.arrive(record)
    if after_a_restart:
        world.restart()
    await world.jobs.decide(world.ref, outcome())
    await world.process.handle(record, world.lease)
    assert world.objects.opened == []


async def test_requests_of_each_stage() -> None:
    """Each request is one that the stage cannot do without: docs/delivery.md says why."""
    world, store = counted()
    record = world.announce()
    counts = {}
    for stage, topic in (("process", None), ("upload", Topic.BATCH_PROCESSED), ("confirm", Topic.BATCH_UPLOADED)):
        store.requests = 0
        await world.deliver(getattr(world, stage), world.records(topic)[0] if topic else record)
        counts[stage] = store.requests
    assert counts == {"process": 7, "upload": 6, "confirm": 9}

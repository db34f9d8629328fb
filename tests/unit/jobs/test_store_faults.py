"""One job, while each request of the store in turn meets a fault: one right outcome, and nothing is left behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import pytest
from aiohttp import web
from support.job_world import CARDS, PART_CIPHER, Stage, World
from support.memory_bucket import MemoryBucket
from support.store_faults import FAULTS, Asked, Fault, FaultyProxy, faulty, settings_of

from pipeline.contracts import Topic
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.parking import Parking
from pipeline.retry import RetryPolicy
from pipeline.storage import S3Store

STAGES: Final[Mapping[Topic, Stage]] = {
    Topic.BATCH_PROCESSED: "upload",
    Topic.BATCH_UPLOADED: "confirm",
    Topic.BATCH_FAILED: "confirm",
}
ROUNDS: Final = 30
"""A fault costs a try or a wait; so many rounds are far more than one fault needs."""
MOST_CALLS: Final = 2
"""The partner may get the callback twice, equal in its bytes, if CONFIRM could not record that it was answered."""


class Ground:
    """A bucket behind a proxy, and a new world over it for each job."""

    def __init__(self, bucket: MemoryBucket, proxy: FaultyProxy, store: S3Store, *, chunks: bool) -> None:
        self.bucket = bucket
        self.proxy = proxy
        self._store = store
        self._chunks = chunks
        self.world = World()

    def empty(self) -> None:
        """Begin again with nothing in the bucket."""
        self.bucket.clear()
        self.proxy.forget()
        world = World(fresh_seconds=1.0, csv_limits={"chunk_records": 1} if self._chunks else {})
        world.jobs = JobStore(self._store, PART_CIPHER)
        if self._chunks:
            world.jobs.inline_bytes = -1
        world.parking = Parking(world.jobs, world.clock, RetryPolicy(30, 900, jitter=lambda: 1.0), worker="here")
        world.restart()
        self.world = world

    async def job(self, fault: Fault | None = None, at: int = 0) -> Asked | None:
        """Do one job as the consumers of all stages do, until nothing is left to do.

        Args:
            fault: What one request meets.
            at: Which of those that the fault makes sense for, from 0.

        Returns:
            The request that met the fault; None if there were fewer.
        """
        self.empty()
        left, met = at, None

        def choose(asked: Asked) -> Fault | None:
            nonlocal left, met
            if fault is None or not asked.can(fault):
                return None
            left -= 1
            if left != -1:
                return None
            met = asked
            return fault

        self.proxy.choose = choose
        await self._job()
        return met

    async def _job(self) -> None:
        world, done = self.world, 0
        record = world.announce(CARDS)
        await world.handle_until_over("watch", record)
        await world.handle_until_over("process", record)
        for _ in range(ROUNDS):
            published = list(world.bus.published)
            if done == len(published) and not self.bucket.keys("due/"):
                return
            for offset, one in enumerate(published[done:], done):
                stage = STAGES.get(Topic(one.topic), "process" if one.topic == Topic.BATCH_REQUESTED else None)
                if stage:
                    found = world.record(one.value)
                    copy = type(found)(one.topic, 0, offset, one.key, one.value, one.headers, 0)
                    await world.handle_until_over(stage, copy)
            done = len(published)
            if self.bucket.keys("due/"):
                world.clock.forward(minutes=1)
                await world.due.poll()
        raise AssertionError("the job does not end")

    def left(self) -> list[str]:
        """Return what is in the store, without what says how often something was tried."""
        tried = ("/told/", "/started/", "/waiting/")
        keys = [key for key in self.bucket.keys("") if not any(name in key for name in tried)]
        return ["ended" if key.startswith("ended/") else key for key in keys]


@asynccontextmanager
async def ground(*, chunks: bool) -> AsyncIterator[Ground]:
    bucket = MemoryBucket()
    runner = web.AppRunner(bucket.app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        settings = settings_of(f"http://{host}:{port}", "bucket", "memory-bucket-keys", "memory-bucket-keys")
        async with faulty(settings, retries=0) as (proxy, store):
            yield Ground(bucket, proxy, store, chunks=chunks)
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses: they are for real servers."""
    monkeypatch.setattr("pipeline.storage.s3._CLOSE_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("pipeline.storage.s3._CONFLICT_PAUSES", (0.0, 0.0))
    monkeypatch.setattr("pipeline.jobs.deadline_watch._HEAD_START_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("fault", "chunks"),
    [*((fault, False) for fault in FAULTS), ("lost answer", True), ("409", True), ("stale listing", True)],
)
async def test_a_fault_at_any_request_changes_nothing(fault: Fault, *, chunks: bool) -> None:
    async with ground(chunks=chunks) as disturbed:
        await disturbed.job()
        left = disturbed.left()
        ((_, result),) = disturbed.world.objects.put
        callback = disturbed.world.ecs.calls[0][2]
        at = 0
        while where := await disturbed.job(fault, at):
            at, world = at + 1, disturbed.world
            assert {data for _, data in world.objects.put} == {result}, where
            assert {body for _, _, body, _ in world.ecs.calls} == {callback}, where
            assert len(world.ecs.calls) <= MOST_CALLS, where
            assert world.bus.on(Topic.BATCH_FAILED) == [], where
            missed = [key for key in disturbed.left() if "/parts/" in key or key.startswith("open/")]
            assert fault == "stale listing" or not missed, where
            assert [key for key in disturbed.left() if key not in missed] == left, where
        assert at

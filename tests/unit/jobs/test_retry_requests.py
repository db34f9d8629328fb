"""What one retry of a waiting job asks of the store, from one wait to the next, and what a retry must not rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final
from uuid import UUID

import pytest
from support.job_world import CARDS, PART_CIPHER, World
from support.memory_bucket import MemoryBucket, running_bucket

from pipeline.contracts import Record, Topic
from pipeline.errors import PermanentError, TransientError
from pipeline.jobs.announcements import JobRules
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.operations import Operations
from pipeline.jobs.parking import Parking
from pipeline.jobs.processors import Card, CardResult, JobContext, ProcessorSettings
from pipeline.jobs.processors.loading import adopt
from pipeline.retry import RetryPolicy

RETRY: Final = 4
"""Requests of one retry in the process that tried the job before: it reads the receipt, deletes the marker, and creates
a receipt and a marker."""
COLD_RETRY: Final = 7
"""In another process: it also asks whether a copy waits already, lists the job's folder, and reads the announcement."""
LOOK: Final = 1
"""The listing of a look at what is due; it serves all jobs."""
BUSY: Final = TransientError("source_busy", "The input storage answers 503.", retry_after=60)
FAR: Final = "2026-01-22T12:00:00Z"


class Ground:
    """A world over a bucket that counts its requests."""

    def __init__(self, bucket: MemoryBucket, world: World) -> None:
        self.bucket = bucket
        self.world = world

    async def wait(self, record: Record, tries: int = 1) -> None:
        """Try a job that cannot be done now, until it is parked."""
        self.world.objects.fail_open = [BUSY] * tries
        await self.world.handle_until_over("process", record)
        assert self.world.objects.fail_open == []

    async def due(self) -> list[Record]:
        """Let the watch publish what is due; return the copies."""
        self.world.clock.forward(minutes=3)
        self.world.bus.published.clear()
        await self.world.due.poll()
        return self.world.returned(Topic.BATCH_REQUESTED)

    def restart(self) -> None:
        """Let another process go on."""
        self.world.parking = parking(self.world)
        self.world.restart()


def parking(world: World) -> Parking:
    return Parking(world.jobs, world.clock, RetryPolicy(30, 900, jitter=lambda: 1.0), worker="here")


@pytest.fixture
async def ground() -> AsyncIterator[Ground]:
    bucket = MemoryBucket()
    async with running_bucket(bucket) as store:
        world = World(fresh_seconds=1.0, inline=True)
        world.jobs = JobStore(store, PART_CIPHER)
        found = Ground(bucket, world)
        found.restart()
        yield found


async def test_a_retry_costs_four_requests(ground: Ground) -> None:
    """Parked, due, published again, tried, parked again: three times in a row."""
    await ground.wait(ground.world.announce(expires_at=FAR))
    for _ in range(3):
        ground.bucket.requests.clear()
        (copy,) = await ground.due()
        await ground.wait(copy)
        assert ground.bucket.requests.total() <= RETRY + LOOK
    assert len(ground.bucket.keys("due/")) == 1


async def test_a_retry_of_three_tries_in_the_process_costs_no_more(ground: Ground) -> None:
    slow = TransientError("slow_down", "503")
    ground.world.objects.fail_open = [slow] * 3
    await ground.world.handle_until_over("process", ground.world.announce(expires_at=FAR))
    ground.bucket.requests.clear()
    (copy,) = await ground.due()
    ground.world.objects.fail_open = [slow] * 3
    await ground.world.handle_until_over("process", copy)
    assert ground.bucket.requests.total() <= RETRY + LOOK
    assert len(ground.bucket.keys("due/")) == 1


async def test_of_many_jobs_each_costs_four_with_the_look(ground: Ground) -> None:
    """The markers of jobs that are published together are deleted together."""
    jobs = 16
    for number in range(jobs):
        await ground.wait(ground.world.announce(expires_at=FAR, job_guid=str(UUID(int=number, version=4))))
    ground.bucket.requests.clear()
    for copy in await ground.due():
        await ground.wait(copy)
    assert ground.bucket.requests.total() <= RETRY * jobs
    assert len(ground.bucket.keys("due/")) == jobs


async def test_another_process_may_do_the_retry(ground: Ground) -> None:
    await ground.wait(ground.world.announce(expires_at=FAR))
    for _ in range(3):
        ground.restart()
        ground.bucket.requests.clear()
        (copy,) = await ground.due()
        await ground.wait(copy)
        assert ground.bucket.requests.total() <= COLD_RETRY + LOOK
    assert len(ground.bucket.keys("due/")) == 1


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_retry_that_can_begin_does_the_job(ground: Ground, *, restarts: bool) -> None:
    world = ground.world
    await ground.wait(world.announce(expires_at=FAR))
    if restarts:
        ground.restart()
    (copy,) = await ground.due()
    opened = len(world.objects.opened)
    await world.handle_until_over("process", copy)
    assert len(world.objects.opened) - opened == 1
    assert await world.jobs.processed(world.ref)


# --- a process remembers a job that changed while it waited ---------------------------------------------------------


async def test_a_job_that_was_cancelled_meanwhile_stays_cancelled(ground: Ground) -> None:
    world = ground.world
    await ground.wait(world.announce(expires_at=FAR))
    (copy,) = await ground.due()
    rules = JobRules(partner=world.partner, limits=world.limits, policies=world.policies)
    await Operations(world._context("cli:me"), {"acme": rules}, timedelta(days=7), world.parking).cancel(world.ref)
    await world.handle_until_over("process", copy)
    assert await world.jobs.processed(world.ref) is None
    outcome = await world.jobs.outcome(world.ref)
    assert outcome
    assert outcome.reason == "cancelled"
    assert [one.key for one in world.bus.on(Topic.BATCH_FAILED)]


async def test_a_host_that_refuses_the_old_url_does_not_fail_a_job_that_has_a_new_one(ground: Ground) -> None:
    world = ground.world
    await ground.wait(world.announce(expires_at=FAR))
    (copy,) = await ground.due()
    fresh = world.announce(input_file_url="https://files.example/new.csv", expires_at="2026-01-22T13:00:00Z")
    await world.deliver(world.watch, fresh)  # another process has read it
    world.objects.fail_open = [PermanentError("source_expired", "The URL has expired.")]
    await world.handle_until_over("process", copy)
    assert world.objects.opened[-1][0] == "https://files.example/new.csv"
    assert await world.jobs.outcome(world.ref) is None
    assert await world.jobs.processed(world.ref)


async def test_cards_that_another_process_decided_meanwhile_are_not_decided_again() -> None:
    """The first process has the partition again, and remembers a job without parts."""
    cards: list[int] = []
    down = [BUSY]

    async def note(card: Card, context: JobContext) -> CardResult:
        del context
        if card.record == len(CARDS.splitlines()) - 1 and down:
            raise down.pop()
        cards.append(card.record)
        return CardResult()

    processor = adopt(note, ProcessorSettings())
    first = World(fresh_seconds=1.0, csv_limits={"chunk_records": 1}, processor=processor)
    record = first.announce(CARDS, expires_at=FAR)
    first.objects.fail_open = [BUSY]
    await first.handle_until_over("process", record)
    first.clock.forward(minutes=3)
    await first.due.poll()
    (copy,) = first.returned(Topic.BATCH_REQUESTED)

    second = World(fresh_seconds=1.0, csv_limits={"chunk_records": 1}, processor=processor)
    second.jobs, second.clock, second.bus, second.objects = first.jobs, first.clock, first.bus, first.objects
    second.downloader, second.parking = first.objects, parking(second)
    second.restart()
    await second.handle_until_over("process", copy)
    assert len(cards) == 2
    first.clock.forward(minutes=3)
    first.bus.published.clear()
    await first.due.poll()
    (again,) = first.returned(Topic.BATCH_REQUESTED)
    await first.handle_until_over("process", again)
    assert sorted(cards) == [1, 2, 3]
    assert await first.jobs.processed(first.ref)

"""How far PROCESS is with a job, as `job show` and `job follow` show it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from support.job_world import BEGIN, JOB, PART_CIPHER, World
from support.memory_bucket import MemoryBucket, running_bucket
from support.screen import Screen

from pipeline.cli.job_follow import showing
from pipeline.cli.job_progress import JobProgress
from pipeline.cli.job_view import view_job, view_with_progress
from pipeline.contracts import Record, Topic
from pipeline.errors import Untried
from pipeline.jobs.fanout import coordinator
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.processors import Card, JobContext, ProcessorSettings, adopt
from pipeline.jobs.receipts import Plan, Started

ROWS = b"card_number,note\n" + b"".join(b"999999%010d,x\n" % number for number in range(60))
GENERATION = "0" * 16
REF = JobRef("acme", JOB)


class Cards:
    """A processor that stops at the cards of one chunk until it may go on."""

    def __init__(self, stop_at: int) -> None:
        self.stop_at = stop_at
        self.stopped = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.error: Untried | None = None

    async def process(self, card: Card, _context: JobContext) -> None:
        if (card.record - 1) // 10 == self.stop_at:
            if self.error:
                raise self.error
            self.stopped.set()
            await self.may_go_on.wait()


def world_of(cards: Cards, like: World | None = None) -> World:
    """Return a world whose files are shared in chunks of ten cards; like another one, it is one more worker there."""
    world = World(
        csv_limits={"chunk_records": 10, "chunk_bytes": 1024},
        limits={"fanout_bytes": 500},
        processor=adopt(cards.process, ProcessorSettings(name="mine")),
    )
    if like:
        world.clock, world.objects, world.memory, world.bus = like.clock, like.objects, like.memory, like.bus
        world.jobs, world.parking, world.downloader = JobStore(like.memory, PART_CIPHER), like.parking, like.objects
        world.restart()
    return world


@asynccontextmanager
async def divided(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Record]]:
    """Give the records of the chunks of a shared file while its coordinator runs."""
    for name in ("_FIRST_STEP", "_SHORTEST_STEP", "_LONGEST_STEP"):
        monkeypatch.setattr(coordinator, name, 0.001)
    record = world.announce(ROWS, record_count=60)
    await world.deliver(world.watch, record)
    running = asyncio.create_task(world.deliver(world.process, record))
    try:
        async with asyncio.timeout(20):
            while len(world.records(Topic.BATCH_CHUNKS)) < 6:  # noqa: ASYNC110 - the bus has no event
                await asyncio.sleep(0.001)
        yield world.records(Topic.BATCH_CHUNKS)
    finally:
        running.cancel()


async def progress(world: World) -> JobProgress:
    view = await view_job(world.jobs, world.ref, until=world.clock())
    assert view.progress is not None
    return view.progress


async def test_a_shared_job_shows_chunks_workers_rate_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = Cards(stop_at=2)
    world = world_of(cards)
    other = world_of(cards, like=world)
    async with divided(world, monkeypatch) as records:
        before = await progress(world)
        assert (before.shared, before.done, before.total, before.cards) == (True, 0, 6, 0)
        assert (before.rate, before.end, before.workers) == (None, None, [])
        world.clock.forward(seconds=5)
        await world.deliver(world.chunks, records[0])
        world.clock.forward(seconds=5)
        await other.deliver(other.chunks, records[1])
        held = asyncio.create_task(other.deliver(other.chunks, records[2]))
        await cards.stopped.wait()
        found = await progress(world)
        assert (found.done, found.total, found.in_work, found.waiting) == (2, 6, 1, 0)
        assert (found.cards, found.cards_total, found.rate) == (20, 60, 2.0)
        assert found.end == world.clock() + timedelta(seconds=20)
        assert found.in_time is True
        (worker,) = found.workers
        assert (worker.chunks, worker.since) == ([2], world.clock())
        shown = dict(found.fields(world.clock() + timedelta(seconds=3)))
        assert shown == {
            "chunks": "2 of 6 done, 1 in work, shared by all workers",
            "cards": "20 of 60 decided (33%)",
            f"worker {worker.name}": "chunk 2, for 3 s",
            "rate": "2.0 cards/s",
            "expected end": "2026-01-21T12:00:30+00:00 (in 17 s, 59 min before the deadline)",
        }
        held.cancel()


async def test_only_the_latest_minutes_make_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was slow an hour ago says nothing about the end; without chunks since then, all count."""
    world = world_of(Cards(stop_at=-1))
    async with divided(world, monkeypatch) as records:
        world.clock.forward(minutes=30)
        for record in records[:3]:
            world.clock.forward(seconds=100)
            await world.deliver(world.chunks, record)
        assert (await progress(world)).rate == pytest.approx(30 / 300)
        world.clock.forward(minutes=10)
        found = await progress(world)
        assert found.rate == pytest.approx(30 / 2700)
        assert found.end == world.clock() + timedelta(seconds=2700)
        assert found.in_time is False
        assert dict(found.fields(world.clock()))["expected end"].endswith(
            "(in 45 min, TOO LATE: 30 min after the deadline)"
        )


async def test_a_chunk_that_is_tried_again_is_not_in_work(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = Cards(stop_at=0)
    cards.error = Untried("circuit_open", "The card service does not answer.", retry_after=60)
    world = world_of(cards)
    async with divided(world, monkeypatch) as records:
        await world.handle_until_over("chunks", records[0])
        found = await progress(world)
        assert (found.in_work, found.waiting, found.workers) == (0, 1, [])
        assert dict(found.fields(world.clock()))["chunks"] == (
            "0 of 6 done, 0 in work, 1 will be tried again, shared by all workers"
        )


async def test_a_job_of_one_worker_shows_about_how_many_chunks_there_are() -> None:
    cards = Cards(stop_at=4)
    world = World(csv_limits={"chunk_records": 10}, processor=adopt(cards.process, ProcessorSettings(name="mine")))
    record = world.announce(ROWS, record_count=60)
    await world.deliver(world.watch, record)
    running = asyncio.create_task(world.deliver(world.process, record))
    await cards.stopped.wait()
    world.clock.forward(seconds=20)
    found = await progress(world)
    assert (found.shared, found.done, found.total, found.in_work) == (False, 4, 6, None)
    assert (found.cards, found.cards_total, found.rate) == (40, 60, 2.0)
    (worker,) = found.workers
    assert dict(found.fields(world.clock())) == {
        "chunks": "4 of about 6 done, one worker does the file",
        "cards": "40 of 60 decided (67%)",
        f"worker {worker.name}": "does the file, for 20 s",
        "rate": "2.0 cards/s",
        "expected end": "2026-01-21T12:00:30+00:00 (in 10 s, 59 min before the deadline)",
    }
    assert found.as_json()["workers"] == [
        {"host": worker.host, "worker": worker.ident, "chunks": [], "since": BEGIN.isoformat()}
    ]
    cards.may_go_on.set()
    await running
    assert (await view_with_progress(world.jobs, world.ref)).progress is None


@pytest.mark.parametrize("chunks", [100, 3000])
async def test_a_look_costs_the_same_requests_for_any_number_of_chunks_but_for_the_listing(chunks: int) -> None:
    """This holds when many chunks are in work or have waited, too."""
    bucket = MemoryBucket()
    parts = REF.parts(GENERATION)
    start = Started(number=1, chunks=0, worker="w", host="h", at=BEGIN).model_dump_json().encode()
    plan = Plan(announcement="a", chunks=2 * chunks, records=20 * chunks, at=BEGIN).model_dump_json().encode()
    bucket.fill([f"{parts}plan.json"], plan)
    bucket.fill([f"{parts}{number:08d}.json" for number in range(chunks)])
    bucket.fill([f"{REF.chunk_starts(GENERATION, number)}1.json" for number in range(2 * chunks)], start)
    bucket.fill([f"{REF.waiting}chunks-{number:016x}-0001.json" for number in range(chunks)])
    async with running_bucket(bucket) as store:
        view = await view_job(JobStore(store), REF, until=BEGIN)
    assert view.progress
    assert (view.progress.done, view.progress.total, view.progress.in_work) == (chunks, 2 * chunks, chunks)
    assert len(view.progress.workers[0].chunks) == 64
    assert bucket.requests["get"] <= 64 + 16 + 2
    assert bucket.requests["list"] <= 2 + 2 * (4 * chunks // 1000 + 1)


@pytest.mark.parametrize("width", [80, 150])
async def test_a_terminal_shows_one_bar_for_the_whole_job(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """It fills with the cards that are decided; what is shown fits the line."""
    screen = Screen(width)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    cards = Cards(stop_at=4)
    world = World(csv_limits={"chunk_records": 10}, processor=adopt(cards.process, ProcessorSettings(name="mine")))
    monkeypatch.setattr("pipeline.cli.job_follow.now", world.clock)
    record = world.announce(ROWS, record_count=60)
    with showing() as (show, every_look):
        assert every_look
        await world.deliver(world.watch, record)
        show(await view_job(world.jobs, world.ref, until=world.clock()))
        assert screen.lines()[-1].startswith("announced ")
        running = asyncio.create_task(world.deliver(world.process, record))
        await cards.stopped.wait()
        world.clock.forward(seconds=20)
        show(await view_job(world.jobs, world.ref, until=world.clock()))
        assert re.fullmatch(r"processing ━+[╸╺]?━* 67% of 60 cards 2\.0/s 10 s left", screen.lines()[-1])
        world.clock.forward(hours=1)
        show(await view_job(world.jobs, world.ref, until=world.clock()))
        assert re.fullmatch(
            r"processing ━+[╸╺]?━* 67% of 60 cards less than 0.1/s 30 min left, TOO LATE", screen.lines()[-1]
        )
        cards.may_go_on.set()
        await running
        show(await view_job(world.jobs, world.ref, until=world.clock()))
    assert re.fullmatch(r"processed ━+ 100%", screen.lines()[-1])


async def test_without_a_terminal_each_change_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = world_of(Cards(stop_at=-1))
    async with divided(world, monkeypatch) as records:
        world.clock.forward(seconds=5)
        await world.deliver(world.chunks, records[0])
        with showing() as (show, every_look):
            assert not every_look
            show(await view_job(world.jobs, world.ref, until=world.clock()))
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"job=acme/{JOB}  attempt=1  state=processing  deadline=2026-01-21T12:59:30+00:00  records=-  ok=-  failed=-  "
        "reason=-  chunks=1/6  cards=10/60  cards_per_second=2.0  expected_end=2026-01-21T12:00:30+00:00"
    )

"""A job that kills its workers ends; those that died beside it do not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from support.job_world import JOB, World

from pipeline.contracts import Record, Topic
from pipeline.errors import TransientError
from pipeline.jobs import starts
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.processors import Card, JobContext, ProcessorSettings, adopt
from pipeline.storage import StoreUnavailable

OTHER = UUID(int=1)
FRESH = UUID(int=2)
TEN = b"card_number\n" + b"9999990000000006\n" * 10


class Work:
    """A processor that gets stuck where a test says: a worker that is left then has died there, for all others."""

    def __init__(self) -> None:
        self.stuck: Callable[[Card, JobContext], bool] = lambda _card, context: context.job_guid == JOB
        self.entered: list[UUID] = []
        self.held: set[UUID] = set()
        self.inside = asyncio.Event()
        self.world = World(
            processor=adopt(self._process, ProcessorSettings(name="mine")), csv_limits={"chunk_records": 5}
        )
        self.tasks: list[asyncio.Task[None]] = []

    async def _process(self, card: Card, context: JobContext) -> None:
        self.entered.append(context.job_guid)
        if self.stuck(card, context):
            self.held.add(context.job_guid)
            self.inside.set()
            await asyncio.Event().wait()

    def begin(self, record: Record) -> asyncio.Task[None]:
        task = asyncio.create_task(self.world.deliver(self.world.process, record))
        self.tasks.append(task)
        return task

    async def die(self, *records: Record) -> None:
        """Let a worker die while it works on all these jobs."""
        self.held.clear()
        for record in records:
            self.begin(record)
        async with asyncio.timeout(5):
            while len(self.held) < len(records):
                self.inside.clear()
                await self.inside.wait()
        self.world.restart()
        self.inside.clear()

    def announce(self, job: UUID = JOB, data: bytes = TEN) -> Record:
        url = f"https://files.example/{job}.csv?X-Amz-Signature=planted1"
        return self.world.announce(data, job_guid=str(job), input_file_url=url, record_count=data.count(b"\n") - 1)

    def names(self, job: UUID = JOB) -> list[str]:
        prefix = f"jobs/acme/{job}/started/"
        return sorted(key.removeprefix(prefix) for key in self.world.memory.objects if key.startswith(prefix))


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    made = Work()
    yield made
    for task in made.tasks:
        task.cancel()
    with suppress(BaseException):
        await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_a_job_that_is_done_leaves_one_start(work: Work) -> None:
    work.stuck = lambda _card, _context: False
    await work.world.deliver(work.world.process, work.announce())
    assert work.names() == ["1.json"]


async def test_after_three_deaths_without_progress_the_job_fails(work: Work) -> None:
    record = work.announce()
    for _ in range(3):
        await work.die(record)
    assert work.names() == ["1.json", "2.json", "3.json"]
    before = len(work.entered)
    await work.world.deliver(work.world.process, record)
    outcome = await work.world.jobs.outcome(JobRef("acme", JOB))
    assert outcome is not None
    assert (outcome.outcome, outcome.reason) == ("failed", "worker_crashed")
    assert "3 workers in a row died" in json.loads(outcome.body)["error_message"]
    assert len(work.entered) == before
    assert len(work.world.bus.on(Topic.BATCH_FAILED)) == 1


async def test_deaths_with_a_finished_chunk_in_between_are_bad_luck(work: Work) -> None:
    """A worker may be killed for any reason; a job that makes progress is not the cause."""
    record = work.announce(data=b"card_number\n" + b"9999990000000006\n" * 25)
    for stuck_at in (1, 6, 11, 16, 21):
        work.stuck = lambda card, _context, at=stuck_at: card.record == at  # type: ignore[misc]
        await work.die(record)
    work.stuck = lambda _card, _context: False
    await work.world.deliver(work.world.process, record)
    assert len(work.world.bus.on(Topic.BATCH_PROCESSED)) == 1


async def test_errors_and_stops_are_no_deaths(work: Work) -> None:
    record = work.announce()
    for _ in range(3):
        work.world.objects.fail_after.append((len(TEN) // 2, TransientError("source_cut", "the connection broke")))
        with pytest.raises(TransientError, match="source_cut"):
            await work.world.deliver(work.world.process, record)
        work.world.restart()
        task = work.begin(record)
        await asyncio.wait_for(work.inside.wait(), 5)
        task.cancel()
        await asyncio.wait([task])
        work.world.restart()
    assert [name for name in work.names() if "ended" not in name] == [f"{n}.json" for n in range(1, 7)]
    assert len(work.names()) == 12
    work.stuck = lambda _card, _context: False
    await work.world.deliver(work.world.process, record)
    assert len(work.world.bus.on(Topic.BATCH_PROCESSED)) == 1


async def test_a_store_that_is_away_when_an_end_is_recorded_is_no_death(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process knows that it lives."""
    create = work.world.memory.create

    async def away(key: str, data: bytes) -> bool:
        if key.endswith(".ended.json"):
            raise StoreUnavailable("away")
        return await create(key, data)

    record = work.announce()
    work.stuck = lambda _card, _context: False
    monkeypatch.setattr(work.world.memory, "create", away)
    for _ in range(4):
        work.world.objects.fail_after.append((1, TransientError("source_cut", "the connection broke")))
        with pytest.raises(TransientError, match="source_cut"):
            await work.world.deliver(work.world.process, record)
    monkeypatch.undo()
    await work.world.deliver(work.world.process, record)
    assert len(work.world.bus.on(Topic.BATCH_PROCESSED)) == 1
    assert work.names() == sorted([*(f"{n}.json" for n in range(1, 6)), *(f"{n}.ended.json" for n in range(1, 5))])


async def test_suspects_run_one_after_another_and_new_jobs_beside_them(work: Work) -> None:
    record, other = work.announce(), work.announce(OTHER)
    work.stuck = lambda _card, _context: True
    await work.die(other, record)
    await asyncio.sleep(0.01)
    work.stuck = lambda _card, context: context.job_guid == JOB
    work.entered.clear()
    poison = work.begin(record)
    await asyncio.wait_for(work.inside.wait(), 5)
    innocent = work.begin(other)
    await work.world.deliver(work.world.process, work.announce(FRESH))
    assert set(work.entered) == {JOB, FRESH}
    assert not innocent.done()
    poison.cancel()  # its turn ends
    await asyncio.wait_for(innocent, 5)
    assert set(work.entered) == {JOB, FRESH, OTHER}
    assert work.names(OTHER) == ["1.json", "2.json"]


async def test_a_job_that_dies_beside_another_is_not_blamed_again(work: Work) -> None:
    """It waits for its turn while the other kills worker after worker, and records no start meanwhile."""
    record, other = work.announce(), work.announce(OTHER)
    work.stuck = lambda _card, _context: True
    await work.die(other, record)
    work.stuck = lambda _card, context: context.job_guid == JOB
    for _ in range(2):
        poison = work.begin(record)
        await asyncio.wait_for(work.inside.wait(), 5)
        waiting = work.begin(other)
        await asyncio.sleep(0.01)
        assert not poison.done()
        assert not waiting.done()
        work.world.restart()
        work.inside.clear()
    await work.world.deliver(work.world.process, record)
    await work.world.deliver(work.world.process, other)
    failed = await work.world.jobs.outcome(JobRef("acme", JOB))
    assert failed is not None
    assert failed.reason == "worker_crashed"
    assert work.names(OTHER) == ["1.json", "2.json"]
    assert await work.world.jobs.outcome(JobRef("acme", OTHER)) is None
    assert len(work.world.bus.on(Topic.BATCH_PROCESSED)) == 1


async def test_a_suspect_that_lives_for_a_while_lets_the_others_run(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From then on a death says nothing about it; the next time it runs alone for twice as long."""
    monkeypatch.setattr(starts, "_ALONE_SECONDS", 0.05)
    record, other = work.announce(), work.announce(OTHER)
    work.stuck = lambda _card, _context: True
    work.begin(other)
    await asyncio.wait_for(work.inside.wait(), 5)
    await work.die(record)
    work.stuck = lambda _card, context: context.job_guid == JOB
    slow = work.begin(record)
    await asyncio.wait_for(work.inside.wait(), 5)
    await asyncio.wait_for(work.begin(other), 5)
    assert not slow.done()
    assert work.names() == ["1.json", "2.ended.json", "2.json"]
    waits: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waits.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    await work.die(record)
    assert 0.1 in waits


async def test_a_suspect_that_waits_long_gives_its_slot_away(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_WAIT_SECONDS", 0.01)
    record, other = work.announce(), work.announce(OTHER)
    work.stuck = lambda _card, _context: True
    await work.die(other, record)
    work.begin(record)
    await asyncio.wait_for(work.inside.wait(), 5)
    with pytest.raises(TransientError, match="suspect_waits") as caught:
        await work.world.deliver(work.world.process, other)
    assert caught.value.retry_after == 0.01
    assert work.names(OTHER) == ["1.json"]


async def test_foreign_and_damaged_objects_among_the_starts_do_not_count(work: Work) -> None:
    prefix = f"jobs/acme/{JOB}/started/"
    for name in ("1.json", "2.json", "3.json", "0.json", "04.json", "x.json", "5.txt"):
        work.world.memory.objects[prefix + name] = b"?"
    work.stuck = lambda _card, _context: False
    with capture_logs() as logs:
        await work.world.deliver(work.world.process, work.announce())
    assert f"{prefix}4.json" in work.world.memory.objects
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["start_unreadable"] * 3


async def test_starts_that_ended_well_cost_no_request_each() -> None:
    """A job that waits and is tried for two days has hundreds of them, and reads them while its download is open."""
    world = World()
    record = world.announce()
    for _ in range(20):
        world.objects.fail_after = [(0, TransientError("source_down", "503"))]
        with pytest.raises(TransientError):
            await world.process.handle(record, world.lease)
    asked = []
    get = world.memory.get

    async def noted(key: str, *, start: int = 0, end: int | None = None) -> bytes:
        asked.append(key)
        return await get(key, start=start, end=end)

    world.memory.get = noted  # type: ignore[method-assign]
    await world.process.handle(record, world.lease)
    assert await world.jobs.processed(world.ref)
    assert [key for key in asked if "/started/" in key] == []

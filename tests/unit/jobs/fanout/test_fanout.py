"""One large file on all workers: the result is that of one worker, also if workers die, freeze, join or leave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from uuid import UUID

import pytest
from support.effects import Died, Effects, NoticingPublisher, NoticingStore
from support.job_world import JOB, PART_CIPHER, World

from pipeline.contracts import Record, Topic, first_values
from pipeline.errors import LeaseLost, PermanentError, TransientError, Untried
from pipeline.jobs.fanout import SharedJobs, coordinator, planner
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.processors import Card, JobContext, ProcessorSettings, adopt
from pipeline.jobs.receipts import Processed
from pipeline.jobs.transfer import SourceChanged

ROWS = b"card_number,note\n" + b"".join(b"999999%010d,x\n" % number for number in range(60))
FILE = {"chunk_records": 10, "chunk_bytes": 1024}
OTHER = UUID(int=7)
SMALL = "https://files.example/small.csv?X-Amz-Signature=planted1"
BOUND = 500
"""Below the size of the file."""


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that no test waits for, and pages of four chunks."""
    monkeypatch.setattr(coordinator, "_FIRST_STEP", 0.001)
    monkeypatch.setattr(coordinator, "_SHORTEST_STEP", 0.001)
    monkeypatch.setattr(coordinator, "_LONGEST_STEP", 0.001)
    monkeypatch.setattr(planner, "PAGE_CHUNKS", 4)


@dataclass
class Cards:
    """A processor that counts how often it gets each card, by idempotency key."""

    seen: dict[str, int] = field(default_factory=dict)
    act: Callable[[Card], Awaitable[None]] | None = None

    async def process(self, card: Card, _context: JobContext) -> None:
        self.seen[card.idempotency_key] = self.seen.get(card.idempotency_key, 0) + 1
        if self.act is not None:
            await self.act(card)


def world_of(cards: Cards | None = None, **limits: object) -> World:
    """Return a world whose files above the bound are shared."""
    processor = adopt((cards or Cards()).process, ProcessorSettings(name="mine"))
    return World(csv_limits=FILE, limits={"fanout_bytes": BOUND} | limits, processor=processor)


class Workers:
    """Several workers over one store and one bus; a test says which does what."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.taken = 0

    def other(self) -> World:
        """Return another worker of the same deployment."""
        world = self.world
        made = World(csv_limits=FILE, limits=world.limits.model_dump(), processor=world.processor)
        made.clock, made.objects, made.memory, made.bus = world.clock, world.objects, world.memory, world.bus
        made.jobs = JobStore(made.memory, PART_CIPHER)
        made.jobs.inline_bytes = world.jobs.inline_bytes
        made.parking, made.downloader = world.parking, world.objects
        made.restart()
        return made

    def chunks(self) -> list[Record]:
        """Return the records of chunks that no worker was given yet."""
        records = self.world.records(Topic.BATCH_CHUNKS)[self.taken :]
        self.taken += len(records)
        return records

    async def first_chunks(self) -> list[Record]:
        """Return the first records of chunks, as soon as there are any."""
        async with asyncio.timeout(20):
            while not (found := self.chunks()):  # noqa: ASYNC110 - the bus has no event
                await asyncio.sleep(0.001)
        return found

    async def serve(self, *workers: World) -> None:
        """Give the chunks to the workers in turn, until cancelled."""
        turn = count()
        while True:
            for record in self.chunks():
                await _done(workers[next(turn) % len(workers)], record)
            await asyncio.sleep(0)

    @contextmanager
    def serving(self, *workers: World) -> Iterator[None]:
        """Let workers do chunks beside what the block does."""
        task = asyncio.create_task(self.serve(*(workers or (self.world,))))
        try:
            yield
        finally:
            task.cancel()


async def _done(worker: World, record: Record) -> None:
    """Let a worker handle a record as its consumer does."""
    left: Record | None = record
    while left is not None:
        try:
            left = await worker.handle("chunks", left)
        except LeaseLost:
            left = record if not worker.lease.lost else None


async def undisturbed() -> bytes:
    """Return the result of one worker alone."""
    world = world_of(fanout_bytes=0)
    await world.run(world.announce(ROWS, record_count=60))
    return world.objects.put[0][1]


async def receipt(world: World) -> Processed:
    found = await world.jobs.processed(world.ref)
    assert found is not None
    return found


async def test_the_result_is_that_of_one_worker() -> None:
    cards = Cards()
    world = world_of(cards)
    workers = Workers(world)
    with workers.serving(world, workers.other(), workers.other()):
        await world.run(world.announce(ROWS, record_count=60))
    assert world.objects.put[0][1] == await undisturbed()
    assert len(world.bus.on(Topic.BATCH_CHUNKS)) == 6
    assert set(cards.seen.values()) == {1}
    assert len(cards.seen) == 60
    found = await receipt(world)
    assert (found.parts, found.records, found.ok, found.failed) == (6, 60, 60, 0)
    assert world.bus.audit().count("job.processed") == 1


async def test_chunks_have_keys_of_their_own_and_copies_are_equal() -> None:
    world = world_of()
    workers = Workers(world)
    with workers.serving():
        await world.run(world.announce(ROWS, record_count=60))
    records = world.bus.on(Topic.BATCH_CHUNKS)
    assert [one.key for one in records] == [f"acme/{JOB}#{number}" for number in range(6)]
    assert len({first_values(one.headers)["ce_id"] for one in records}) == 6


@pytest.mark.parametrize("bound", [0, len(ROWS)])
async def test_a_file_that_is_not_above_the_bound_is_done_alone(bound: int) -> None:
    world = world_of(fanout_bytes=bound)
    await world.run(world.announce(ROWS, record_count=60))
    assert world.bus.on(Topic.BATCH_CHUNKS) == []
    assert len(world.objects.put) == 1


async def test_without_an_etag_or_ranges_a_file_is_done_alone() -> None:
    for attribute in ("etags", "by_range"):
        world = world_of()
        setattr(world.objects, attribute, False)
        await world.run(world.announce(ROWS, record_count=60))
        assert world.bus.on(Topic.BATCH_CHUNKS) == []
        assert world.objects.put[0][1] == await undisturbed()


async def test_at_most_so_many_chunks_are_handed_out_and_not_finished() -> None:
    world = world_of(fanout_chunks=2)
    workers = Workers(world)
    running = asyncio.create_task(world.deliver(world.process, world.announce(ROWS, record_count=60)))
    for done in range(7):
        async with asyncio.timeout(20):
            while len(world.bus.on(Topic.BATCH_CHUNKS)) < min(done + 2, 6):  # noqa: ASYNC110 - the bus has no event
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert len(world.bus.on(Topic.BATCH_CHUNKS)) == min(done + 2, 6)
        for record in world.records(Topic.BATCH_CHUNKS)[done : done + 1]:
            await _done(world, record)
    await running
    assert (await receipt(world)).parts == 6
    del workers


async def test_a_wrong_count_or_a_broken_file_fails_before_the_first_card() -> None:
    cards = Cards()
    world = world_of(cards)
    await world.run(world.announce(ROWS, record_count=59))
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.reason == "record_count_mismatch"
    broken = world_of(cards)
    await broken.run(broken.announce(ROWS + b'"never closed', record_count=60))
    outcome = await broken.jobs.outcome(broken.ref)
    assert outcome is not None
    assert outcome.reason == "csv_unterminated_quote"
    assert cards.seen == {}


def noticing(workers: Workers, at: int) -> tuple[World, Effects]:
    """Return a worker that dies at its n-th point."""
    mortal = workers.other()
    effects = Effects(at)
    mortal.jobs = JobStore(NoticingStore(workers.world.memory, effects.around), PART_CIPHER)
    mortal.bus = NoticingPublisher(workers.world.bus, effects.around)  # type: ignore[assignment,arg-type]
    mortal.restart()
    return mortal, effects


async def test_a_coordinator_may_die_between_any_two_effects() -> None:
    """The next one continues: same bytes, one outcome, each card once."""
    expected, at, ended = await undisturbed(), 0, False
    while not ended:
        at += 1
        cards = Cards()
        world = world_of(cards)
        workers = Workers(world)
        record = world.announce(ROWS, record_count=60)
        mortal, effects = noticing(workers, at)
        with workers.serving():
            try:
                await mortal.deliver(mortal.process, record)
                ended = True
            except Died:
                pass
            await world.run(record)
        assert world.objects.put[0][1] == expected, effects.names
        assert set(cards.seen.values()) == {1}, effects.names
        assert len(world.objects.put) == 1, effects.names
    assert "after:store.plan" in effects.names
    assert "after:publish.card-batch.chunks" in effects.names
    assert effects.names[-1] == "after:publish.card-batch.processed"


async def test_a_worker_may_die_between_any_two_effects_of_a_chunk() -> None:
    """Only the cards of its chunk are given to the processor again."""
    expected, at, ended = await undisturbed(), 0, False
    points: list[str] = []
    while not ended:
        at += 1
        cards = Cards()
        world = world_of(cards)
        workers = Workers(world)
        mortal, effects = noticing(workers, at)
        running = asyncio.create_task(world.run(world.announce(ROWS, record_count=60)))
        records = await workers.first_chunks()
        try:
            await mortal.chunks.handle(records[0], mortal.lease)
            ended = True
        except Died:
            points = effects.names
        for record in records:
            await _done(world, record)
        with workers.serving():
            await running
        assert world.objects.put[0][1] == expected, points
        assert sum(times > 1 for times in cards.seen.values()) in {0, 10}, points
        assert max(cards.seen.values()) <= 2, points
        assert len([key for key in world.memory.objects if key.endswith("outcome.json")]) == 1
    assert points[-1] == "after:store.manifest"


async def test_two_workers_that_race_for_a_chunk_leave_one_part() -> None:
    """The loser of the manifest deletes its part, and its record ends."""
    cards = Cards()
    world = world_of(cards)
    world.jobs.inline_bytes = 0
    workers = Workers(world)
    slow, released = workers.other(), asyncio.Event()
    running = asyncio.create_task(world.run(world.announce(ROWS, record_count=60)))
    records = await workers.first_chunks()

    async def hold(_card: Card) -> None:
        cards.act = None
        await released.wait()

    cards.act = hold
    racing = asyncio.create_task(_done(slow, records[0]))
    await asyncio.sleep(0.01)
    await _done(world, records[0])
    released.set()
    await racing
    for record in records[1:]:
        await _done(world, record)
    parts = [key for key in world.memory.objects if "/00000000-" in key and ".csv" in key]
    with workers.serving():
        await running
    assert world.objects.put[0][1] == await undisturbed()
    assert len(parts) == 1


async def test_a_coordinator_that_lost_its_partition_stops() -> None:
    """Another coordinator continues; the frozen one finds its lease lost before its next effect."""
    world = world_of(fanout_chunks=1)
    workers = Workers(world)
    frozen = workers.other()
    record = world.announce(ROWS, record_count=60)
    stuck = asyncio.create_task(frozen.deliver(frozen.process, record))
    await workers.first_chunks()
    frozen.lease.left = 0
    with pytest.raises(LeaseLost):
        await stuck
    workers.taken = 0
    with workers.serving():
        await world.run(record)
    assert world.objects.put[0][1] == await undisturbed()


async def test_another_file_begins_another_generation() -> None:
    """A worker whose range is refused says so; the coordinator finds the same and divides the new file."""
    world = world_of()
    workers = Workers(world)
    record = world.announce(ROWS, record_count=60)
    running = asyncio.create_task(world.run(record))
    records = await workers.first_chunks()
    await _done(world, records[0])
    changed = ROWS.replace(b",x\n", b",y\n")
    world.objects.inputs[next(iter(world.objects.inputs))] = changed
    for chunk in records[1:]:
        await _done(world, chunk)
    with pytest.raises(SourceChanged):
        await running
    with workers.serving():
        await world.run(record)
    assert b",x," not in world.objects.put[0][1]
    assert world.objects.put[0][1].count(b",y,") == 60


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_worker_may_die_when_it_says_that_the_file_is_another_one(side: str) -> None:
    world = world_of()
    workers = Workers(world)
    record = world.announce(ROWS, record_count=60)
    running = asyncio.create_task(world.run(record))
    records = await workers.first_chunks()
    world.objects.inputs[next(iter(world.objects.inputs))] = ROWS.replace(b",x\n", b",y\n")
    mortal, effects = noticing(workers, 1 if side == "before" else 2)
    with pytest.raises(Died):
        await mortal.chunks.handle(records[0], mortal.lease)
    assert effects.names[-1] == f"{side}:store.changed"
    await _done(world, records[0])
    with pytest.raises(SourceChanged):
        await running
    with workers.serving():
        await world.run(record)
    assert world.objects.put[0][1].count(b",y,") == 60


async def test_a_chunk_that_fails_for_good_fails_the_job_once() -> None:
    cards = Cards()

    async def fail(card: Card) -> None:
        if card.record in {5, 25}:
            raise PermanentError("account_closed", "The card programme is closed.")

    cards.act = fail
    world = world_of(cards)
    workers = Workers(world)
    with workers.serving(world, workers.other()):
        await world.run(world.announce(ROWS, record_count=60))
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert (outcome.outcome, outcome.reason, outcome.decided_by) == ("failed", "account_closed", "chunks")
    assert world.objects.put == []
    assert len(world.ecs.calls) == 1
    assert await world.jobs.processed(world.ref) is None


@pytest.mark.parametrize("whole_job", [False, True])
async def test_a_chunk_that_is_done_elsewhere_fails_no_job(*, whole_job: bool) -> None:
    """A worker of an older release, or one that does a copy, comes too late with a permanent error."""
    cards = Cards()
    world = world_of(cards)
    workers = Workers(world)
    late, reached, released = workers.other(), asyncio.Event(), asyncio.Event()

    async def hold(_card: Card) -> None:
        cards.act = None
        reached.set()
        await released.wait()
        raise PermanentError("account_closed", "The card programme is closed.")

    cards.act = hold
    running = asyncio.create_task(world.deliver(world.process, world.announce(ROWS, record_count=60)))
    records = await workers.first_chunks()
    failing = asyncio.create_task(_done(late, records[0]))
    await reached.wait()
    for record in records if whole_job else records[:1]:
        await _done(world, record)
    if whole_job:
        await running
        for key in [key for key in world.memory.objects if key.endswith("/00000000.json")]:
            del world.memory.objects[key]  # as in a generation that is not the result's
    released.set()
    await failing
    assert await world.jobs.outcome(world.ref) is None
    for record in [] if whole_job else records[1:]:
        await _done(world, record)
    await running
    assert (await receipt(world)).ok == 60


async def test_a_chunk_of_another_generation_leaves_no_card_data_behind() -> None:
    """During a rollout a worker of the older release may finish its chunk when the job has ended."""
    cards = Cards()
    world = world_of(cards)
    workers = Workers(world)
    late, reached, released = workers.other(), asyncio.Event(), asyncio.Event()
    record = world.announce(ROWS, record_count=60)

    async def hold(_card: Card) -> None:
        cards.act = None
        reached.set()
        await released.wait()

    cards.act = hold
    coordinating = asyncio.create_task(late.deliver(late.process, record))
    (chunk, *_) = await workers.first_chunks()
    finishing = asyncio.create_task(_done(late, chunk))
    await reached.wait()
    coordinating.cancel()
    await asyncio.wait([coordinating])
    newer = workers.other()
    newer.processor = adopt(cards.process, ProcessorSettings(name="newer"))
    newer.restart()
    with workers.serving(newer):
        await newer.run(record)
    assert len(world.ecs.calls) + len(newer.ecs.calls) == 1
    released.set()
    await finishing
    left = [key for key in world.memory.objects if "/parts/" in key]
    assert [key for key in left if "/started/" not in key] == []


async def test_a_chunk_whose_record_is_lost_is_published_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "_REPEAT_SECONDS", 0.02)
    cards = Cards()
    world = world_of(cards)
    workers = Workers(world)
    running = asyncio.create_task(world.run(world.announce(ROWS, record_count=60)))
    records = await workers.first_chunks()
    for record in records[1:]:
        await _done(world, record)
    with workers.serving():
        await running
    copies = [one for one in world.bus.on(Topic.BATCH_CHUNKS) if one.key.endswith("#0")]
    assert len(copies) >= 2
    assert len({(one.value, one.headers) for one in copies}) == 1
    assert world.objects.put[0][1] == await undisturbed()
    assert set(cards.seen.values()) == {1}


async def test_a_chunk_that_cannot_be_done_now_waits_and_comes_back() -> None:
    """The chunk is parked like a job. The others continue, and the coordinator frees its slot after a while."""
    world = world_of()
    workers = Workers(world)
    running = asyncio.create_task(world.run(world.announce(ROWS, record_count=60)))
    records = await workers.first_chunks()
    world.objects.fail_open.append(TransientError("slow_down", "SlowDown", retry_after=60.0))
    for record in records:
        await _done(world, record)
    assert (await world.parking.waiting(world.ref)) is not None
    world.clock.forward(seconds=61)
    await world.due.poll()
    (copy,) = world.returned(Topic.BATCH_CHUNKS)
    assert copy.key == records[0].key
    await _done(world, copy)
    await running
    assert world.objects.put[0][1] == await undisturbed()


async def test_without_progress_the_coordinator_gives_its_slot_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "_PATIENCE_SECONDS", 0.01)
    world = world_of()
    workers = Workers(world)
    record = world.announce(ROWS, record_count=60)
    await world.handle_until_over("process", record)
    waiting = await world.parking.waiting(world.ref)
    assert waiting is not None
    assert (waiting.code, waiting.stage) == ("chunks_wait", "process")
    monkeypatch.setattr(coordinator, "_PATIENCE_SECONDS", 300.0)
    with workers.serving():
        await asyncio.sleep(0.05)
        world.clock.forward(seconds=31)
        await world.due.poll()
        (copy,) = world.returned(Topic.BATCH_REQUESTED)
        await world.run(copy)
    assert world.objects.put[0][1] == await undisturbed()


async def test_many_large_files_leave_slots_to_small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker coordinates a few of them; the next one is parked before its file is read, and comes back by itself."""
    monkeypatch.setattr(coordinator, "_SHARED_JOBS", 1)
    world = world_of()
    workers = Workers(world)
    running = asyncio.create_task(world.run(world.announce(ROWS, record_count=60)))
    held = await workers.first_chunks()
    large = world.announce(ROWS, job_guid=str(OTHER), record_count=60)
    await world.handle_until_over("process", large)
    waiting = await world.parking.waiting(JobRef("acme", OTHER))
    assert waiting is not None
    assert (waiting.code, waiting.stage) == ("shared_jobs_wait", "process")
    assert await world.jobs.outcome(JobRef("acme", OTHER)) is None
    small = world.announce(
        b"card_number\n" + b"9999990000000006\n" * 3, job_guid=str(UUID(int=8)), input_file_url=SMALL
    )
    await world.deliver(world.process, small)
    assert await world.jobs.processed(JobRef("acme", UUID(int=8))) is not None
    with workers.serving():
        for record in held:
            await _done(world, record)
        await running
        world.clock.forward(seconds=31)
        await world.due.poll()
        (copy,) = world.returned(Topic.BATCH_REQUESTED)
        await world.run(copy)
    assert [body for _, body in world.objects.put].count(await undisturbed()) == 2


@pytest.mark.parametrize(
    ("concurrency", "slots", "each", "in_all"),
    [(16, 64, 8, 32), (1000, 10_000, 8, 5000), (4, 64, 2, 32), (16, 8, 4, 4), (3, 3, 1, 1), (1, 1, 1, 1)],
)
def test_shared_jobs_take_at_most_half_of_the_slots(concurrency: int, slots: int, each: int, in_all: int) -> None:
    """Operators lower the slots to save memory, or have many integrations: small jobs find a slot then, too."""
    shared = SharedJobs(concurrency=concurrency, slots=slots)
    with ExitStack() as running:
        begun = 0
        for integration in map(str, range(slots)):
            for _ in range(min(each, in_all - begun)):
                running.enter_context(shared.one_of(integration))
                begun += 1
            with pytest.raises(Untried, match="shared_jobs_wait"):
                running.enter_context(shared.one_of(integration))
            if begun == in_all:
                break
        assert begun == in_all
        with pytest.raises(Untried, match=f"coordinates {in_all} large files of all integrations"):
            running.enter_context(shared.one_of("another"))
    with shared.one_of("another"):
        pass


async def test_a_chunk_that_kills_its_workers_fails_the_job() -> None:
    """Other chunks go on meanwhile, which says nothing about this one."""
    cards = Cards()
    world = world_of(cards)
    workers = Workers(world)

    async def stick(card: Card) -> None:
        if card.record == 15:
            await asyncio.Event().wait()

    cards.act = stick
    running = asyncio.create_task(world.run(world.announce(ROWS, record_count=60)))
    records = await workers.first_chunks()
    dead = []
    for other in (0, 2, 3):
        victim = workers.other()
        dead.append(asyncio.create_task(_done(victim, records[1])))
        await asyncio.sleep(0.02)
        await _done(world, records[other])
    await _done(world, records[1])
    await running
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert (outcome.outcome, outcome.reason) == ("failed", "worker_crashed")
    for task in dead:
        task.cancel()
    with suppress(BaseException):
        await asyncio.gather(*dead, return_exceptions=True)


async def test_a_small_job_that_dies_beside_a_deadly_chunk_is_not_blamed_again() -> None:
    """Chunks and jobs are suspects of one worker: the small job waits for its turn while the chunk kills workers."""
    cards = Cards()
    world = world_of(cards)
    workers = Workers(world)
    reached: list[int] = []
    dying = True

    async def stick(card: Card) -> None:
        if card.record == 15 or (dying and card.record == 2):
            reached.append(card.record)
            await asyncio.Event().wait()

    running = asyncio.create_task(world.deliver(world.process, world.announce(ROWS, record_count=60)))
    records = await workers.first_chunks()
    for number in (0, 2, 3, 4, 5):
        await _done(world, records[number])
    small = world.announce(b"card_number\n" + b"9999990000000006\n" * 3, job_guid=str(OTHER), input_file_url=SMALL)
    cards.act, dead = stick, []
    for deaths in range(3):
        victim = workers.other()
        dead.append(asyncio.create_task(_done(victim, records[1])))
        async with asyncio.timeout(5):
            while reached.count(15) <= deaths:  # noqa: ASYNC110 - the processor has no event
                await asyncio.sleep(0.001)
        dead.append(asyncio.create_task(victim.deliver(victim.process, small)))
        await asyncio.sleep(0.02)
    dying = False
    await _done(world, records[1])
    await world.deliver(world.process, small)
    await running
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.reason == "worker_crashed"
    assert await world.jobs.outcome(JobRef("acme", OTHER)) is None
    assert await world.jobs.processed(JobRef("acme", OTHER)) is not None
    for task in dead:
        task.cancel()
    await asyncio.gather(*dead, return_exceptions=True)


async def test_chunks_of_a_decided_job_cost_nothing() -> None:
    cards = Cards()
    world = world_of(cards)
    workers = Workers(world)
    with workers.serving():
        await world.run(world.announce(ROWS, record_count=60))
    before = dict(world.memory.objects)
    for record in world.records(Topic.BATCH_CHUNKS):
        await _done(world, record)
    assert world.memory.objects == before
    assert set(cards.seen.values()) == {1}


async def test_a_worker_with_another_processor_leaves_the_chunk_to_others() -> None:
    world = world_of()
    workers = Workers(world)
    running = asyncio.create_task(world.run(world.announce(ROWS, record_count=60)))
    records = await workers.first_chunks()
    stranger = workers.other()
    stranger.processor = adopt(Cards().process, ProcessorSettings(name="other"))
    stranger.restart()
    await _done(stranger, records[0])
    waiting = await world.parking.waiting(world.ref)
    assert waiting is not None
    assert waiting.code == "plan_differs"
    for record in records[1:]:
        await _done(world, record)
    world.clock.forward(seconds=31)
    await world.due.poll()
    (copy,) = world.returned(Topic.BATCH_CHUNKS)
    await _done(world, copy)
    await running
    assert world.objects.put[0][1] == await undisturbed()


async def test_the_deadline_ends_a_shared_job() -> None:
    world = world_of()
    workers = Workers(world)
    running = asyncio.create_task(world.run(world.announce(ROWS, record_count=60)))
    await workers.first_chunks()
    world.clock.forward(hours=2)
    for chunk in world.records(Topic.BATCH_CHUNKS):
        await _done(world, chunk)
    await running
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert outcome.reason == "deadline_passed"
    assert len(world.ecs.calls) == 1


async def test_a_plan_that_was_begun_is_continued_after_its_last_page() -> None:
    world = world_of()
    workers = Workers(world)
    record = world.announce(ROWS, record_count=60)
    cut = ROWS.index(b"999999%010d" % 55)
    # the first download looks at the file, the second asks for a range, the third is split
    world.objects.fail_after = [(at, TransientError("download_cut", "cut")) for at in (0, 0, cut)]
    with pytest.raises(TransientError):
        await world.deliver(world.process, record)
    with workers.serving():
        await world.run(record)
    assert world.objects.put[0][1] == await undisturbed()
    assert world.objects.opened[-1][1] == ROWS.index(b"999999%010d" % 40)


@pytest.mark.parametrize(
    ("step", "fresh", "left", "seconds"),
    [
        (0.5, 10, 100, 0.5),
        (0.5, 10, 10, 0.5),
        (0.5, 10, 5, 0.25),
        (4.0, 8, 2, 1.0),
        (0.5, 40, 1, 0.2),
        (5.0, 0, 3, 5.0),
    ],
)
def test_the_last_looks_come_when_the_last_chunks_should_be_done(
    monkeypatch: pytest.MonkeyPatch, step: float, fresh: int, left: int, seconds: float
) -> None:
    """Else a job would wait for half of a step on average when its chunks are done."""
    monkeypatch.setattr(coordinator, "_SHORTEST_STEP", 0.2)
    assert coordinator._pause(step, fresh, left) == seconds

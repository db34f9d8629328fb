"""What the work on one message remembers of its job, and for how long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from support.job_world import BEGIN, CARDS, World

from pipeline.contracts import Record, Topic
from pipeline.errors import TransientError
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.receipts import FilePosition, Manifest, Outcome
from pipeline.jobs.recent_jobs import RecentJobs
from pipeline.jobs.transfer import UrlSource
from pipeline.storage import ObjectInfo
from pipeline.storage.testing import MemoryStore

STAGES = (
    ("process", None),
    ("upload", Topic.BATCH_PROCESSED),
    ("confirm", Topic.BATCH_UPLOADED),
    ("watch", None),
)
START = FilePosition(byte=0, record=0, line=1)


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

    async def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        self.requests += 1
        async for info in super().scan(prefix, after=after):
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
    world, store = World(fresh_seconds=1.0, inline=True), Counting()
    world.memory, world.jobs.objects = store, store
    return world, store


async def recent(world: World) -> tuple[RecentJobs, Moment]:
    """Return what UPLOAD would look at: a job that is announced and not decided."""
    await world.process.arrive(world.announce())
    moment = Moment()
    jobs = RecentJobs(world.jobs, world.ref, now=world.clock, clock=moment)
    await jobs.load()
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


@pytest.mark.parametrize("stage", ["process", "upload"])
async def test_after_a_failed_try_no_memory_of_announcements_counts(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that refuses the old URL would fail the job for good, although the new one is in the store."""
    world = World(fresh_seconds=60.0)
    field = {"process": "input_file_url", "upload": "result_upload_url"}[stage]
    asked: list[str] = []

    async def ask(source: UrlSource) -> None:
        asked.append((await source()).url.get_secret_value())
        changes: dict[str, object] = {field: "https://files.example/new.csv", "expires_at": "2026-01-21T18:00:00Z"}
        await world.process.arrive(world.announce(CARDS, **changes))
        asked.append((await source()).url.get_secret_value())
        raise TransientError("cut", "cut")

    async def put(target: UrlSource, *, size: int, body: object) -> str:
        del size, body
        await ask(target)
        return ""

    @asynccontextmanager
    async def opened(source: UrlSource, **_: object) -> AsyncIterator[None]:
        await ask(source)
        yield

    record = world.announce()
    if stage == "upload":
        await world.deliver(world.process, record)
        record = world.records(Topic.BATCH_PROCESSED)[0]
    monkeypatch.setattr(world.objects, "put_body", put)
    monkeypatch.setattr(world.objects, "open", opened)
    world.restart()
    with pytest.raises(TransientError, match="cut"):
        await world.deliver(getattr(world, stage), record)
    assert asked[0] != asked[1] == "https://files.example/new.csv"


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


async def test_requests_of_a_small_job() -> None:
    """Each request is one that the stage cannot do without: docs/explanation/delivery.md says why."""
    world, store = counted()
    counts = await requests(world, store, world.announce())
    assert counts == {"process": 6, "upload": 5, "confirm": 9, "watch": 1}


async def test_requests_of_each_further_chunk() -> None:
    """One to write its part, one to read it; all are deleted together."""
    world, store = World(fresh_seconds=3600.0, inline=True, csv_limits={"chunk_records": 1}), Counting()
    world.memory, world.jobs.objects = store, store
    world.clock.now = BEGIN - timedelta(days=1)
    data = b"card_number\n" + b"9999990000000006\n" * 20
    counts = await requests(world, store, world.announce(data, record_count=20))
    assert counts == {"process": 6 + 19, "upload": 5 + 19, "confirm": 9, "watch": 1}


async def requests(world: World, store: Counting, record: Record) -> dict[str, int]:
    """Do a job; return how many requests of the store each stage made."""
    counts = {}
    for stage, topic in STAGES:
        store.requests = 0
        await world.deliver(getattr(world, stage), world.records(topic)[0] if topic else record)
        counts[stage] = store.requests
    assert world.ecs.calls
    return counts


async def test_the_watch_leaves_an_announcement_to_process_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("pipeline.jobs.deadline_watch.asyncio.sleep", sleep)
    world, _ = counted()
    record = world.announce()
    await world.watch.arrive(record)
    await world.watch.handle(record, world.lease)
    await world.watch.handle(record, world.lease)
    assert 0.5 < slept[0] <= 1.0
    assert slept[1] == 0.0
    assert len([key for key in world.memory.objects if key.startswith("open/")]) == 1


async def test_the_watch_files_a_job_that_process_has_begun_and_none_that_has_ended() -> None:
    world, _ = counted()
    record = world.announce()
    await world.deliver(world.process, record)
    await world.deliver(world.watch, record)
    assert [key for key in world.memory.objects if key.startswith("open/")] == [
        world.ref.marker("open", (await world.jobs.newest(world.ref)).deadline)
    ]
    await world.run(record)
    assert not [key for key in world.memory.objects if key.startswith("open/")]
    await world.deliver(world.watch, record)
    assert not [key for key in world.memory.objects if key.startswith("open/")]


async def test_of_two_workers_with_a_small_part_the_first_decides() -> None:
    world, _ = counted()
    jobs = world.jobs
    parts = [await jobs.write_part(world.ref, "g", 0, data) for data in (b"one", b"two")]
    assert not world.memory.objects
    manifests = [
        Manifest(
            number=0,
            start=START,
            end=START,
            ok=1,
            failed=0,
            size=3,
            crc32=one.crc32,
            data=one.key,
            sealed=one.sealed,
            inline=one.inline,
        )
        for one in parts
    ]
    assert [await jobs.record_manifest(world.ref, "g", one) for one in manifests] == [True, False]
    await jobs.drop_part(parts[1])
    stored = await jobs.manifests(world.ref, "g", [0])
    assert b"".join([piece async for piece in jobs.stream(stored)]) == b"one"
    changed = stored[0].model_copy(update={"inline": (stored[0].inline or b"")[:-1] + b"?"})
    with pytest.raises(JobDamaged, match="was changed"):
        _ = [piece async for piece in jobs.stream([changed])]


async def test_a_large_part_and_those_after_the_first_ones_are_objects_of_their_own() -> None:
    world, _ = counted()
    assert (await world.jobs.write_part(world.ref, "g", 31, b"x" * 65_536)).inline is not None
    assert (await world.jobs.write_part(world.ref, "g", 31, b"x" * 65_537)).inline is None
    assert (await world.jobs.write_part(world.ref, "g", 32, b"x")).inline is None

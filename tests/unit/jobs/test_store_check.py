"""What nobody needs any more in the job store is found, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from support.job_world import PART_CIPHER, World
from support.memory_bucket import MemoryBucket, running_bucket

from pipeline.errors import TransientError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef, WaitingMarker
from pipeline.jobs.partners import Answer
from pipeline.jobs.store_check import StoreCheck

LATER = 10 * 24.0
"""Hours after which nobody writes to a job any more, and before its receipts expire."""


@pytest.fixture
def world() -> World:
    made = World(csv_limits={"chunk_records": 1})
    made.memory.clock = made.clock
    return made


async def found(world: World, *, age: timedelta = timedelta(days=1)) -> list[tuple[str, str]]:
    look = StoreCheck(
        world.jobs, world.clock, receipts_kept=timedelta(days=30), failed_parts_kept=timedelta(days=7), age=age
    )
    return [(one.kind, one.key) async for one in look.findings()]


async def finished(world: World) -> None:
    record = world.announce()
    await world.deliver(world.watch, record)
    await world.run(record)


async def refused(world: World) -> None:
    world.ecs.answers = [Answer("refused", 404, "callback_unknown_job", "No batch job found")]
    await finished(world)


async def parked(world: World) -> None:
    record = world.announce(expires_at="2026-03-01T12:00:00Z")
    await world.deliver(world.watch, record)
    world.objects.fail_open = [TransientError("source_unavailable", "503", retry_after=86_400.0 * 30)]
    await world.handle_until_over("process", record)


async def processed(world: World) -> None:
    """UPLOAD has not begun yet."""
    record = world.announce(expires_at="2026-03-01T12:00:00Z")
    await world.deliver(world.watch, record)
    await world.deliver(world.process, record)


@pytest.mark.parametrize("work", [finished, refused, parked, processed])
async def test_nothing_of_a_job_is_found_while_it_is_kept(world: World, work: Callable[[World], object]) -> None:
    await work(world)  # type: ignore[misc]
    assert await found(world, age=timedelta()) == []
    world.clock.forward(hours=LATER)
    await world.watch.poll()
    assert [one for one in await found(world) if one[0] != "leftover"] == []


async def test_parts_that_no_manifest_names_are_found(world: World) -> None:
    await processed(world)
    (generation,) = await world.jobs.finished_chunks(world.ref)
    folder = world.ref.parts(generation)
    await world.memory.create(f"{folder}00000000-feed.csv.aes", b"a worker lost the race for chunk 0")
    await world.memory.create(f"{folder}00000007-beef.csv.aes", b"a worker died before the manifest of chunk 7")
    assert await found(world) == []
    world.clock.forward(hours=LATER)
    assert sorted(await found(world)) == [
        ("part", f"{folder}00000000-feed.csv.aes"),
        ("part", f"{folder}00000007-beef.csv.aes"),
    ]


async def test_parts_and_markers_of_an_ended_job_are_found(world: World) -> None:
    """A deletion was lost, e.g. because a listing lagged."""
    await finished(world)
    left = [f"{world.ref.parts('ab')}00000000.json", f"{world.ref.parts('ab')}00000000-0f.csv.aes"]
    markers = [world.ref.marker("open", world.clock()), world.ref.marker("decided", world.clock())]
    for key in (*left, *markers):
        await world.memory.create(key, b"")
    assert await found(world) == []
    world.clock.forward(hours=LATER)
    assert sorted(await found(world)) == sorted(
        [*(("leftover", key) for key in left), *(("marker", key) for key in markers)]
    )


async def test_a_marker_of_a_job_that_does_not_exist_is_found(world: World) -> None:
    key = JobRef("acme", UUID(int=5)).marker("open", world.clock())
    await world.memory.create(key, b"")
    world.clock.forward(hours=LATER)
    assert await found(world) == [("marker", key)]


async def test_a_record_that_may_ask_for_one_more_notification_is_kept(world: World) -> None:
    """The partner announced the finished job once more, and no watch ran for days."""
    await finished(world)
    due = world.clock() + timedelta(minutes=1)
    waits = [WaitingMarker(world.ref, stage, "0" * 16, 1, "paused", due) for stage in ("process", "watch", "confirm")]
    old = [WaitingMarker(world.ref, stage, "0" * 16, 1, "paused", due) for stage in ("chunks", "upload")]
    for marker in (*waits, *old):
        await world.memory.create(marker.key, b"")
    world.clock.forward(hours=LATER)
    assert sorted(await found(world)) == sorted(("marker", marker.key) for marker in old)


async def test_a_folder_whose_name_is_only_similar_belongs_to_no_job(world: World) -> None:
    """The same digits with the dashes at other places are the same UUID to a parser."""
    await processed(world)
    name = str(world.ref.job_guid)
    alias = f"jobs/acme/{name[:7]}-{name[7]}{name[9:]}/confirmed.json"
    await world.memory.create(alias, b"{}")
    world.clock.forward(hours=LATER)
    assert await found(world) == [("foreign", alias)]


async def test_parts_of_a_refused_job_are_kept_for_their_time(world: World) -> None:
    await refused(world)
    assert [key for key in world.memory.objects if "/parts/" in key]
    for key in [key for key in world.memory.objects if key.startswith("purge/")]:
        del world.memory.objects[key]
    world.clock.forward(hours=7 * 24)
    assert await found(world) == []
    world.clock.forward(hours=25)
    assert {kind for kind, _ in await found(world)} == {"leftover"}


async def test_what_is_older_than_its_retention_is_found_once_the_job_has_ended(world: World) -> None:
    await finished(world)
    for key in ("commands/1.json", "dead-letters/1.json", "audit/audit.events/00000/00000/1.jsonl", "switches/a/1"):
        await world.memory.create(key, b"{}")
    await parked(second := World())
    objects = {key: data for key, data in second.memory.objects.items() if str(world.ref.job_guid) not in key}
    assert objects == {}
    before = set(world.memory.objects)
    world.clock.forward(hours=32 * 24)
    expired = {key for kind, key in await found(world) if kind == "expired"}
    assert expired == {key for key in before if not key.startswith(("audit/", "switches/"))}


async def test_an_open_job_never_expires(world: World) -> None:
    await parked(world)
    world.clock.forward(hours=400 * 24)
    assert await found(world) == []


async def test_foreign_objects_and_leftovers_of_checks_are_found(world: World) -> None:
    foreign = [f"{world.ref.root}notes.txt", "jobs/README", "open/README", "due/x", f"{world.ref.root}told/a/b.json"]
    for key in (*foreign, "check/0123", "elsewhere/x"):
        await world.memory.create(key, b"")
    assert await found(world) == []
    world.clock.forward(hours=LATER)
    assert sorted(await found(world)) == sorted([*(("foreign", key) for key in foreign), ("probe", "check/0123")])


async def test_a_look_costs_listings_alone() -> None:
    bucket = MemoryBucket()
    jobs = [JobRef("acme", UUID(int=number)) for number in range(900)]
    names = ("job.json", "outcome.json", "confirmed.json", "told/0001.json")
    bucket.fill(f"{ref.root}{name}" for ref in jobs for name in names)
    async with running_bucket(bucket) as store:
        world = World()
        world.jobs = JobStore(store, PART_CIPHER)
        world.clock.forward(hours=40 * 24)
        assert len(await found(world)) == len(jobs) * len(names)
    assert set(bucket.requests) == {"list"}
    assert bucket.requests.total() <= 4 + 9

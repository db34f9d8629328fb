"""Damage to one job fails or delays that job; the process and the other jobs go on."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from support.job_world import World

from pipeline.contracts import OutgoingRecord, Topic
from pipeline.errors import FatalError, Overloaded, PipelineError, TransientError
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.job_tree import JobRef
from pipeline.storage import StoreUnavailable

OTHERS = [UUID(int=number) for number in range(1, 8)]


async def processed() -> World:
    world = World()
    await world.deliver(world.process, world.announce())
    return world


async def upload(world: World) -> None:
    (record,) = world.records(Topic.BATCH_PROCESSED)
    await world.deliver(world.upload, record)


def only(world: World, ending: str) -> str:
    (key,) = [key for key in world.memory.objects if key.endswith(ending)]
    return key


async def assert_failed(world: World) -> None:
    outcome = await world.jobs.outcome(world.ref)
    assert outcome is not None
    assert (outcome.outcome, outcome.reason) == ("failed", "job_damaged")
    assert "Announce the cards as a new job" in json.loads(outcome.body)["error_message"]
    assert "jobs/" not in outcome.body
    assert len(world.bus.on(Topic.BATCH_FAILED)) == 1


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        ("00000000.json", "changed"),
        ("00000000.json", "missing"),
        (".csv.aes", "changed"),
        (".csv.aes", "missing"),
        ("processed.json", "changed"),
    ],
)
async def test_a_job_whose_stored_data_is_damaged_fails_at_upload(ending: str, damage: str) -> None:
    world = await processed()
    key = only(world, ending)
    if damage == "missing":
        del world.memory.objects[key]
    else:
        world.memory.objects[key] = world.memory.objects.get(key, b"?")[:-1] + b"\x00"
    await upload(world)
    assert world.objects.put == []
    await assert_failed(world)


@pytest.mark.parametrize("ending", ["00000000.json", "source.json", "processed.json"])
async def test_a_job_whose_stored_data_is_damaged_fails_at_process(ending: str) -> None:
    world = World()
    record = world.announce()
    await world.deliver(world.process, record)
    if ending != "processed.json":
        del world.memory.objects[f"{world.ref.work}processed.json"]
    world.memory.objects[only(world, ending)] = b"{"
    world.restart()
    await world.deliver(world.process, world.again(record))
    await assert_failed(world)


async def test_a_job_whose_outcome_is_damaged_cannot_be_decided() -> None:
    """Nor can it be failed: each stage says so, and no second outcome is made."""
    world = await processed()
    world.memory.objects[f"{world.ref.work}outcome.json"] = b"{"
    with pytest.raises(JobDamaged, match="Outcome is unreadable"):
        await upload(world)
    with pytest.raises(JobDamaged):
        await world.deliver(world.process, world.announce())
    assert world.bus.on(Topic.BATCH_FAILED) == []


async def test_a_job_whose_announcements_are_damaged_cannot_be_decided() -> None:
    world = await processed()
    (key,) = [key for key in world.memory.objects if "/announcements/" in key]
    world.memory.objects[key] = b"{"
    with pytest.raises(JobDamaged, match="Announcement is unreadable"):
        await upload(world)
    assert await world.jobs.outcome(world.ref) is None


async def due(world: World, *jobs: UUID) -> None:
    """File jobs whose deadline has passed."""
    for job in jobs:
        await world.deliver(world.watch, world.announce(job_guid=str(job)))
    world.clock.forward(hours=1)


def failed_jobs(world: World) -> set[UUID]:
    return {UUID(json.loads(record.value)["job_guid"]) for record in world.bus.on(Topic.BATCH_FAILED)}


def damage_outcome(world: World) -> None:
    world.memory.objects[f"jobs/acme/{OTHERS[0]}/outcome.json"] = b"{"


def damage_announcement(world: World) -> None:
    for key in world.memory.objects:
        if key.startswith(f"jobs/acme/{OTHERS[0]}/announcements/"):
            world.memory.objects[key] = b"\xff"


def damage_manifest(world: World) -> None:
    world.memory.objects[JobRef("acme", OTHERS[0]).manifest("g", 0)] = b"{"


def raising(error: BaseException) -> Any:
    def prepare(world: World) -> None:
        def fail(record: OutgoingRecord) -> PipelineError | None:
            if str(OTHERS[0]) in record.key:
                raise error
            return None

        world.bus.fail = fail

    return prepare


@pytest.mark.parametrize(
    ("trouble", "fails"),
    [
        (damage_outcome, True),
        (damage_announcement, True),
        (damage_manifest, False),
        (raising(Overloaded("overloaded", "enough")), True),
        (raising(TransientError("partner_failed", "its callback raised KeyError")), True),
        (raising(KeyError("planted")), True),
    ],
)
async def test_one_job_that_the_watch_cannot_handle_holds_up_no_other(trouble: Any, fails: bool) -> None:  # noqa: FBT001
    world = World()
    await due(world, *OTHERS)
    world.memory.objects["open/000000000000/foreign"] = b""
    trouble(world)
    with capture_logs() as logs:
        await world.watch.poll()
        await world.watch.poll()
    assert failed_jobs(world) == set(OTHERS[1:] if fails else OTHERS)
    assert len(world.watch._failing) == fails
    assert "planted" not in repr(logs)
    assert [line["key"] for line in logs if line["event"] == "store_object_foreign"] == ["open/000000000000/foreign"]
    world.bus.fail = lambda _: None
    if trouble not in (damage_outcome, damage_announcement):
        await world.watch.poll()
        assert failed_jobs(world) == set(OTHERS)
        assert not world.watch._failing


async def test_many_jobs_that_fail_for_ever_come_after_the_others() -> None:
    """Otherwise the first five would hold up all others: a look ends after so many failures in a row."""
    world = World()
    await due(world, *OTHERS)

    def fail(record: OutgoingRecord) -> PipelineError | None:
        troubled = any(str(job) in record.key for job in OTHERS[:5])
        return StoreUnavailable("for these jobs only") if troubled else None

    world.bus.fail = fail
    for _ in range(3):
        with suppress(StoreUnavailable):
            await world.watch.poll()
    assert failed_jobs(world) == set(OTHERS[5:])


async def test_a_store_that_is_away_ends_a_look_after_a_few_jobs() -> None:
    world = World()
    await due(world, *OTHERS)
    tried: list[str] = []

    def fail(record: OutgoingRecord) -> PipelineError | None:
        tried.append(record.key)
        return StoreUnavailable("away")

    world.bus.fail = fail
    with pytest.raises(StoreUnavailable):
        await world.watch.poll()
    assert len(tried) == 5


@pytest.mark.parametrize("error", [Overloaded("overloaded", "enough"), KeyError("planted"), TransientError("x", "y")])
async def test_nothing_but_a_fatal_error_ends_the_watch(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    looks = 0

    async def poll() -> None:
        nonlocal looks
        looks += 1
        raise error if looks < 3 else FatalError("enough", "the test has seen enough")

    monkeypatch.setattr(world.watch, "poll", poll)
    with capture_logs() as logs, pytest.raises(FatalError):
        await asyncio.wait_for(world.watch.run(), 5)
    assert looks == 3
    assert "planted" not in repr(logs)

"""Lists of jobs: a page at a time, open ones by deadline, then ended ones, the latest first; what a page costs."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from support.command_line import Run
from support.job_world import BEGIN, CARDS, JOB, PART_CIPHER, World
from support.memory_bucket import MemoryBucket, running_bucket

from pipeline.cli.exits import UsageRefused
from pipeline.cli.job_list import AT_ONCE, Wanted, in_order, list_jobs
from pipeline.cli.job_view import glance_at_job, view_job
from pipeline.contracts import Record
from pipeline.errors import TransientError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef, parse_ended
from pipeline.storage import LocalStore, ObjectInfo
from pipeline.storage.testing import MemoryStore

HTML = b"<!DOCTYPE html><html></html>"


class Counting(MemoryStore):
    """A store that counts the requests it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        self.requests["get"] += 1
        return await super().get(key, start=start, end=end)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        self.requests["list"] += 1
        async for info in super().list(prefix):
            yield info

    async def scan(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectInfo]:
        self.requests["list"] += 1
        async for info in super().scan(prefix, after=after):
            yield info


async def with_jobs(ended: int, open_: int) -> World:
    """Jobs 1 to ``ended``, one a minute, every third of them failed; then open ones."""
    world = World()
    world.memory = Counting()
    world.jobs = JobStore(world.memory, PART_CIPHER)
    world.restart()
    for number in range(1, ended + open_ + 1):
        record = world.announce(HTML if number % 3 == 0 else CARDS, **changes(number))
        await world.deliver(world.watch, record)
        if number <= ended:
            world.bus.published.clear()
            await world.run(record)
        else:
            await world.process.arrive(record)
        world.clock.forward(minutes=1)
    return world


def changes(number: int) -> dict[str, object]:
    url = f"https://files.example/{number}.csv"
    return {
        "job_guid": str(UUID(int=number)),
        "input_file_url": url,
        "expires_at": (BEGIN + timedelta(days=1, minutes=number)).isoformat(),
    }


async def page(world: World, limit: int = 100, **wanted: object) -> tuple[list[int], str]:
    given = {"states": (), "integration": None, "since": None, "until": world.clock(), "after": None} | wanted
    found = [one async for one in list_jobs(world.jobs, Wanted(**given), limit)]  # type: ignore[arg-type]
    return [one.view.ref.job_guid.int for one in found], found[-1].cursor if found else ""


async def test_open_jobs_come_by_deadline_and_ended_ones_latest_first() -> None:
    world = await with_jobs(ended=5, open_=3)
    assert (await page(world))[0] == [6, 7, 8]
    assert (await page(world, since=BEGIN))[0] == [6, 7, 8, 5, 4, 3, 2, 1]
    assert (await page(world, states=("confirmed",)))[0] == [5, 4, 3, 2, 1]
    assert (await page(world, states=("announced",)))[0] == [6, 7, 8]
    assert (await page(world, since=BEGIN + timedelta(minutes=3)))[0] == [6, 7, 8, 5, 4]
    assert (await page(world, since=BEGIN, integration="other"))[0] == []
    assert (await page(world, since=BEGIN, integration="acme"))[0] == [6, 7, 8, 5, 4, 3, 2, 1]


async def test_open_jobs_whose_deadline_has_passed_come_first() -> None:
    """The watch has decided them; they are open until ECS is notified. A renewed one is listed once."""
    world = await with_jobs(ended=0, open_=4)
    renewed = changes(4) | {"expires_at": (BEGIN + timedelta(days=3)).isoformat()}
    await world.deliver(world.watch, world.announce(CARDS, **renewed))
    world.clock.forward(days=1, minutes=-3)
    await world.watch.poll()
    assert (await page(world))[0] == [1, 2, 3, 4]
    assert (await page(world, states=("failed",)))[0] == [1]
    first, cursor = await page(world, 1)
    assert (first, (await page(world, after=cursor))[0]) == ([1], [2, 3, 4])


async def test_pages_follow_one_another_without_gap_or_repeat() -> None:
    world = await with_jobs(ended=20, open_=20)
    seen: list[int] = []
    after = None
    while True:
        numbers, cursor = await page(world, 7, since=BEGIN, after=after)
        if not numbers:
            break
        seen += numbers
        after = cursor
    assert seen == [*range(21, 41), *range(20, 0, -1)]


async def test_a_job_that_ended_twice_is_listed_once() -> None:
    world = await with_jobs(ended=1, open_=0)
    outcome = await world.jobs.outcome(JobRef("acme", UUID(int=1)))
    assert outcome is not None
    ref = JobRef("acme", UUID(int=1))
    await world.jobs.close(ref, outcome, world.clock(), keep_urls=True, newest=await world.jobs.newest(ref))
    assert (await page(world, since=BEGIN))[0] == [1]


async def test_jobs_that_ended_the_day_before_are_found() -> None:
    world = await with_jobs(ended=3, open_=0)
    world.clock.forward(hours=20)
    assert (await page(world, states=("confirmed",)))[0] == [3, 2, 1]
    world.clock.forward(days=3)
    assert (await page(world, states=("confirmed",)))[0] == []  # without --since, those of the last day
    assert (await page(world, since=BEGIN))[0] == [3, 2, 1]


async def test_a_page_does_not_cost_more_the_more_jobs_there_are() -> None:
    """Ten requests for each job of the page and of the batch that is read ahead, however many jobs there are."""
    world = await with_jobs(ended=60, open_=60)
    assert isinstance(world.memory, Counting)
    for wanted in ({}, {"states": ("confirmed",)}):
        world.memory.requests.clear()
        assert len((await page(world, 5, **wanted))[0]) == 5
        assert world.memory.requests.total() <= 16 * 10 + 20


async def test_the_first_page_of_100000_open_jobs_costs_few_requests(tmp_path: Path) -> None:
    """On S3 and on a folder: two listings find the jobs, and one listing shows each."""
    begin, step = BEGIN + timedelta(minutes=1), timedelta(hours=48) / 100_000
    refs = [JobRef("acme", UUID(int=number)) for number in range(100_000)]
    markers = [ref.marker("open", begin + number * step) for number, ref in enumerate(refs)]
    deadline = begin + timedelta(hours=1)
    stored = [f"{ref.root}announcements/{int(deadline.timestamp() * 1000):015d}-ab.json" for ref in refs[:50]]
    bucket = MemoryBucket()
    bucket.fill([*markers, *stored])
    async with running_bucket(bucket) as store:
        wanted = Wanted((), None, None, BEGIN, None, glance=True)
        found = [one async for one in list_jobs(JobStore(store, PART_CIPHER), wanted, AT_ONCE)]
        assert bucket.requests.total() <= 20
        after = replace(wanted, after=found[-1].cursor)
        assert len([one async for one in list_jobs(JobStore(store, PART_CIPHER), after, AT_ONCE)]) == AT_ONCE
        assert bucket.requests.total() <= 40
    assert [one.view.ref.job_guid.int for one in found] == list(range(16))
    assert {(one.view.state, one.view.deadline) for one in found} == {("announced", deadline)}
    for key in [*markers[::100], *stored]:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).touch()
    local = JobStore(LocalStore(tmp_path), PART_CIPHER)
    begun = time.perf_counter()
    assert [one.view.ref.job_guid.int async for one in list_jobs(local, wanted, 1)] == [0]
    assert time.perf_counter() - begun < 2


async def test_a_glance_shows_what_a_view_shows() -> None:
    """Of each job that is announced, waits, has failed, or is processed."""
    world = await with_jobs(ended=0, open_=4)
    await world.deliver(world.process, world.announce(HTML, **changes(2)))
    await world.deliver(world.process, world.announce(CARDS, **changes(3)))
    jobs = [JobRef("acme", UUID(int=number)) for number in range(1, 5)]
    pairs = [(await glance_at_job(world.jobs, ref), await view_job(world.jobs, ref)) for ref in jobs]
    assert [one.state for one, _ in pairs] == [one.state for _, one in pairs]
    assert [one.state for one, _ in pairs] == ["announced", "failed", "processed", "announced"]
    assert [one.deadline for one, _ in pairs] == [one.deadline for _, one in pairs]


async def test_foreign_objects_are_passed_over() -> None:
    world = await with_jobs(ended=1, open_=0)
    folder = f"ended/acme/{BEGIN:%Y%m%d/%H%M}/"
    for name in ("readme.txt", "no-guid.1.completed", f"{JOB}.one.completed"):
        await world.memory.create(folder + name, b"")
    assert (await page(world, since=BEGIN))[0] == [1]
    assert parse_ended("ended/x") is None


async def test_a_wrong_cursor_is_refused() -> None:
    world = await with_jobs(ended=1, open_=0)
    for cursor in ("page-2", "ended/acme"):
        with pytest.raises(UsageRefused, match="is not a cursor"):
            await page(world, since=BEGIN, after=cursor)


async def test_work_keeps_the_order_of_its_items_and_is_bounded() -> None:
    running = most = 0

    async def items() -> AsyncIterator[int]:
        for number in range(40):
            yield number

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (number % 3))
        running -= 1
        return number

    assert [one async for one in in_order(items(), work)] == list(range(40))
    assert most == 16


async def parked(world: World) -> None:
    """Let the world's job wait: its input host answers 503."""
    record: Record | None = world.announce()
    assert record
    await world.deliver(world.watch, record)
    world.objects.fail_open = [TransientError("source_unavailable", "The input storage answered 503.")] * 3
    while record is not None:
        record = await world.handle("process", record)


def saved(home: Path, world: World) -> None:
    async def save() -> None:
        store = LocalStore(home / "store")
        for key, data in world.memory.objects.items():
            await store.create(key, data)
        await store.close()

    asyncio.run(save())


def test_a_waiting_job_says_what_it_waits_for_and_until_when(home: Path, run: Run) -> None:
    world = World()
    asyncio.run(parked(world))
    saved(home, world)
    (line,) = run("job", "list", "--state", "waiting", "--json").stdout.splitlines()
    view = json.loads(line)
    assert (view["state"], view["waiting"]) == (
        "waiting",
        {
            "stage": "process",
            "count": 1,
            "code": "source_unavailable",
            "message": "The input storage answered 503.",
            "tries": 3,
            "first_at": "2026-01-21T12:00:00Z",
            "at": "2026-01-21T12:00:00Z",
            "due": "2026-01-21T12:00:30Z",
            "worker": "here",
        },
    )
    shown = run("job", "show", str(JOB)).stdout
    assert "waits in       process, since 2026-01-21T12:00:00+00:00 (wait 1, parked by here)" in shown
    assert "last error     source_unavailable: The input storage answered 503." in shown
    assert "next try       2026-01-21T12:00:30+00:00 (" in shown
    assert run("job", "list").stdout.splitlines()[1].split("\t")[2::5] == ["waiting", "source_unavailable"]
    assert run("job", "list", "--state", "announced", "--json").stdout == ""


def test_a_job_that_no_worker_could_read_is_listed_and_shown(home: Path, run: Run) -> None:
    """Its integration is not in the settings of any worker: nothing of it is stored but its wait."""
    world = World()

    async def unread() -> None:
        world.restart(integrations=())
        await world.handle("process", world.announce())
        await world.handle("watch", world.announce())

    asyncio.run(unread())
    saved(home, world)
    first = json.loads(run("job", "list", "--limit", "1", "--json").stdout)
    assert (first["job"], first["state"], first["deadline"]) == (f"acme/{JOB}", "waiting", None)
    assert first["waiting"]["code"] == "integration_unknown"
    assert run("job", "list", "--after", first["cursor"], "--json").stdout == ""
    assert "No integration 'acme' is configured" in run("job", "show", str(JOB)).stdout


@pytest.mark.parametrize("name", ["processed.json", "announcements"])
def test_a_damaged_job_is_shown_and_hides_no_other(home: Path, run: Run, name: str) -> None:
    world = World()

    async def two() -> None:
        await world.deliver(world.watch, world.announce(CARDS, **changes(1)))
        record = world.announce(CARDS, **changes(2))
        await world.deliver(world.watch, record)
        await world.deliver(world.process, record)
        key = next(key for key in world.memory.objects if f"{UUID(int=2)}/{name}" in key)
        world.memory.objects[key] = b"{"

    asyncio.run(two())
    saved(home, world)
    listed = [json.loads(line) for line in run("job", "list", "--json").stdout.splitlines()]
    assert [one["state"] for one in listed] == ["announced", "damaged"]
    assert name in listed[1]["damage"][0]
    assert f"/{name}" in run("job", "show", str(UUID(int=2))).stdout


def test_a_corrected_announcement_is_shown_with_what_differs(home: Path, run: Run) -> None:
    world = World()

    async def corrected() -> None:
        await world.deliver(world.watch, world.announce())
        await world.deliver(world.watch, world.announce(record_count=4))

    asyncio.run(corrected())
    saved(home, world)
    view = json.loads(run("job", "show", str(JOB), "--json").stdout)
    assert view["conflicts"][0]["differences"] == [{"field": "record_count", "first": "3", "later": "4"}]
    assert "record_count 4 (first: 3)" in run("job", "show", str(JOB)).stdout


def test_the_command_pages_by_the_cursor_it_prints(home: Path, run: Run) -> None:
    saved(home, asyncio.run(with_jobs(ended=0, open_=3)))
    first = run("job", "list", "--limit", "2", "--json")
    cursor = json.loads(first.stdout.splitlines()[-1])["cursor"]
    assert first.stderr == f"there may be more: add --after {cursor}\n"
    second = run("job", "list", "--limit", "2", "--after", cursor)
    assert [line.partition("\t")[0] for line in second.stdout.splitlines()] == ["job", f"acme/{UUID(int=3)}"]
    assert second.stderr == ""

"""One bad job never stops a worker: real processes, two workers of PROCESS, Apache Kafka.

The workers are started again when they end, as Kubernetes does. Each test has one bad job of ``acme``, and jobs of
another integration beside it, which must not feel it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from support.brokers import Broker
from support.flow import SESSION, Tables
from support.flow_checks import assert_audit_intact
from support.members import until
from support.neighbours import Neighbours, Trouble, neighbours, percentile
from support.poison import EXIT, SYSTEM_EXIT
from support.prefork import Prefork

from pipeline.sandbox import CardFile, Job
from pipeline.sandbox.faults import Fault

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOBS = 12
AT_MOST = 40.0
NOTICEABLE = 1.0
"""Seconds. Shorter times of a few jobs are mostly noise, so the bounds begin here."""
HELD_SECONDS = 11
"""How long ECS's storage asks an upload to wait: the job is parked meanwhile."""


@dataclass
class World:
    """Both integrations, and how long a job of the other one takes alone.

    Attributes:
        deaths: How often a worker of PROCESS has ended.
    """

    both: Neighbours
    alone: list[float]
    deaths: int = 0

    @property
    def store(self) -> Path:
        return self.both.flow.store

    async def send(self, **request: Any) -> Job:
        """Announce a job of ``acme``."""
        return await self.both.flow.send(cards=CardFile(records=10), **request)

    async def held_before_upload(self) -> Job:
        """Announce a job whose upload has to wait; return it when it is processed, and parked for the upload."""
        guid = uuid4()
        self.both.flow.sandbox.faults.add(
            Fault(target="result", kind="status", status=503, retry_after=str(HELD_SECONDS), job=guid)
        )
        job = await self.send(job_guid=guid)
        await until(lambda: any(name.startswith("waiting/upload") for name in self.both.flow.stored(job)))
        return job

    def stored(self, job: Job, pattern: str) -> list[Path]:
        """Return files of a job in the store."""
        return sorted((self.store / "jobs" / "acme" / str(job.guid)).glob(pattern))

    async def shown(self, job: Job) -> dict[str, Any]:
        """Return what ``job show`` says."""
        code, said, problem = await self.both.flow.command("job", "show", str(job.guid), "--json")
        assert code == 0, problem
        found: dict[str, Any] = json.loads(said)
        return found

    async def failed(self, job: Job, code: str) -> None:
        """The job has failed with this code, ECS knows why, and ``job show`` explains it."""
        await self.both.flow.notified(job, 90.0)
        assert job.success is False
        await until(lambda: "confirmed.json" in self.both.flow.stored(job))
        shown = await self.shown(job)
        assert (shown["state"], shown["outcome"]["reason"]) == ("confirmed", code)
        assert shown["outcome"]["message"]

    async def others_feel_nothing(self, extra: float = 0.0) -> None:
        """Check that jobs of the other integration take about as long as alone, plus at most ``extra`` seconds."""
        beside = await self.both.other_jobs(JOBS, at_most=AT_MOST)
        said = f"alone {self.alone}, now {beside}"
        assert statistics.median(beside) <= 3 * max(NOTICEABLE, statistics.median(self.alone)) + extra, said
        assert percentile(beside, 99) <= 5 * max(NOTICEABLE, percentile(self.alone, 99)) + extra, said


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    apache_kafka: Broker, tmp_path_factory: pytest.TempPathFactory, prefork: Prefork
) -> AsyncIterator[World]:
    """One flow for all tests of the module."""
    folder = tmp_path_factory.mktemp("poison")
    tables: Tables = {"parking": {"retry": {"first_seconds": 1.0, "max_seconds": 4.0}}}
    poisoned = Trouble(processor="support.poison:Poison")
    async with neighbours(apache_kafka, folder, poisoned, launch=prefork, tables=tables) as both:
        await both.other_jobs(JOBS, at_most=AT_MOST)
        found = World(both, await both.other_jobs(JOBS, at_most=AT_MOST))
        async with kept_running(found):
            yield found
        await both.flow.caught_up()
        await assert_audit_intact(both.flow)
        code, said = await both.flow.cli("audit", "verify", "--json")
        assert (code, json.loads(said)["ok"]) == (0, True)
        assert {one.code for one in both.flow.processes.values()} == {None}, "a process has ended"


@asynccontextmanager
async def kept_running(world: World) -> AsyncIterator[None]:
    """Start the workers of PROCESS again when they end."""

    async def watch() -> None:
        while True:
            for key in ("process", "second"):
                if world.both.flow.processes[key].code is not None:
                    world.deaths += 1
                    world.both.flow.launch("process", key=key)
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


async def test_a_damaged_part_fails_its_job(world: World) -> None:
    """One byte of a part changes before its upload: the job fails, nothing damaged reaches ECS, no worker ends.

    The part of a small job lies in its manifest.
    """
    job = await world.held_before_upload()
    (manifest,) = world.stored(job, "parts/*/0*.json")
    stored = json.loads(manifest.read_bytes())
    data = bytearray(base64.urlsafe_b64decode(stored["inline"]))
    data[-3] ^= 1
    manifest.write_text(json.dumps(stored | {"inline": base64.urlsafe_b64encode(data).decode()}))
    await world.others_feel_nothing()
    await world.failed(job, "job_damaged")
    assert world.both.flow.result(job) is None
    assert world.deaths == 0


async def test_an_unreadable_receipt_fails_its_job(world: World) -> None:
    """The receipt of PROCESS is cut: the job fails, no worker ends."""
    job = await world.held_before_upload()
    (receipt,) = world.stored(job, "processed.json")
    receipt.write_bytes(receipt.read_bytes()[:20])
    await world.others_feel_nothing()
    await world.failed(job, "job_damaged")
    assert world.deaths == 0


async def test_foreign_objects_stop_no_watch(world: World) -> None:
    """With foreign files everywhere in the store, a job whose deadline passes still fails in time."""
    for name in ("open/README", "open/202601010000/acme/x", "open/9/a/b/c", "due/README", "due/202601010000/acme/x"):
        path = world.store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not ours")
    guid = uuid4()
    world.both.flow.sandbox.faults.add(Fault(target="input", kind="delay", seconds=3600.0, times=0, job=guid))
    job = await world.send(job_guid=guid, expires_in_seconds=36.0)
    for folder in ("parts/x", "announcements", "told", "waiting"):
        path = world.store / "jobs" / "acme" / str(job.guid) / folder / "README"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not ours")
    await world.others_feel_nothing()
    await world.failed(job, "deadline_passed")
    assert world.deaths == 0
    assert "store_object_foreign" in world.both.flow.processes["confirm"].log


async def test_a_processor_that_ends_the_process_is_stopped_after_three_deaths(world: World) -> None:
    """The worker dies three times, and the job is failed instead of a fourth."""
    job = await world.send(partner_reference_id=EXIT)
    await world.others_feel_nothing(extra=2 * SESSION)
    await world.failed(job, "worker_crashed")
    assert world.deaths == 3
    await world.others_feel_nothing(extra=SESSION)


async def test_a_processor_that_asks_for_the_end_is_contained(world: World) -> None:
    """SystemExit out of a processor ends no worker, and its text appears nowhere."""
    deaths = world.deaths
    job = await world.send(partner_reference_id=SYSTEM_EXIT)
    await world.others_feel_nothing()
    assert job.ledger
    numbers = [card.number for card in job.ledger.cards()]
    await until(lambda: job.success is not None)
    shown = await world.shown(job)
    assert shown["state"] in {"failed", "confirmed", "completed", "waiting"}
    logs = "".join(process.log for process in world.both.flow.processes.values())
    assert not [number for number in numbers if number in logs]
    assert world.deaths == deaths

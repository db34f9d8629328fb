"""Tests of the handler that wraps every stage."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs
from support.job_world import JOB, World
from support.loud_processors import PanicException

from pipeline.contracts import RETRY_CODE_HEADER, Record
from pipeline.errors import FatalError, LeaseLost, Overloaded, PermanentError, TransientError, Untried
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.handling import JobHandler
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.outcomes import OutcomeExists
from pipeline.jobs.stage import StageContext
from pipeline.kafka.protocols import Lease


class Noting:
    """A stage that notes what its log lines would carry."""

    def __init__(self) -> None:
        self.seen: list[dict[str, object]] = []

    async def handle(self, record: Record, lease: Lease) -> None:
        del record, lease
        self.seen.append(get_contextvars())

    async def arrive(self, record: Record) -> None:
        del record
        self.seen.append(get_contextvars())


async def test_every_log_line_of_a_stage_carries_trace_integration_and_job() -> None:
    world, stage = World(), Noting()
    context = StageContext("process", world.jobs, world.bus, world.clock, world.metrics)
    handler = JobHandler(context, stage.handle, world.parking, arrive=stage.arrive)
    record = world.announce()
    assert handler.on_arrival
    await handler.on_arrival(record)
    await handler.handle(record, world.lease)
    expected = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "integration": "acme", "job_guid": str(JOB)}
    assert stage.seen == [expected, expected]
    assert get_contextvars() == {}


async def test_a_record_without_a_job_or_a_trace_has_neither_in_its_log_lines() -> None:
    world, stage = World(), Noting()
    context = StageContext("upload", world.jobs, world.bus, world.clock, world.metrics)
    handler = JobHandler(context, stage.handle, world.parking)
    assert handler.on_arrival is None
    await handler.handle(replace(world.announce(), key="nonsense/../x", headers=()), world.lease)
    assert stage.seen == [{}]


class Failing:
    """A stage that fails as a test says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ways: list[BaseException | None] = []
        context = StageContext("process", world.jobs, world.bus, world.clock, world.metrics)
        self.handler = JobHandler(context, self.handle, world.parking, arrive=self.arrive)

    async def handle(self, record: Record, lease: Lease) -> None:
        del lease
        await self.arrive(record)

    async def arrive(self, record: Record) -> None:
        del record
        way = self.ways.pop(0)
        if way is not None:
            raise way

    async def park(self, record: Record, way: Callable[[str], BaseException] = KeyError) -> None:
        """Let a job fail until it is parked."""
        for attempt in (1, 2):
            self.ways.append(way("planted"))
            with pytest.raises(TransientError, match="internal_error"):
                await self.handler.handle(replace(record, attempt=attempt), self.world.lease)
        self.ways.append(way("planted"))
        await self.handler.handle(replace(record, attempt=3), self.world.lease)


def job(world: World, number: int) -> Record:
    guid = UUID(int=number)
    return replace(world.announce(job_guid=str(guid)), key=f"acme/{guid}")


@pytest.mark.parametrize("way", [KeyError, PanicException, MemoryError, RecursionError, OutcomeExists, GeneratorExit])
async def test_an_unexpected_error_is_retried_and_then_parks_its_job(way: Any) -> None:
    """Nothing ends, nothing is dead-lettered; the log says where, and never the text."""
    world = World()
    stage = Failing(world)
    kind: Callable[[str], BaseException] = way if way is not OutcomeExists else lambda _: OutcomeExists()
    with capture_logs() as logs:
        await stage.park(job(world, 1), kind)
    waiting = await world.parking.waiting(JobRef("acme", UUID(int=1)))
    assert waiting is not None
    assert waiting.code == "internal_error"
    assert f"{way.__name__} at jobs/test_handling.py:" in waiting.message
    assert [line["event"] for line in logs] == ["job_handler_failed"] * 3 + ["job_parked"]
    assert "planted" not in f"{logs!r}{waiting!r}"


async def test_several_different_jobs_in_a_row_end_the_process() -> None:
    world = World()
    stage = Failing(world)
    for number in range(4):
        await stage.park(job(world, number))
    stage.ways.append(None)
    await stage.handler.handle(job(world, 99), world.lease)  # one that is done: it was not the process
    for number in range(4):
        await stage.park(job(world, 10 + number))
        renewed = job(world, 10 + number)  # the same job counts once
        await stage.park(replace(renewed, value=renewed.value + b" "))
    with pytest.raises(FatalError, match=r"5 different jobs in a row.*KeyError at jobs/test_handling\.py"):
        await stage.park(job(world, 20))
    assert await world.parking.waiting(JobRef("acme", UUID(int=20))) is not None


async def test_broken_jobs_that_wait_already_do_not_end_the_next_process() -> None:
    """A long job before them keeps their offsets uncommitted: it would be cut off by each restart."""
    world = World()
    stage = Failing(world)
    records = [job(world, number) for number in range(5)]
    for record in records[:4]:
        await stage.park(record)
    with pytest.raises(FatalError):
        await stage.park(records[4])
    world.clock.forward(seconds=5)
    restarted = Failing(world)
    for record in records:
        await restarted.park(record)
    for number in range(4):
        await restarted.park(job(world, 10 + number))
    with pytest.raises(FatalError):
        await restarted.park(job(world, 20))


async def test_jobs_that_come_back_broken_do_not_end_the_process_again() -> None:
    """They come back until their deadline: a process that restarts must not end for them each time."""
    world = World()
    stage = Failing(world)
    for number in range(8):
        record = job(world, number)
        await stage.park(replace(record, headers=(*record.headers, (RETRY_CODE_HEADER, b"internal_error"))))


@pytest.mark.parametrize(
    "error", [FatalError("a", "b"), LeaseLost("a", "b"), Overloaded("a", "b"), PermanentError("a", "b"), SystemExit(1)]
)
async def test_what_the_consumer_handles_itself_passes(error: BaseException) -> None:
    world = World()
    stage = Failing(world)
    stage.ways.append(error)
    with pytest.raises(type(error)) as caught:
        await stage.handler.handle(world.announce(), world.lease)
    assert caught.value is error


@pytest.mark.parametrize("asked", ["60", math.inf, math.nan, 1e15, -1e15, b"60"])
@pytest.mark.parametrize("kind", [TransientError, Untried])
async def test_a_pause_that_is_no_sensible_number_ends_no_process(asked: Any, kind: type[TransientError]) -> None:
    """Processors and partners may raise a TransientError, e.g. with the text of a header in it."""
    world = World()
    stage = Failing(world)
    stage.ways = [kind("card_service_busy", "The card service is busy.", retry_after=asked)]
    await stage.handler.handle(replace(job(world, 1), attempt=3), world.lease)
    waiting = await world.parking.waiting(JobRef("acme", UUID(int=1)))
    assert waiting is not None
    assert timedelta(0) <= waiting.due - waiting.at <= timedelta(days=366)


async def test_a_cancellation_passes() -> None:
    world = World()
    stage = Failing(world)
    begun = asyncio.Event()

    async def wait(_record: Record, _lease: Lease) -> None:
        begun.set()
        await asyncio.sleep(10)

    stage.handler._handle = wait
    task = asyncio.create_task(stage.handler.handle(world.announce(), world.lease))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_job_that_cannot_be_decided_is_parked_at_once_and_names_the_object() -> None:
    world = World()
    stage = Failing(world)
    stage.ways.append(JobDamaged("jobs/acme/x/outcome.json", "Outcome is unreadable"))
    await stage.handler.handle(world.announce(), world.lease)
    waiting = await world.parking.waiting(world.ref)
    assert waiting is not None
    assert waiting.code == "job_damaged"
    assert waiting.message.startswith("jobs/acme/x/outcome.json is damaged (Outcome is unreadable). Restore it")
    assert (waiting.due - waiting.at).total_seconds() >= 899


@pytest.mark.parametrize("error", [KeyError("planted"), JobDamaged("k", "changed"), PanicException("planted")])
async def test_an_arrival_that_fails_unexpectedly_is_left_to_the_handler(error: BaseException) -> None:
    world = World()
    stage = Failing(world)
    stage.ways.append(error)
    assert stage.handler.on_arrival
    await stage.handler.on_arrival(world.announce())
    assert stage.ways == []

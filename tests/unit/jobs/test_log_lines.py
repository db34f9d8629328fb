"""Every log line of a stage has the trace id, the integration and the job, in every case."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict
from support.bus_bench import Bench, until
from support.job_world import JOB, World

from pipeline.contracts import Record, Topic, first_values
from pipeline.errors import PermanentError, TransientError
from pipeline.jobs.partners import Answer
from pipeline.kafka.protocols import Lease

CARRIED = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "integration": "acme", "job_guid": str(JOB)}
TRACEPARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """The lines of a test, as they are rendered; each must be about the job."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as found:
        yield found
    assert [line for line in found if {name: line.get(name) for name in CARRIED} != CARRIED] == []


def events(lines: list[EventDict]) -> set[str]:
    return {line["event"] for line in lines}


async def run(world: World, record: Record) -> None:
    """Let every stage do all that follows from an announcement, as their consumers call them."""
    await world.handle_until_over("watch", record)
    await world.handle_until_over("process", record)
    for topic, stage in ((Topic.BATCH_PROCESSED, "upload"), (Topic.BATCH_UPLOADED, "confirm")):
        for found in world.records(topic):
            await world.handle_until_over(stage, found)  # type: ignore[arg-type]  # the names of stages
    for failed in world.records(Topic.BATCH_FAILED):
        await world.handle_until_over("confirm", failed)


async def test_a_job_that_is_done(lines: list[EventDict]) -> None:
    world = World()
    await run(world, world.announce())
    assert {"job_processed", "result_uploaded", "outcome_decided", "partner_notified"} <= events(lines)


async def test_a_job_whose_file_does_not_fit(lines: list[EventDict]) -> None:
    world = World()
    await run(world, world.announce(b"no card column\n1\n"))
    assert {"outcome_decided", "partner_notified"} <= events(lines)


async def test_a_job_that_waits_and_is_resumed(lines: list[EventDict]) -> None:
    """Parked by PROCESS, published again by the watch, then done; then a callback that waits too."""
    world = World()
    record = world.announce()
    world.objects.fail_open = [TransientError("source_down", "503", retry_after=60.0)]
    world.ecs.answers = [TransientError("callback_server_error", "ECS answered 500", retry_after=60.0)]
    await world.handle_until_over("process", record)
    assert "job_parked" in events(lines)
    world.clock.forward(minutes=2)
    await world.due.poll()
    [copy] = world.returned(Topic.BATCH_REQUESTED)
    await run(world, copy)
    assert {"job_resumed", "job_processed", "callback_not_accepted"} <= events(lines)


async def test_a_job_that_nobody_did_in_time(lines: list[EventDict]) -> None:
    """The watch knows the trace from the stored announcement, and hands it on to CONFIRM and to the audit log."""
    world = World()
    await world.handle_until_over("watch", world.announce())
    world.clock.forward(hours=2)
    await world.watch.poll()
    for failed in world.records(Topic.BATCH_FAILED):
        await world.handle_until_over("confirm", failed)
    assert {"deadline_passed", "outcome_decided", "partner_notified"} <= events(lines)
    for topic in (Topic.BATCH_FAILED, Topic.BATCH_COMPLETED, Topic.AUDIT_EVENTS):
        for one in (one for one in world.bus.on(topic) if one.key != "-"):  # a comparison of clocks is about no job
            assert CARRIED["trace_id"] in first_values(one.headers)["traceparent"], topic


async def test_a_job_that_is_announced_again_with_other_facts(lines: list[EventDict]) -> None:
    world = World()
    await run(world, world.announce())
    await world.handle_until_over("process", world.announce(record_count=4))
    assert "announcement_conflict" in events(lines)


async def test_a_job_whose_callback_is_refused(lines: list[EventDict]) -> None:
    world = World()
    world.ecs.answers = [Answer("refused", 422, "callback_invalid", "no")]
    await run(world, world.announce())
    assert "callback_refused" in events(lines)


async def test_parts_that_are_deleted(lines: list[EventDict]) -> None:
    world = World()
    world.objects.fail_put = [PermanentError("result_refused", "403")]
    await run(world, world.announce())
    world.clock.forward(days=30)
    await world.watch.poll()
    assert "parts_deleted" in events(lines)


async def test_a_record_that_the_consumer_retries_and_dead_letters(lines: list[EventDict]) -> None:
    """These lines are written by the consumer, outside of the handler."""
    bench = Bench()
    errors: list[Exception] = [TransientError("source_down", "503"), PermanentError("announcement_invalid", "no JSON")]

    async def fail(_record: Record, _lease: Lease) -> None:
        raise errors.pop(0)

    bench.handler.on_handle = fail
    async with bench.running(0):
        record = bench.group.record(f"acme/{JOB}", b"v")
        bench.group.deliver(
            Record(record.topic, record.partition, record.offset, record.key, record.value, (TRACEPARENT,), 0)
        )
        await until(lambda: bench.count("dead_letters_total", topic=record.topic, code="announcement_invalid") == 1)
        await asyncio.sleep(0)
    lines[:] = [line for line in lines if "partition" in line and "offset" in line]  # not those about the group
    assert {"work_retried", "record_dead_lettered"} <= events(lines)

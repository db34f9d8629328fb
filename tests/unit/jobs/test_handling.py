"""What surrounds the handler of every stage."""

from __future__ import annotations

from dataclasses import replace

from structlog.contextvars import get_contextvars
from support.job_world import JOB, World

from pipeline.contracts import Record
from pipeline.jobs.handling import JobHandler
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

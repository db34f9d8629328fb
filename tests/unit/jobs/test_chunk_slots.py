"""A job holds a slot per chunk: long jobs let short ones through, and a wait for a slot costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

from support.job_world import World
from support.transfer_ground import ground, ranged

from pipeline.contracts import Topic
from pipeline.jobs.processors import Card, CardResult, JobContext, ProcessorSettings, adopt
from pipeline.kafka.slots import SharedSlots


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - many things are waited for
            await asyncio.sleep(0.01)


async def test_a_short_job_gets_a_slot_between_two_chunks_of_a_long_one() -> None:
    order: list[str] = []

    async def slow(card: Card, context: JobContext) -> CardResult:
        order.append(f"{context.partner_reference_id}-{card.record}")
        await asyncio.sleep(0.02)
        return CardResult()

    world = World(csv_limits={"chunk_records": 1}, processor=adopt(slow, ProcessorSettings()))
    world.chunk_slots = SharedSlots(1)
    world.restart()
    long = world.announce(b"card_number\n" + b"9999990000000006\n" * 3)
    short = world.announce(
        b"card_number\n9999990000000006\n",
        job_guid=str(uuid4()),
        partner_reference_id="short",
        record_count=1,
        input_file_url="https://files.example/short.csv?X-Amz-Signature=planted3",
    )
    first = asyncio.create_task(world.process.handle(long, world.lease))
    await until(lambda: bool(order))
    await world.process.handle(short, world.lease)
    await first
    assert order == ["acme-1-1", "short-1", "acme-1-2", "acme-1-3"]


async def test_a_job_that_waits_for_a_slot_survives_that_the_store_cuts_its_download() -> None:
    """The store closes the connection in the middle of the file; the job continues there once it has its slot."""
    data = b"card_number\n" + b"9999990000000006\n" * 40_000
    world = World(csv_limits={"chunk_records": 10_000})
    world.chunk_slots = SharedSlots(1)
    cut = [ranged(data, count=len(data) // 3), ranged(data, count=len(data) // 3), ranged(data)]
    async with ground(*cut, clock=world.clock) as one:
        world.downloader = one.transfers.downloader
        world.restart()
        record = world.announce(record_count=40_000, input_file_url=f"{one.server.url}/in.csv")
        async with world.chunk_slots.share("acme"):
            job = asyncio.create_task(world.process.handle(record, world.lease))
            await until(lambda: bool(one.server.requests))
            await asyncio.sleep(0.3)
            assert not job.done()
        await job
        starts = [request.headers.get("range") for request in one.server.requests]
    assert starts[0] is None
    assert len(starts) == 3
    assert all(starts[1:])
    assert len(world.bus.on(Topic.BATCH_PROCESSED)) == 1

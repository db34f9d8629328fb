"""Jobs wait for a host that fails, and come back when it works again."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from support.job_world import World

from pipeline.contracts import Topic
from pipeline.errors import TransientError
from pipeline.jobs.outages import resume_after_outages
from pipeline.outbound import Circuits, HostUnavailable
from pipeline.storage import StoreUnavailable

HOST = "ecs.example"
DOWN = HostUnavailable("callback_unanswered", "ecs.example: no answer in 15 s")


class Outage:
    """A world whose circuits have its clock."""

    def __init__(self) -> None:
        self.world = World()
        self.world.circuits = Circuits(
            self.world.metrics,
            clock=self.seconds,
            jitter=lambda: 0.5,
        )
        self.world.restart()
        self.callbacks = self.world.circuits.of("acme", "callback")

    def seconds(self) -> float:
        return self.world.clock.now.timestamp()

    async def resume(self) -> None:
        service = asyncio.create_task(resume_after_outages(self.world.circuits, self.world.parking))
        await asyncio.sleep(0.05)
        service.cancel()
        with suppress(asyncio.CancelledError):
            await service


async def test_a_callback_to_a_host_that_fails_is_parked_untried_and_sent_when_the_host_answers() -> None:
    outage = Outage()
    world = outage.world
    await world.process.handle(world.announce(), world.lease)
    [processed] = world.records(Topic.BATCH_PROCESSED)
    await world.upload.handle(processed, world.lease)
    [uploaded] = world.records(Topic.BATCH_UPLOADED)
    for _ in range(5):
        outage.callbacks.failed(HOST, DOWN)
    await world.handle_until_over("confirm", uploaded)
    assert world.ecs.calls == []
    assert await world.jobs.notification_attempts(world.ref) == (0, False), "no try was recorded"
    waiting = await world.parking.waiting(world.ref)
    assert waiting is not None
    assert (waiting.code, waiting.message.startswith(DOWN.message)) == ("circuit_open", True)
    assert waiting.due > world.clock.now

    outage.callbacks.succeeded(HOST)
    await outage.resume()
    world.clock.forward(seconds=1)
    await world.due.poll()
    [returned] = world.returned(Topic.BATCH_UPLOADED)
    await world.handle_until_over("confirm", returned)
    assert len(world.ecs.calls) == 1


async def test_failed_callbacks_open_the_circuit_and_refused_ones_do_not() -> None:
    outage = Outage()
    world = outage.world
    await world.process.handle(world.announce(), world.lease)
    [processed] = world.records(Topic.BATCH_PROCESSED)
    await world.upload.handle(processed, world.lease)
    [uploaded] = world.records(Topic.BATCH_UPLOADED)
    world.ecs.answers = [*[TransientError("callback_unauthorized", "ECS answered 401")] * 6, *[DOWN] * 5]
    codes = []
    for _ in range(12):
        with pytest.raises(TransientError) as found:
            await world.confirm.handle(uploaded, world.lease)
        codes.append(found.value.code)
    assert codes == ["callback_unauthorized"] * 6 + [DOWN.code] * 5 + ["circuit_open"]


async def test_a_store_that_is_away_loses_no_waiting_job(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage()

    async def resume(*_: object, **__: object) -> int:
        raise StoreUnavailable("The store is not available.")

    monkeypatch.setattr(outage.world.parking, "resume", resume)
    for _ in range(5):
        outage.callbacks.failed(HOST, DOWN)
    outage.callbacks.succeeded(HOST)
    await outage.resume()  # logs it, and goes on

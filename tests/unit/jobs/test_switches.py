"""Pausing an integration: its jobs wait untried, others go on; the store's last number is valid."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.job_world import BEGIN, World

from pipeline.contracts import Topic
from pipeline.jobs.handling import JobHandler
from pipeline.jobs.stage import StageContext
from pipeline.jobs.switches import IntegrationPaused, Switches, SwitchTaken
from pipeline.storage.testing import MemoryStore

UNTIL = BEGIN + timedelta(minutes=30)


async def turn(world: World, *, paused: bool, command: str = "1", switches: Switches | None = None) -> None:
    switches = switches or Switches(world.memory, world.clock)
    await switches.turn("acme", paused=paused, until=UNTIL, reason="INC-7", actor="cli:alice", command=command)


def gauge(world: World) -> float | None:
    return world.metrics.registry.get_sample_value("pipeline_integration_paused", {"integration": "acme"})


def handler(world: World, switches: Switches) -> JobHandler:
    context = StageContext("process", world.jobs, world.bus, world.clock, world.metrics)
    return JobHandler(context, world.process.handle, world.parking, arrive=world.process.arrive, switches=switches)


async def test_a_paused_integrations_jobs_are_parked_untried_until_the_pause_ends() -> None:
    world = World()
    switches = Switches(world.memory, world.clock, world.metrics)
    await turn(world, paused=True)
    await handler(world, switches).handle(world.announce(), world.lease)
    assert world.objects.opened == []
    waiting = await world.parking.waiting(world.ref)
    assert waiting is not None
    assert (waiting.code, waiting.due) == ("integration_paused", UNTIL)
    assert "until 2026-01-21 12:30:00 UTC by cli:alice: INC-7" in waiting.message
    assert gauge(world) == 1


async def test_a_resumed_job_is_not_parked_again_by_a_worker_that_still_believes_in_the_pause() -> None:
    world = World()
    switches = Switches(world.memory, world.clock, world.metrics)
    await turn(world, paused=True)
    await handler(world, switches).handle(world.announce(), world.lease)
    await turn(world, paused=False, command="2")
    assert await world.parking.resume("acme", code="integration_paused") == 1
    await world.due.poll()
    (again,) = world.records(Topic.BATCH_REQUESTED)
    await handler(world, switches).handle(again, world.lease)
    assert await world.jobs.processed(world.ref) is not None
    assert gauge(world) == 0


@pytest.mark.parametrize("key", ["switches/acme/my notes.txt", "switches/old acme/1.json", "switches/acme/.keep"])
async def test_a_foreign_object_ends_no_process(key: str) -> None:
    """An operator who copies a bucket by hand may leave names that the pipeline never makes."""
    world = World()
    await turn(world, paused=True)
    world.memory.objects[key] = b"?"
    switches = Switches(world.memory, world.clock, world.metrics)
    await switches.poll()
    with pytest.raises(IntegrationPaused):
        await switches.ensure_running("acme")
    assert gauge(world) == 1
    await turn(world, paused=False, command="2")
    await switches.ensure_running("acme")


async def test_a_pause_ends_by_itself() -> None:
    world = World()
    switches = Switches(world.memory, world.clock, world.metrics)
    await turn(world, paused=True)
    with pytest.raises(IntegrationPaused):
        await switches.ensure_running("acme")
    await switches.ensure_running("other")
    world.clock.forward(minutes=31)
    await switches.ensure_running("acme")
    await switches.poll()
    assert gauge(world) == 0


async def test_an_unavailable_store_keeps_the_last_known_state() -> None:
    world = World()
    switches = Switches(world.memory, world.clock)
    await turn(world, paused=True)
    await switches.poll()
    world.memory.unavailable = True
    await switches.poll()
    with pytest.raises(IntegrationPaused):
        await switches.ensure_running("acme")


async def test_of_two_operators_one_wins_and_a_repeat_changes_nothing() -> None:
    world = World()

    class Overtaken(MemoryStore):
        async def create(self, key: str, data: bytes) -> bool:
            if key.startswith("switches/") and not any(one.startswith("switches/") for one in self.objects):
                self.objects[key] = data.replace(b'"command":"1"', b'"command":"2"')
            return await super().create(key, data)

    world.memory = Overtaken()
    with pytest.raises(SwitchTaken, match="cli:alice changed the switch of acme just now: INC-7"):
        await turn(world, paused=True, command="1")
    await turn(world, paused=True, command="2")
    await turn(world, paused=False, command="3")
    assert [key for key in world.memory.objects if key.startswith("switches/")] == [
        "switches/acme/00000001.json",
        "switches/acme/00000002.json",
    ]


async def test_a_damaged_switch_is_passed_over_and_can_be_replaced() -> None:
    world = World()
    await turn(world, paused=True)
    world.memory.objects["switches/acme/00000002.json"] = b"{"
    switches = Switches(world.memory, world.clock)
    with pytest.raises(IntegrationPaused):
        await switches.ensure_running("acme")
    await turn(world, paused=False, command="2")
    await switches.ensure_running("acme")

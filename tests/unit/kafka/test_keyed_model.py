"""Rules that always hold: see support.simulated_group."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.simulated_group import World
from support.virtual_time import VirtualTimeLoop

from pipeline.kafka import KeyedConsumer


@settings(max_examples=100)
@given(seed=st.integers(0, 1 << 32))
def test_no_trouble_breaks_a_rule_and_in_the_end_everything_is_finished(seed: int) -> None:
    """Order per key, no commit past an unfinished record, a hard bound on repetitions, shares kept, nothing lost."""
    random.seed(seed)  # pauses of repetitions
    with capture_logs(), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(simulate(seed))


@settings(max_examples=50)
@given(seed=st.integers(0, 1 << 32))
def test_a_stuck_flow_holds_up_no_other(seed: int) -> None:
    """Its handler returns long after everything of the other flow is finished."""
    random.seed(seed)
    with capture_logs(), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(simulate_stuck(seed))


async def simulate_stuck(seed: int) -> World:
    """Let one flow be stuck beside another, with errors and rebalances in between; then let it go on."""
    world = World(seed, stuck=True)
    world.stuck = world.random.choice(world.flows)
    world.append(world.random.randrange(20, 60))
    member, task = await _begin(world)
    await _trouble(world, task)
    world.troubled = False
    if task.done():
        assert task.exception() is world.bug, task.exception()
        member, task = await _begin(world)
    if world.client.partitions != frozenset(world.partitions):
        await world.client.rebalance(lost=False)
    await _until(lambda: not world.unfinished_of_others(), task, 30)
    await asyncio.sleep(10)
    world.stuck = None
    await _until(lambda: world.over, task, 120)
    member.stop()
    await task
    return world


async def _until(true: Callable[[], bool], task: asyncio.Task[None], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.1)
            assert not task.done()


async def simulate(seed: int) -> World:
    """Run members through trouble, then let it end; return the world, in which everything is finished by then."""
    world = World(seed)
    world.append(world.random.randrange(5, 60))
    for _ in range(world.random.randrange(4)):
        await _troubled_life(world)
    # the last member gets over its trouble by itself
    member, task = await _begin(world)
    await _trouble(world, task)
    world.troubled = False
    if world.client.partitions != frozenset(world.partitions):
        await world.client.rebalance(lost=False)
    async with asyncio.timeout(120):
        while not world.over:
            await asyncio.sleep(0.1)
            if task.done():
                assert task.exception() is world.bug, task.exception()
                member, task = await _begin(world)
    member.stop()
    await task
    assert not any(world.calls.values())
    return world


async def _begin(world: World) -> tuple[KeyedConsumer, asyncio.Task[None]]:
    member = world.member()
    task = asyncio.create_task(member.run())
    await asyncio.sleep(0)
    await world.client.rebalance(lost=False)
    return member, task


async def _trouble(world: World, task: asyncio.Task[None]) -> None:
    for _ in range(world.random.randrange(8)):
        await asyncio.sleep(world.random.random())
        if task.done():
            return
        await world.random.choice([_append, _append, _keep, _lose, _freeze])(world)


async def _troubled_life(world: World) -> None:
    """Run one member until it crashes, is stopped, or meets an unexpected error."""
    member, task = await _begin(world)
    await _trouble(world, task)
    if world.bug is None and world.random.random() < 0.5:
        member.stop()
    elif world.bug is None:
        world.client.dead = True
        task.cancel()
    [outcome] = await asyncio.gather(task, return_exceptions=True)
    assert outcome is world.bug or isinstance(outcome, asyncio.CancelledError), outcome
    assert not any(world.calls.values())
    assert not world.running


async def _append(world: World) -> None:
    world.append(world.random.randrange(20))


async def _keep(world: World) -> None:
    await world.client.rebalance(lost=False)


async def _lose(world: World) -> None:
    await world.client.rebalance(lost=True)


async def _freeze(world: World) -> None:
    await world.client.freeze()

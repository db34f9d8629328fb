"""What all stages share."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any

import pytest
from support.job_world import World

from pipeline.jobs.stage import DeadlinePassed, StageContext


async def test_an_error_of_cancelled_work_is_not_left_unread() -> None:
    """Otherwise asyncio would log its traceback, although the deadline is the reason that the caller gets."""
    world = World()
    await world.deliver(world.watch, world.announce())
    (ref,) = [one.ref async for one in world.jobs.filed("open")]
    world.clock.now = (await world.jobs.newest(ref)).deadline - timedelta(seconds=0.01)
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: logged.append(found))

    async def work() -> None:
        world.clock.forward(hours=1)
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("the connection did not close")

    context = StageContext("process", world.jobs, world.bus, world.clock, world.metrics)
    with pytest.raises(DeadlinePassed):
        await context.within_deadline(ref, work)
    gc.collect()
    assert logged == []

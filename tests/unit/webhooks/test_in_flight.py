from __future__ import annotations

import asyncio

import pytest

from pipeline.webhooks.answers import Problem
from pipeline.webhooks.handler import InFlight


async def test_idle_only_when_the_last_of_several_has_ended() -> None:
    """The slots are counted, and a refused request takes none."""
    in_flight = InFlight(2)
    with in_flight.slot():
        with in_flight.slot(), pytest.raises(Problem), in_flight.slot():
            pass  # pragma: no cover
        waiting = asyncio.create_task(in_flight.idle())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting

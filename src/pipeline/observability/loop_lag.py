"""How late the event loop comes: the first sign of blocking code."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

from prometheus_client import Histogram

INTERVAL: Final = 0.5
"""Seconds between two looks."""


async def watch_loop_lag(histogram: Histogram, *, interval: float = INTERVAL) -> NoReturn:
    """Observe, every ``interval`` seconds until cancelled, by how many seconds the loop woke us too late."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        histogram.observe(max(0.0, loop.time() - due))

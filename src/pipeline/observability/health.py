"""The checks behind the probes, and how late the event loop is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from prometheus_client import Histogram


@dataclass(frozen=True, slots=True)
class Health:
    """The result of one check.

    Attributes:
        ok: Whether the component can do its work.
        message: The reason, free of secrets: everybody who reaches the management port can read it.
    """

    ok: bool
    message: str = "ok"


Check = Callable[[], Health]
"""Says from memory how a component is: it does no I/O and never blocks, since probes come every few seconds."""


INTERVAL: Final = 0.5
"""Seconds between two observations of the loop's lag."""


async def watch_loop_lag(histogram: Histogram, *, interval: float = INTERVAL) -> NoReturn:
    """Observe, every ``interval`` seconds until cancelled, how many seconds late the loop resumes this task.

    A loop that is late runs blocking code.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        histogram.observe(max(0.0, loop.time() - due))

"""The checks behind the probes, and the lag of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from prometheus_client import Histogram

from pipeline.observability.masking import mask_text


@dataclass(frozen=True, slots=True)
class Health:
    """The result of one check.

    Attributes:
        ok: Whether the component can do its work.
        message: The reason, free of secrets, because everybody with access to the management port can read it.
    """

    ok: bool
    message: str = "ok"


Check = Callable[[], Health]
"""Returns the health of a component. It does no I/O and never blocks, since probes come every few seconds."""


Results = dict[str, dict[str, bool | str]]
"""Results of checks, by name."""


class Checks:
    """The checks of a process, by name."""

    def __init__(self) -> None:
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}
        self._alarms: dict[str, Check] = {}

    def add_liveness(self, name: str, check: Check) -> None:
        """Add a check whose failure restarts the process. Use it only to detect a loop that is stuck."""
        _add(self._live, name, check)

    def add_readiness(self, name: str, check: Check) -> None:
        """Add a check whose failure keeps traffic away from the process."""
        _add(self._ready, name, check)

    def add_alarm(self, name: str, check: Check) -> None:
        """Add a check that is shown beside readiness, for faults that affect only a part of the traffic."""
        _add(self._alarms, name, check)

    def liveness(self) -> Results:
        """Return the results of the liveness checks."""
        return _results(self._live)

    def readiness(self) -> Results:
        """Return the results of the readiness checks."""
        return _results(self._ready)

    def alarms(self) -> Results:
        """Return the results of the alarms."""
        return _results(self._alarms)


def _add(checks: dict[str, Check], name: str, check: Check) -> None:
    if name in checks:
        raise ValueError(f"a check named {name} is registered already")
    checks[name] = check


def _results(checks: Mapping[str, Check]) -> Results:
    results = {name: check() for name, check in checks.items()}
    return {name: {"ok": health.ok, "message": mask_text(health.message)} for name, health in results.items()}


INTERVAL: Final = 0.5
"""Seconds between two observations of the loop's lag."""


async def watch_loop_lag(histogram: Histogram, *, interval: float = INTERVAL) -> NoReturn:
    """Measure, every ``interval`` seconds until cancelled, how late the event loop resumes this task.

    A late loop means that some code blocks it.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        histogram.observe(max(0.0, loop.time() - due))

"""The machine's clock, and what the clocks of others say about it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client import Gauge

from pipeline.errors import TransientError
from pipeline.observability.health import Health
from pipeline.observability.loggers import get_logger

log = get_logger(__name__)

BOUND: Final = timedelta(seconds=60)
"""From here on the clock is wrong. Less than the smallest sensible margin before a deadline would be noise."""

_FRESH_SECONDS: Final = 300.0
"""How long a comparison says something: a clock may be set at any time."""

_MEASURED_SECONDS: Final = 60.0
"""A decision needs a comparison that is not older, or a try to get one."""

KAFKA: Final = "kafka"


class ClockWrong(TransientError):
    """The machine's clock is wrong, so nothing may be decided by it. Another process may decide, or this one later."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    offset: timedelta
    at: float


class CheckedClock:
    """A clock that others are compared with.

    A comparison is with a *witness*: Kafka, by the times at which it appends records, or a partner, by the ``Date`` of
    its answers. The clock is wrong while some witness differs by more than :data:`BOUND` and none agrees: so one
    partner with a wrong clock stops nothing, and neither does a broker that is contradicted by a partner.

    Args:
        now: The machine's clock, in UTC.
        offsets: Shows the offset by witness.
        monotonic: Seconds of a clock that is never set.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        offsets: Gauge,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._offsets = offsets
        self._monotonic = monotonic
        self._compared: dict[str, _Comparison] = {}
        self._asked_at = -_MEASURED_SECONDS
        self._was_wrong = False

    def __call__(self) -> datetime:
        """Return the time of the machine's clock."""
        return self._now()

    def compare(
        self, witness: str, at: datetime, *, began: datetime, ended: datetime, precision: timedelta = timedelta(0)
    ) -> None:
        """Learn a witness' time of something that happened between two times of this clock.

        Args:
            witness: :data:`KAFKA`, or the integration of a partner.
            at: The witness' time of it.
            began: This clock's time before it.
            ended: This clock's time after it.
            precision: By how much the witness cuts its times.
        """
        offset = timedelta(0)
        if began > at + precision:
            offset = began - (at + precision)
        elif ended < at:
            offset = ended - at
        self._compared[witness] = _Comparison(offset, self._monotonic())
        self._offsets.labels(witness).set(offset.total_seconds())
        self._report()

    def due(self, witness: str, seconds: float = 1.0) -> bool:
        """Return whether the last comparison with a witness is older than so many seconds."""
        known = self._compared.get(witness)
        return known is None or self._monotonic() - known.at >= seconds

    def check(self) -> Health:
        """Return whether decisions may be made by this clock."""
        fresh = {
            witness: one.offset
            for witness, one in self._compared.items()
            if self._monotonic() - one.at < _FRESH_SECONDS
        }
        differing = {witness: offset for witness, offset in fresh.items() if abs(offset) > BOUND}
        if not differing:
            return Health(ok=True, message="agrees with others" if fresh else "not compared with others yet")
        said = ", ".join(f"{_words(offset)} {witness}" for witness, offset in sorted(differing.items()))
        if len(differing) < len(fresh):
            return Health(ok=True, message=f"the clock is {said}, but agrees with others")
        return Health(ok=False, message=f"the clock of this machine is {said}: set it, e.g. by NTP")

    async def ensure(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Return if a decision may be made by this clock.

        Args:
            ask: Causes a comparison with Kafka, e.g. publishes a record. Called if the last one is older than a minute.

        Raises:
            ClockWrong: It is wrong.
            TransientError: No comparison is possible now.
        """
        if self.due(KAFKA, _MEASURED_SECONDS) and self._monotonic() - self._asked_at >= _MEASURED_SECONDS:
            await ask()
            self._asked_at = self._monotonic()
        health = self.check()
        if not health.ok:
            raise ClockWrong("clock_wrong", f"{health.message}; nothing is decided by it")

    def _report(self) -> None:
        health = self.check()
        if health.ok is self._was_wrong:
            self._was_wrong = not health.ok
            (log.info if health.ok else log.error)("clock_compared", ok=health.ok, message=health.message)


def from_milliseconds(value: int) -> datetime:
    """Return the time of epoch milliseconds."""
    return datetime.fromtimestamp(value / 1000, UTC)


def _words(offset: timedelta) -> str:
    seconds = offset.total_seconds()
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"

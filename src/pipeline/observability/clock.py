"""The machine's clock, compared with the clocks of others."""

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
"""From this difference on, the clock counts as wrong. It is below the smallest sensible deadline margin."""

_FRESH_SECONDS: Final = 300.0
"""How long a comparison is valid, since somebody may set a clock at any time."""

_MEASURED_SECONDS: Final = 60.0
"""A decision needs a comparison that is at most this old, or at least an attempt to get one."""

KAFKA: Final = "kafka"


class ClockWrong(TransientError):
    """The machine's clock is wrong, so this process must not decide by time. Another process may, or this one later."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    offset: timedelta
    at: float


class CheckedClock:
    """The machine's clock, which is compared with the clocks of others.

    Each comparison is with a *witness*: Kafka, through its times of appended records, or a partner, through the
    ``Date`` headers of its answers. The clock counts as wrong while at least one witness differs by more than
    :data:`BOUND` and none agrees. So a single wrong witness does no harm while another one agrees with the machine.

    Args:
        now: The machine's clock, in UTC.
        offsets: Metric of the offset to each witness.
        monotonic: Seconds of a monotonic clock.
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
        """Record a witness's time of an event that happened between two times of this clock.

        Args:
            witness: :data:`KAFKA`, or the integration of a partner.
            at: The witness's time of the event.
            began: This clock's time before the event.
            ended: This clock's time after the event.
            precision: The unit to which the witness truncates its times.
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
        """Return whether the last comparison with a witness is older than ``seconds``."""
        known = self._compared.get(witness)
        return known is None or self._monotonic() - known.at >= seconds

    def check(self) -> Health:
        """Return whether the process may decide by this clock."""
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
        """Raise an error unless the process may decide by this clock.

        Args:
            ask: Causes a comparison with Kafka, e.g. publishes a record. Called if the last one is older than a minute.

        Raises:
            ClockWrong: The clock is wrong.
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

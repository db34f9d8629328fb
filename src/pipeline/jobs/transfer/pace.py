"""Limits how slow the other side may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from pipeline.errors import TransientError
from pipeline.jobs.transfer.failures import Direction, TooSlow
from pipeline.jobs.transfer.settings import TransferParameters


class Pace:
    """The minimum rate of one connection, and its deadline, as times of the event loop.

    A window ends as soon as its bytes have arrived. If the wait for them takes ``rate_window_seconds``, the connection
    is too slow.
    """

    def __init__(self, settings: TransferParameters, seconds_left: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.ends = self._loop.time() + seconds_left
        self._window = settings.rate_window_seconds
        self._needed = settings.min_bytes_per_second * settings.rate_window_seconds
        self._bytes = 0
        self._waited = 0.0

    @property
    def now(self) -> float:
        """The event loop's time."""
        return self._loop.time()

    @property
    def latest(self) -> float:
        """When to give up a wait that begins now."""
        if not self._needed:
            return self.ends
        return self.within(self._window - self._waited)

    def within(self, seconds: float) -> float:
        """Return the time ``seconds`` from now, but not after the deadline."""
        return min(self.ends, self._loop.time() + seconds)

    async def take(self, waiting: Awaitable[bytes], direction: Direction) -> bytes:
        """Wait for bytes and return them.

        Raises:
            TooSlow: The window is over, and too few bytes arrived.
            TransientError: The deadline has passed.
        """
        began = self._loop.time()
        scope = asyncio.timeout_at(self.latest)
        try:
            async with scope:
                data = await waiting
        except TimeoutError:
            if not scope.expired():
                raise
        else:
            self.passed(len(data), self._loop.time() - began)
            return data
        raise self.overdue(direction)

    def passed(self, count: int, waited: float) -> None:
        """Count bytes that arrived."""
        self._bytes += count
        self._waited += waited
        if self._bytes >= self._needed:
            self._bytes, self._waited = 0, 0.0

    def overdue(self, direction: Direction) -> TransientError:
        """Return the error for a wait that was given up."""
        if self._loop.time() >= self.ends:
            return TransientError(
                f"{direction.prefix}_deadline_passed",
                f"The deadline of {direction.field} passed during the transfer.",
            )
        return TooSlow(
            f"{direction.prefix}_too_slow",
            f"Host of {direction.field}: fewer than {self._needed:.0f} bytes in {self._window:.0f} s.",
        )

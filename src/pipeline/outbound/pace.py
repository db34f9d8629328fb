"""How many requests a second a process sends to a service: at most a limit, fewer when the service asks for it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pipeline.observability import Metrics, get_logger

log = get_logger(__name__)

_CREDIT_SECONDS: Final = 0.1
"""Requests that are late by less than this are made up for: timers and busy loops are not exact. So a burst is at most
a tenth of a second's requests."""
_FALL: Final = 0.7
"""What is left of the rate after a fall."""
_FALL_SECONDS: Final = 1.0
"""Least time between two falls: answers to requests that were under way at a fall say nothing about the new rate."""
_RISE_PER_SECOND: Final = 0.05
"""What the rate gains a second, as a share of the limit."""
_LOWEST: Final = 0.01
"""Share of the limit below which the rate does not fall: so it finds out that the service works again."""
_FORGOTTEN: Final = 2.0
"""Without a limit, a rate that rose to this multiple of the one that was too high bounds nothing any more."""
_LOOK_SECONDS: Final = 0.05
"""Longest sleep of a request that waits, because its turn may come sooner than expected."""
_WINDOW_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Grant:
    """A share of the limit for a time of the monotonic clock.

    Attributes:
        begin: From when.
        end: Until when.
        share: Of the limit, up to 1.
        phase: What part of the time between two requests the first one waits, unless the last grant ended at ``begin``.
            So processes that begin together do not send their first requests all at once.
    """

    begin: float
    end: float
    share: float
    phase: float = 0.0


class Pace:
    """The rate at which one process sends requests to one service.

    With a limit, requests are spread evenly. When the service asks to slow down, the rate falls by 30 %, and rises by
    5 % of the limit a second; a pause that the service asks for applies to all requests. Without a limit nothing is
    bounded until the service asks; then the same holds for the rate of the last second, until it has doubled.

    Args:
        limit: Most requests a second, all processes together; None: no bound.
        shared: Whether other processes send requests under the same limit: without a :class:`Grant` nothing is sent.
        integration: For log lines and metrics.
        metrics: Shows the rate.
        clock: Returns seconds; they never go back.
        sleep: Waits the given seconds.

    Attributes:
        limited: Whether :meth:`turn` is to be called before a request. Else count the request in ``sent``.
        sent: How many requests were sent.
        demand: Set when a request waits for its turn, or got one; who grants shares clears it.
        hungry: Whether a request had to wait because of the rate; who grants shares clears it.
    """

    def __init__(
        self,
        limit: float | None = None,
        *,
        shared: bool = False,
        integration: str = "",
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.limit: Final = limit
        self.limited = limit is not None
        self.sent = 0
        self.demand: Final = asyncio.Event()
        self.hungry = False
        self._shared = shared and limit is not None
        self._integration = integration
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._queue = asyncio.Lock()
        self._grants: deque[Grant] = deque()
        self._granted_until = float("-inf")
        self._base = limit or 0.0
        self._level = 1.0
        self._level_at = self._fell_at = self._last = self._paused_until = float("-inf")
        self._window = (clock(), 0)
        self._measured = 0.0
        self._show()

    async def turn(self) -> None:
        """Return when a request may be sent; who asks first goes first."""
        if self._shared:
            self.demand.set()
        if not self.limited:
            self.sent += 1
            return
        async with self._queue:
            while (wait := self._wait()) > 0:
                self.hungry = True
                self.demand.set()
                await self._sleep(min(wait, _LOOK_SECONDS))
            self.sent += 1

    def sample(self) -> None:
        """Measure the rate; call it now and then while requests are sent without turns."""
        begin, sent = self._window
        now = self._clock()
        if now - begin >= _WINDOW_SECONDS:
            self._measured = (self.sent - sent) / (now - begin)
            self._window = now, self.sent

    def slow_down(self, seconds: float = 0.0) -> None:
        """Note that the service asks for fewer requests, and for none in the next ``seconds``."""
        now = self._clock()
        if seconds > 0:
            self._paused_until = max(self._paused_until, now + seconds)
            self.limited = True
        if now < self._fell_at + _FALL_SECONDS:
            return
        if self.limit is None and self._base == 0:
            begin, sent = self._window
            self._base = max(self._measured, (self.sent - sent) / max(now - begin, _WINDOW_SECONDS), 1.0)
            self._level, self._level_at = 1.0, now
        before = self._risen(now)
        self._level = max(before * _FALL, _LOWEST)
        self._level_at = self._fell_at = now
        self._last = max(self._last, now)  # nothing is made up for
        self.limited = True
        self._show()
        log.info("card_rate_lowered", integration=self._integration, share=round(self._level, 2))

    def grant(self, grant: Grant) -> None:
        """Allow a share of the limit from one time to another; grants come in order and do not overlap."""
        if self.limit and grant.share > 0 and grant.begin > self._granted_until + _CREDIT_SECONDS:
            self._last = max(self._last, grant.begin - (1.0 - grant.phase) / (self.limit * grant.share))
        self._granted_until = grant.end
        self._grants.append(grant)

    def _wait(self) -> float:
        """Take a turn and return 0; or return how long to wait before asking again."""
        now = self._clock()
        if now < self._paused_until:
            return self._paused_until - now
        level = self._risen(now)
        if self.limit is None and level >= _FORGOTTEN:
            self._base, self._level, self.limited = 0.0, 1.0, False
            self._window = now, self.sent
            return 0.0
        share, begin = self._share(now)
        rate = self._base * share * level
        if self._base == 0:  # without a limit, only a pause was asked for
            self.limited = False
            return 0.0
        if rate <= 0:
            return _LOOK_SECONDS
        due = max(self._last + 1 / rate, now - _CREDIT_SECONDS, begin)
        if due > now:
            return due - now
        self._last = due
        return 0.0

    def _risen(self, now: float) -> float:
        """Return the share of the limit that the service bears, as far as is known."""
        if self._level >= 1.0 and self.limit is not None:
            return self._level
        top = 1.0 if self.limit is not None else _FORGOTTEN
        self._level = min(self._level + _RISE_PER_SECOND * max(now - self._level_at, 0.0), top)
        self._level_at = now
        if self._level == top:
            self._show()
            log.info("card_rate_restored", integration=self._integration)
        return self._level

    def _share(self, now: float) -> tuple[float, float]:
        """Return the share of the limit that this process has now, and since when."""
        if not self._shared:
            return 1.0, float("-inf")
        while self._grants and self._grants[0].end <= now:
            self._grants.popleft()
        if self._grants and self._grants[0].begin <= now:
            return self._grants[0].share, self._grants[0].begin
        return 0.0, now

    def _show(self) -> None:
        if self._metrics is not None and self._integration:
            self._metrics.card_rate_level.labels(self._integration).set(min(self._level, 1.0))

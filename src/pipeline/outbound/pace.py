"""The rate at which a process sends requests to a service: at most a limit, and less if the service asks for it."""

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
"""Sending catches up on delays shorter than this, because timers and busy loops are not exact. So a burst has at most
as many requests as the rate allows in this time."""
_FALL: Final = 0.7
"""The rate after a fall, as a share of the rate before it."""
_FALL_SECONDS: Final = 1.0
"""Minimum time between two falls. Answers to requests that were sent before a fall say nothing about the new rate."""
_RISE_PER_SECOND: Final = 0.05
"""How much the rate rises each second, as a share of the limit."""
_LOWEST: Final = 0.01
"""The rate never falls below this share of the limit, so that the process notices when the service works again."""
_FORGOTTEN: Final = 2.0
"""Without a limit, the rate is unbounded again once it has risen to this multiple of the rate that was too high."""
_LOOK_SECONDS: Final = 0.05
"""Longest sleep of a waiting request. Then it looks again, because its turn may come sooner than expected."""
_WINDOW_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Grant:
    """A share of the limit for a period of the monotonic clock.

    Attributes:
        begin: When the period begins.
        end: When the period ends.
        share: Share of the limit, up to 1.
        phase: How long the first request waits, as a share of the time between two requests. So processes that begin
            together do not send their first requests all at once. It has no effect if a grant ended at ``begin``.
    """

    begin: float
    end: float
    share: float
    phase: float = 0.0


class Pace:
    """The rate at which one process sends requests to one service.

    With a limit, requests are spread evenly. If the service asks to slow down, the rate falls by 30 %, and then rises
    by 5 % of the limit each second. If the service asks for a pause, the pause applies to all requests.

    Without a limit, the rate is unbounded until the service asks to slow down. Then the rate of the last second takes
    the place of the limit, until the rate has risen to twice as much.

    Args:
        limit: Most requests per second of all processes together; None: no limit.
        shared: Whether other processes send requests under the same limit. If so, a request needs a :class:`Grant`.
        integration: For log lines and metrics.
        metrics: Shows the rate.
        clock: Returns the seconds of a clock that never goes back.
        sleep: Waits the given seconds.

    Attributes:
        limited: Whether to call :meth:`turn` before each request. If not, count each request in ``sent``.
        sent: How many requests were sent.
        demand: Set when a request waits for its turn, or gets it. The code that grants shares clears it.
        hungry: Whether a request had to wait because of the rate. The code that grants shares clears it.
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
        """Return when a request may be sent. Turns come in the order of the calls."""
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
        """Measure the rate. Call it from time to time while requests are sent without turns."""
        begin, sent = self._window
        now = self._clock()
        if now - begin >= _WINDOW_SECONDS:
            self._measured = (self.sent - sent) / (now - begin)
            self._window = now, self.sent

    def slow_down(self, seconds: float = 0.0) -> None:
        """Lower the rate, because the service asks for it, and send no request in the next ``seconds``."""
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
        self._last = max(self._last, now)  # do not catch up on the pause
        self.limited = True
        self._show()
        log.info("card_rate_lowered", integration=self._integration, share=round(self._level, 2))

    def grant(self, grant: Grant) -> None:
        """Allow a share of the limit for a period. Call it with grants in order, without overlaps."""
        if self.limit and grant.share > 0 and grant.begin > self._granted_until + _CREDIT_SECONDS:
            self._last = max(self._last, grant.begin - (1.0 - grant.phase) / (self.limit * grant.share))
        self._granted_until = grant.end
        self._grants.append(grant)

    def _wait(self) -> float:
        """Take a turn and return 0, or return how long to wait before asking again."""
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
        if self._base == 0:  # without a limit, and the service has only asked for a pause
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
        """Raise the rate by the time that has passed, and return it as a share of the limit."""
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
        """Return this process's current share of the limit, and when that share began."""
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

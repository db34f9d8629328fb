"""Watches the deadlines of many short tasks with a single timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class _Work(Protocol):
    def done(self) -> bool:
        """Return whether it has ended."""
        ...


T = TypeVar("T", bound=_Work)


class Deadlines(Generic[T]):
    """Ends work that takes too long. ``asyncio.timeout`` would need a timer for each piece of work.

    Args:
        seconds: How long each piece of work may take.
        expire: Called with each piece that is not done by then.
    """

    def __init__(self, seconds: float, expire: Callable[[T], object]) -> None:
        self._seconds = seconds
        self._end = expire
        self._running: deque[tuple[float, T]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, work: T) -> None:
        """Start the time limit of some work."""
        loop = asyncio.get_running_loop()
        while self._running and self._running[0][1].done():
            self._running.popleft()
        self._running.append((loop.time() + self._seconds, work))
        if self._timer is None:
            self._timer = loop.call_at(self._running[0][0], self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        while self._running and (self._running[0][1].done() or self._running[0][0] <= loop.time()):
            _, work = self._running.popleft()
            if not work.done():
                self._end(work)
        if self._running:
            self._timer = loop.call_at(self._running[0][0], self._expire, loop)

"""How many requests are in work, at most and now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.webhooks.problems import Problem
from pipeline.webhooks.statuses import Answer


class InFlight:
    """A bounded count of requests in work: it bounds the memory that their bodies take."""

    def __init__(self, limit: int, *, retry_after: int) -> None:
        """Take the limit, and the pause in seconds that one request too many is asked to make."""
        self._limit = limit
        self._retry_after = retry_after
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one slot for the length of the block.

        Raises:
            Problem: All are taken.
        """
        if self._count >= self._limit:
            raise Problem(
                Answer.OVERLOADED, reason="requests_in_flight", headers={"Retry-After": str(self._retry_after)}
            )
        self._count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    async def idle(self) -> None:
        """Return when no request is in work. The caller puts a timeout around it."""
        await self._idle.wait()

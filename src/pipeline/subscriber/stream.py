"""Connects the consumer, which pushes events, with ``async for``, which pulls them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from pipeline.errors import LeaseLost
from pipeline.subscriber.event import Event


class Left(LeaseLost):
    """The program left the loop before the event was finished. The event comes again after the next start."""

    def __init__(self) -> None:
        super().__init__("stopping", "The loop was left; the event will be handled after the next start.")


class _Offer:
    """An event that waits for the loop, or that the loop's body is handling."""

    def __init__(self, event: Event[Any]) -> None:
        self.event = event
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class EventStream:
    """Passes events to a loop one by one. A request for the next event finishes the one before."""

    def __init__(self) -> None:
        self._offers: deque[_Offer] = deque()
        self._current: _Offer | None = None
        self._more = asyncio.Event()
        self._closed = False

    async def put(self, event: Event[Any]) -> None:
        """Offer an event and wait until it is finished.

        Raises:
            Left: The stream was closed first; the event must come again.
        """
        offer = _Offer(event)
        if self._closed:
            raise Left
        self._offers.append(offer)
        self._more.set()
        try:
            await offer.finished
        finally:
            if offer in self._offers:
                self._offers.remove(offer)

    async def next(self) -> Event[Any] | None:
        """Finish the previous event and return the next one; None if the stream is closed."""
        self._finish()
        while not self._offers and not self._closed:
            self._more.clear()
            await self._more.wait()
        if self._closed:
            return None
        self._current = self._offers.popleft()
        return self._current.event

    def close(self) -> None:
        """Return no more events. Waiting ones come again after a restart; the one in the loop's body may finish."""
        self._closed = True
        self._more.set()
        for offer in self._offers:
            _withdraw(offer)

    def abandon(self) -> None:
        """Close the stream, and leave the event in the loop's body unfinished."""
        self.close()
        if self._current is not None:
            _withdraw(self._current)

    def _finish(self) -> None:
        # nobody waits for it if its partition was lost meanwhile
        if self._current is not None and not self._current.finished.done():
            self._current.finished.set_result(None)
        self._current = None


def _withdraw(offer: _Offer) -> None:
    if not offer.finished.done():
        offer.finished.set_exception(Left())

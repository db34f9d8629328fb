"""Slots that several flows share, so that one flow never takes them all."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from pipeline.shares import room


class SharedSlots:
    """Limits how many calls run at the same time, and shares the slots between flows, e.g. integrations.

    A flow takes another slot only while it holds fewer than twice the free slots, and it leaves the last free slot to
    a flow that holds none. So one busy flow gets two thirds of the slots, and another flow finds a free one at once.
    If there are too few slots, the waiting flows get them in turn; within a flow, the longest wait comes first.

    Args:
        total: The number of slots.
        flows: Maximum number of flows. A single flow may take every slot.
    """

    def __init__(self, total: int, *, flows: int = 1) -> None:
        self._free = total
        self._shared = flows > 1
        self._shares: dict[str, Share] = {}
        self._turns: deque[Share] = deque()

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self._free

    def share(self, flow: str) -> Share:
        """Return the share of a flow: use it with ``async with`` to hold one slot."""
        if flow not in self._shares:
            self._shares[flow] = Share(self)
        return self._shares[flow]

    def allows(self, share: Share) -> bool:
        """Return whether a flow may take another slot now."""
        return (room(share.held, self._free) if self._shared else self._free) > 0

    def take(self, share: Share) -> bool:
        """Take a slot for a flow if it may have one now and none of its calls waits; return whether it did."""
        if share.waiting or not self.allows(share):
            return False
        self._free -= 1
        share.held += 1
        return True

    async def wait(self, share: Share) -> None:
        """Wait until the flow gets another slot."""
        if not share.waiting:
            self._turns.append(share)
        turn = asyncio.get_running_loop().create_future()
        share.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(share, turn)
            else:
                self.give_back(share)  # the slot arrived at the moment of the cancellation
            raise

    def give_back(self, share: Share) -> None:
        """Give a slot back; the next waiting flow that may take it gets it."""
        share.held -= 1
        self._free += 1
        while self._turns and (served := next((one for one in self._turns if self.allows(one)), None)):
            self._turns.remove(served)
            turn = served.waiting.popleft()
            if not turn.done():
                self._free -= 1
                served.held += 1
                turn.set_result(None)
            if served.waiting:
                self._turns.append(served)

    def _forget(self, share: Share, turn: asyncio.Future[None]) -> None:
        with suppress(ValueError):  # a slot that was given back meanwhile has removed it
            share.waiting.remove(turn)
            if not share.waiting:
                self._turns.remove(share)


class Share:
    """The slots of one flow; ``async with`` holds one of them.

    Attributes:
        held: Number of slots that the flow holds.
        waiting: The calls that wait for a slot, in order.
    """

    __slots__ = ("_slots", "held", "waiting")

    def __init__(self, slots: SharedSlots) -> None:
        self._slots = slots
        self.held = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a slot if one is free; return whether it did. :meth:`give_back` returns the slot."""
        return self._slots.take(self)

    async def wait(self) -> None:
        """Wait for a slot and take it. :meth:`give_back` returns the slot."""
        await self._slots.wait(self)

    def give_back(self) -> None:
        """Give a slot back."""
        self._slots.give_back(self)

    async def __aenter__(self) -> None:
        if not self.take():
            await self.wait()

    async def __aexit__(self, *_: object) -> None:
        self.give_back()

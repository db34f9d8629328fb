"""Shares a limit between flows, so that no flow takes all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable


def room(held: int, free: int) -> int:
    """Return how much more a flow may take of a shared limit; zero or less means nothing.

    A flow may take more while it holds less than twice the free amount (a dynamic threshold). So one busy flow gets two
    thirds, and two busy flows get two fifths each. A flow that holds nothing always finds room, unless the limit is
    very small. Nothing is reserved for idle flows. Only a flow that holds nothing may take the last unit.

    Args:
        held: The amount that the flow holds.
        free: The amount that no flow holds.
    """
    if held and free == 1:
        return 0
    return min(2 * free - held, free)


class Shares:
    """Counts how much of a limit each flow holds, and how much more it may take (:func:`room`).

    Args:
        total: The limit that all flows share.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._held: Counter[Hashable] = Counter()

    @property
    def free(self) -> int:
        """The amount that no flow holds."""
        return self._free

    @property
    def used(self) -> int:
        """The amount that all flows hold together."""
        return self._total - self._free

    def held(self, flow: Hashable) -> int:
        """Return how much a flow holds."""
        return self._held[flow]

    def room(self, flow: Hashable) -> int:
        """Return how much more a flow may take now; zero or less means nothing."""
        return room(self._held[flow], self._free)

    def take(self, flow: Hashable, amount: int = 1) -> None:
        """Count an amount as held. The caller compares it with :meth:`room` first, or has a reason not to."""
        self._free -= amount
        self._held[flow] += amount

    def give(self, flow: Hashable, amount: int = 1) -> None:
        """Give an amount back. A flow that holds nothing uses no memory."""
        self._free += amount
        self._held[flow] -= amount
        if not self._held[flow]:
            del self._held[flow]

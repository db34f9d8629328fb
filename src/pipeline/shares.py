"""Sharing a limit between flows, so that none takes all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable


def room(held: int, free: int) -> int:
    """Return how much more a flow may take of a shared limit; zero or less: nothing.

    A flow may take more while it holds less than twice what is free (a dynamic threshold). So one busy flow gets two
    thirds, two busy flows get two fifths each, and a flow that holds nothing always finds room, unless the limit is
    very small. Nothing is reserved for flows that are idle. The last unit goes only to a flow that holds nothing.

    Args:
        held: What the flow holds.
        free: What nobody holds.
    """
    if held and free == 1:
        return 0
    return min(2 * free - held, free)


class Shares:
    """Counts what each flow holds of a limit, and how much more each may take now (:func:`room`).

    Args:
        total: The limit that all flows share.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._held: Counter[Hashable] = Counter()

    @property
    def free(self) -> int:
        """How much nobody holds."""
        return self._free

    @property
    def used(self) -> int:
        """How much all flows hold together."""
        return self._total - self._free

    def held(self, flow: Hashable) -> int:
        """Return how much a flow holds."""
        return self._held[flow]

    def room(self, flow: Hashable) -> int:
        """Return how much more a flow may take now; zero or less: nothing."""
        return room(self._held[flow], self._free)

    def take(self, flow: Hashable, amount: int = 1) -> None:
        """Count an amount as held. The caller has compared it with :meth:`room`, or has a reason not to."""
        self._free -= amount
        self._held[flow] += amount

    def give(self, flow: Hashable, amount: int = 1) -> None:
        """Give an amount back. A flow that holds nothing takes no memory."""
        self._free += amount
        self._held[flow] -= amount
        if not self._held[flow]:
            del self._held[flow]

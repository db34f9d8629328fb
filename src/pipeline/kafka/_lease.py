"""The right to do effects for the records of one partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from pipeline.errors import LeaseLost


class _State(Enum):
    HELD = auto()
    LIMBO = auto()
    LOST = auto()


class Tenure:
    """One partition's time with this member: held, in limbo during a rebalance, lost for good.

    It is the :class:`~pipeline.kafka.protocols.Lease` of all records of the partition.

    Args:
        fresh: Whether the member's last heartbeat is young enough, by a clock that a frozen process cannot stop.
    """

    def __init__(self, fresh: Callable[[], bool]) -> None:
        self._fresh = fresh
        self._state = _State.HELD
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def lost(self) -> bool:
        """Whether no effect is allowed any more, whatever happens."""
        return self._state is _State.LOST

    def suspend(self) -> None:
        """A rebalance began: nobody knows yet who gets the partition."""
        if self._state is _State.HELD:
            self._state = _State.LIMBO
            self._settled.clear()

    def hold(self) -> None:
        """The partition came back to this member, without anyone else having had it."""
        if self._state is _State.LIMBO:
            self._state = _State.HELD
            self._settled.set()

    def lose(self) -> None:
        """Someone else may have the partition."""
        self._state = _State.LOST
        self._settled.set()

    async def ensure(self) -> None:
        """See :meth:`pipeline.kafka.protocols.Lease.ensure`."""
        await self._settled.wait()
        if self._state is _State.HELD and not self._fresh():
            # for good: a heartbeat that succeeds later says nothing about the time in between
            self.lose()
        if self._state is _State.LOST:
            raise LeaseLost(
                "lease_lost", "The partition went to another member, or this member has no fresh heartbeat."
            )

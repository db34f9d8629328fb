"""Which offset may be committed. Pure."""

from __future__ import annotations


class OffsetTracker:
    """The records of one partition between the lowest unfinished one and the highest fetched one.

    Offsets come in ascending order and may have gaps (transaction markers). Records finish in any order.
    """

    def __init__(self) -> None:
        self._next: int | None = None
        self._unfinished: dict[int, int] = {}
        self._bytes = 0

    def take(self, offset: int, size: int) -> bool:
        """Note a fetched record of ``size`` bytes; return False when it was taken before."""
        if self._next is not None and offset < self._next:
            return False
        self._next = offset + 1
        self._unfinished[offset] = size
        self._bytes += size
        return True

    def finish(self, offset: int) -> None:
        """Note that nothing needs to be done for this record any more. Raises KeyError unless it was in work."""
        self._bytes -= self._unfinished.pop(offset)

    @property
    def next_offset(self) -> int | None:
        """The offset to fetch next, or None before the first record."""
        return self._next

    @property
    def to_commit(self) -> int | None:
        """The lowest offset that is still needed: every record below it is finished. None before the first record."""
        return next(iter(self._unfinished), self._next)

    @property
    def span(self) -> int:
        """Offsets between the lowest unfinished and the next to fetch."""
        if self._next is None or self.to_commit is None:
            return 0
        return self._next - self.to_commit

    @property
    def held_bytes(self) -> int:
        """Bytes of the records in work."""
        return self._bytes

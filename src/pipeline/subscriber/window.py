"""The repeat rule, pure: which records carry an event that came before (docs/reference/subscribers.md)."""

from __future__ import annotations

import hashlib
from typing import Final

_TIME_BITS: Final = 48
_TIME_MASK: Final = (1 << _TIME_BITS) - 1
_LONGEST_ID: Final = 32
"""Ids of at most this many bytes are kept unchanged; longer ones are hashed. The pipeline's ids have 32 bytes."""
_HASH: Final = _LONGEST_ID + 1
_SWEEPS: Final = 8
"""How often, per full window, ids that have left the window are removed."""


class RepeatWindow:
    """The event ids of one partition's last records.

    A record is a repeat if the previous record with the same id is at most ``records`` offsets before it and at most
    ``seconds`` older. The caller must add records in the order of offsets. The state depends only on the partition, so
    any two windows that contain the last ``records`` offsets agree.

    Memory: about 200 bytes for each id, for at most ``records`` ids and an eighth more.
    """

    def __init__(self, seconds: float, records: int) -> None:
        self._milliseconds = round(seconds * 1000)
        self._records = records
        # id -> offset and time of its last record, packed into one number; ordered by offset
        self._last: dict[bytes, int] = {}
        self._sweep_every = max(1, records // _SWEEPS)
        self._sweep_at: int | None = None
        self._cuts = 0

    def __len__(self) -> int:
        return len(self._last)

    @property
    def cuts(self) -> int:
        """How many ids were removed because of ``records`` before their time was over."""
        return self._cuts

    def repeats(self, event_id: bytes, offset: int, timestamp_ms: int) -> bool:
        """Add a record; return whether it is a repeat.

        Args:
            event_id: The bytes of ``ce_id``.
            offset: Higher than all before.
            timestamp_ms: The record's time in Kafka; negative if the broker stores none.
        """
        # a hash is longer than any unhashed id, so the two cannot be equal
        short = event_id if len(event_id) <= _LONGEST_ID else hashlib.blake2b(event_id, digest_size=_HASH).digest()
        time = timestamp_ms + 1 if 0 <= timestamp_ms < _TIME_MASK else _TIME_MASK if timestamp_ms > 0 else 0
        before = self._last.pop(short, None)
        self._last[short] = offset << _TIME_BITS | time
        if self._sweep_at is None:
            self._sweep_at = offset + self._records + self._sweep_every
        elif offset >= self._sweep_at:
            self._sweep(offset, time)
        if before is None:
            return False
        near = offset - (before >> _TIME_BITS) <= self._records
        return near and time - (before & _TIME_MASK) <= self._milliseconds

    def _sweep(self, offset: int, time: int) -> None:
        """Remove ids that no later record can repeat. Dicts keep the order of insertion, so the oldest come first."""
        end = (offset - self._records) << _TIME_BITS
        gone = []
        for short, last in self._last.items():
            if last >= end:
                break
            gone.append(short)
            self._cuts += time - (last & _TIME_MASK) <= self._milliseconds
        for short in gone:
            del self._last[short]
        self._sweep_at = offset + self._sweep_every

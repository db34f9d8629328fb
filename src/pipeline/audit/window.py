"""Which event ids were appended lately."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice


class KnownIds:
    """Ids of one partition, forgotten by age, and by number where there are too many.

    Memory is about 120 bytes an id. An id that was forgotten is appended a second time if its event comes again.

    Args:
        window: Age at which ids are forgotten.
        most: Number of ids that are kept at most.
    """

    def __init__(self, window: timedelta, most: int) -> None:
        """Begin empty."""
        self._window = window
        self._most = most
        self._ids: dict[bytes, None] = {}
        self._groups: deque[tuple[datetime, int]] = deque()

    def __contains__(self, event_id: str) -> bool:
        return _short(event_id) in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, ids: Sequence[str], at: datetime) -> int:
        """Remember ids that were appended at a time, not earlier than those before.

        Returns:
            How many younger ones than the window had to be forgotten, since there are too many.
        """
        before = len(self._ids)
        self._ids.update(dict.fromkeys(map(_short, ids)))
        self._groups.append((at, len(self._ids) - before))
        while self._groups[0][0] < at - self._window:
            self._forget(self._groups.popleft()[1])
        return self._cut(len(self._ids) - self._most)

    def _cut(self, surplus: int) -> int:
        left = surplus
        while left > 0:
            at, count = self._groups.popleft()
            if count > left:
                self._groups.appendleft((at, count - left))
            self._forget(min(count, left))
            left -= count
        return max(0, surplus)

    def _forget(self, count: int) -> None:
        # a dict keeps the order of insertion: the first ones are the oldest
        for short in list(islice(self._ids, count)):
            del self._ids[short]


def _short(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()

"""What was asked of the object store, and what it answered."""

from __future__ import annotations

from collections import Counter
from typing import Final

DROPPED: Final = 0
"""Stands for the status of an answer that was never sent, or not to its end."""


class Traffic:
    """Counters; they grow with the number of objects, not of requests or bytes.

    Attributes:
        requests: Number of answers by (method, key, status); status 0 is a connection that ended early.
        rewritten: Number of requests by key whose query string is not encoded as it was handed out.
        sent: Body bytes that went out, by key.
        received: Body bytes that came in, by key.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.rewritten: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()

    def answered(self, method: str, key: str, status: int) -> None:
        """Count one answer."""
        self.requests[method, key, status] += 1

    def round_trips(self, key: str, method: str | None = None) -> int:
        """Return how often an object was asked for, whatever the answer."""
        return sum(
            number for (verb, name, _), number in self.requests.items() if name == key and method in {None, verb}
        )

    def rows(self) -> list[dict[str, object]]:
        """Return the answers as rows for the control API."""
        return [
            {"method": method, "key": key, "status": status, "count": number}
            for (method, key, status), number in sorted(self.requests.items())
        ]

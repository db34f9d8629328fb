"""Errors that a handler raises to decide what happens to an event."""

from __future__ import annotations


class Retry(Exception):
    """Retry this event later. Like every other exception, it uses up one attempt.

    Args:
        message: The reason, for the log and the dead letter. It must not contain data of the event.
        retry_after: Seconds to wait, at least ``retry.first_seconds``. By default the pause grows with each attempt.
    """

    def __init__(
        self, message: str = "the handler asks for another attempt", *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Poison(Exception):
    """Dead-letter this event immediately, because no retry can succeed.

    Args:
        message: The reason, for the log and the dead letter. It must not contain data of the event.
    """

"""What a handler raises to say what is to be done with an event."""

from __future__ import annotations


class Retry(Exception):
    """Handle this event again later. It counts as an attempt, as every other exception does.

    Args:
        message: Why, for the log and the dead letter: free of what the event holds.
        retry_after: Seconds to wait, never less than ``retry.first_seconds``; by default the pause grows from attempt
            to attempt.
    """

    def __init__(
        self, message: str = "the handler asks for another attempt", *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Poison(Exception):
    """This event can never be handled: put it into the group's dead-letter topic at once.

    Args:
        message: Why, for the log and the dead letter: free of what the event holds.
    """

"""Calls the handler of a record, and translates its errors."""

from __future__ import annotations

import traceback
from pathlib import PurePath

from pipeline.contracts import Record
from pipeline.errors import FatalError, PermanentError, PipelineError, TransientError
from pipeline.plugins import is_cancellation
from pipeline.subscriber.errors import Poison, Retry
from pipeline.subscriber.event import event_of_record
from pipeline.subscriber.handlers import Handlers
from pipeline.subscriber.stream import Left


class HandlerCall:
    """Decodes a record and awaits its handler.

    Args:
        handlers: The handlers by event type.
        max_tries: Number of calls for one event before it is dead-lettered.
        max_dead_letters: Allowed number of dead letters in a row; None: any number.
    """

    def __init__(self, handlers: Handlers, *, max_tries: int, max_dead_letters: int | None = None) -> None:
        self._handlers = handlers
        self._max_tries = max_tries
        self._max_dead_letters = max_dead_letters
        self._given_up = 0

    async def __call__(self, record: Record) -> None:
        """Handle a record.

        Raises:
            TransientError: The record must be retried.
            PermanentError: The record must be dead-lettered.
            FatalError: The handler raised it; or too many records in a row failed, so the fault is not in the records.
            Left: The program left the ``async for`` loop that was handling the event.
        """
        try:
            event = event_of_record(record, self._handlers.models)
            handler = self._handlers.find(event.type)
            if handler is not None:
                try:
                    await handler(event)
                except BaseException as error:
                    # a panic of a Rust extension is not an Exception; an awaited task may be cancelled on its own
                    meant = self._meant(record, error)
                    if meant is None:
                        raise
                    raise meant from error
        except PermanentError as error:
            self._given_up += 1
            if self._max_dead_letters is not None and self._given_up > self._max_dead_letters:
                raise FatalError(
                    "dead_letters_in_a_row",
                    f"{self._given_up} events in a row could not be handled, the last for {error.code}: the handler "
                    "or what it needs is at fault. This event is not given up; fix that, or raise max_dead_letters.",
                ) from error
            raise
        self._given_up = 0

    def _meant(self, record: Record, error: BaseException) -> PipelineError | None:
        """Translate an error of a handler; return None if it must be raised unchanged."""
        # the process belongs to the subscriber, which may end it
        if isinstance(error, FatalError | Left | SystemExit | KeyboardInterrupt):
            return None
        if isinstance(error, Poison):
            return PermanentError("handler_poison", str(error) or "The handler says that it is poison.")
        if isinstance(error, Retry):
            return self._again(record, "handler_retry", str(error), error.retry_after)
        if is_cancellation(error):
            return None
        return self._again(record, "handler_failed", _described(error), None)

    def _again(self, record: Record, code: str, message: str, retry_after: float | None) -> PipelineError:
        if record.attempt >= self._max_tries:
            return PermanentError("attempts_exhausted", f"Attempt {record.attempt} was the last: {message}")
        return TransientError(code, message, retry_after=retry_after)


def _described(error: BaseException) -> str:
    """Return the class of an error and its line. Leaves out its text, which may contain data of the event."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"

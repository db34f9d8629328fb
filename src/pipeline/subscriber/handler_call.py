"""Calling a handler with a record, and what its errors mean."""

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
        handlers: What to call.
        max_tries: How often one event is tried before it is given up.
        max_dead_letters: How many events in a row may be given up; None: any number.
    """

    def __init__(self, handlers: Handlers, *, max_tries: int, max_dead_letters: int | None = None) -> None:
        self._handlers = handlers
        self._max_tries = max_tries
        self._max_dead_letters = max_dead_letters
        self._given_up = 0

    async def __call__(self, record: Record) -> None:
        """Handle a record.

        Raises:
            TransientError: It must be tried again.
            PermanentError: It belongs into the dead-letter topic.
            FatalError: As the handler raised it; or too many in a row belong there: it is not them that are at fault.
            Left: The loop that handled it was left.
        """
        try:
            event = event_of_record(record, self._handlers.models)
            handler = self._handlers.find(event.type)
            if handler is not None:
                try:
                    await handler(event)
                except BaseException as error:
                    # the panic of a Rust extension is no Exception; an awaited task may be cancelled without us
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
        """Return what an error of a handler means, or None: it is to be raised as it is."""
        # the process is the subscriber's own, and so is its end
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
    """Return the kind of an error and where it came from; its text may hold what the event holds."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"

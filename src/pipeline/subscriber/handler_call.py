"""Calling a handler with a record, and what its errors mean."""

from __future__ import annotations

import traceback
from pathlib import PurePath
from typing import NoReturn

from pipeline.contracts import Record
from pipeline.errors import FatalError, PermanentError, TransientError
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
            await self._handled(record)
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

    async def _handled(self, record: Record) -> None:
        event = event_of_record(record, self._handlers.models)
        handler = self._handlers.find(event.type)
        if handler is None:
            return
        try:
            await handler(event)
        except (FatalError, Left):
            raise
        except Poison as error:
            raise PermanentError("handler_poison", str(error) or "The handler says that it is poison.") from error
        except Retry as error:
            self._again(record, "handler_retry", str(error), error, error.retry_after)
        except (SystemExit, KeyboardInterrupt):
            raise  # the process is the subscriber's own, and so is its end
        except BaseException as error:
            # the panic of a Rust extension is no Exception; an awaited task may be cancelled without us
            if is_cancellation(error):
                raise
            self._again(record, "handler_failed", _described(error), error, None)

    def _again(
        self, record: Record, code: str, message: str, error: BaseException, retry_after: float | None
    ) -> NoReturn:
        if record.attempt >= self._max_tries:
            raise PermanentError("attempts_exhausted", f"Attempt {record.attempt} was the last: {message}") from error
        raise TransientError(code, message, retry_after=retry_after) from error


def _described(error: BaseException) -> str:
    """Return the kind of an error and where it came from; its text may hold what the event holds."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"

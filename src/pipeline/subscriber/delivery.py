"""Calling a handler with a record, and what its errors mean."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import PurePath
from typing import NoReturn

from pipeline.bus import Record
from pipeline.errors import FatalError, PermanentError, TransientError
from pipeline.subscriber.errors import Poison, Retry
from pipeline.subscriber.event import event_of_record
from pipeline.subscriber.handlers import Handlers
from pipeline.subscriber.stream import Left


class Delivery:
    """Decodes a record and awaits its handler.

    Args:
        handlers: What to call.
        max_attempts: How often one event is tried before it is given up.
    """

    def __init__(self, handlers: Handlers, *, max_attempts: int) -> None:
        self._handlers = handlers
        self._max_attempts = max_attempts

    async def __call__(self, record: Record) -> None:
        """Handle a record.

        Raises:
            TransientError: It must be tried again.
            PermanentError: It belongs into the dead-letter topic.
            FatalError: As the handler raised it.
            Left: The loop that handled it was left.
        """
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
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # nobody cancelled us: something that the handler awaited was
            self._again(record, "handler_failed", _described(error), error, None)
        except Exception as error:
            self._again(record, "handler_failed", _described(error), error, None)
            raise  # never comes here

    def _again(
        self, record: Record, code: str, message: str, error: BaseException, retry_after: float | None
    ) -> NoReturn:
        if record.attempt >= self._max_attempts:
            raise PermanentError("attempts_exhausted", f"Attempt {record.attempt} was the last: {message}") from error
        raise TransientError(code, message, retry_after=retry_after) from error


def _described(error: BaseException) -> str:
    """Return the kind of an error and where it came from; its text may hold what the event holds."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
    return f"{type(error).__name__}{where}"

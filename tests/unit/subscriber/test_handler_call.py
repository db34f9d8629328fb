from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.loud_processors import PanicException

from pipeline.contracts import Record
from pipeline.errors import FatalError, PermanentError, PipelineError, TransientError
from pipeline.subscriber import Event, Poison, Retry
from pipeline.subscriber.handler_call import HandlerCall
from pipeline.subscriber.handlers import Handlers


def raising(error: BaseException) -> Callable[[Event[Any]], Awaitable[None]]:
    async def handler(_event: Event[Any]) -> None:
        raise error

    return handler


async def outcome(handler: Callable[[Event[Any]], Awaitable[None]], attempt: int = 1) -> PipelineError | None:
    """What becomes of an event that this handler gets; three attempts are the most."""
    handlers = Handlers()
    handlers.add("acme.fee", handler, None)
    record = Record("t", 0, 0, "k", b"", (("ce_id", b"1"), ("ce_type", b"acme.fee")), 0, attempt)
    try:
        await HandlerCall(handlers, max_tries=3)(record)
    except PipelineError as error:
        return error
    return None


async def test_a_handler_that_returns_is_done() -> None:
    async def handler(_event: Event[Any]) -> None:
        pass

    assert await outcome(handler) is None


async def test_whatever_a_handler_raises_is_an_attempt() -> None:
    """The reason names the error's kind and place, never its text."""
    error = await outcome(raising(ValueError("card 4111")))
    assert isinstance(error, TransientError)
    assert (error.code, error.retry_after) == ("handler_failed", None)
    assert error.message.startswith("ValueError at test_handler_call.py:")
    assert error.message.endswith(", in handler")


@pytest.mark.parametrize("failure", [ValueError("x"), Retry("away"), TransientError("store", "away")])
async def test_the_last_attempt_ends_in_the_dead_letters(failure: Exception) -> None:
    assert isinstance(await outcome(raising(failure), attempt=2), TransientError)
    error = await outcome(raising(failure), attempt=3)
    assert isinstance(error, PermanentError)
    assert error.code == "attempts_exhausted"


async def test_a_wish_for_a_pause_is_carried_on() -> None:
    error = await outcome(raising(Retry("the bank is closed", retry_after=7.5)))
    assert isinstance(error, TransientError)
    assert (error.code, error.message, error.retry_after) == ("handler_retry", "the bank is closed", 7.5)


async def test_poison_goes_to_the_dead_letters_at_once() -> None:
    error = await outcome(raising(Poison("no such programme")))
    assert isinstance(error, PermanentError)
    assert (error.code, error.message) == ("handler_poison", "no such programme")


async def test_poison_without_a_word_has_a_reason_all_the_same() -> None:
    error = await outcome(raising(Poison()))
    assert error is not None
    assert error.message == "The handler says that it is poison."


async def test_what_stops_a_process_passes_through() -> None:
    fatal = FatalError("no_disk", "full")
    assert await outcome(raising(fatal), attempt=3) is fatal


async def test_a_cancellation_that_nobody_asked_for_is_an_attempt() -> None:
    """Something that the handler awaited was cancelled; a worker that ended with it would hang the partition."""

    async def handler(_event: Event[Any]) -> None:
        inner = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        inner.cancel()
        await inner

    error = await outcome(handler)
    assert isinstance(error, TransientError)
    assert error.message.startswith("CancelledError")


async def test_a_cancellation_from_outside_is_one() -> None:
    begun = asyncio.Event()

    async def handler(_event: Event[Any]) -> None:
        begun.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(outcome(handler))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_when_everything_fails_the_subscriber_ends_and_the_event_stays() -> None:
    """An event that is handled in between shows that the handler works."""
    broken = True

    async def handler(_event: Event[Any]) -> None:
        if broken:
            raise Poison("no such column")

    handlers = Handlers()
    handlers.add("acme.fee", handler, None)
    record = Record("t", 0, 0, "k", b"", (("ce_id", b"1"), ("ce_type", b"acme.fee")), 0)
    call = HandlerCall(handlers, max_tries=3, max_dead_letters=2)

    async def given_up(times: int) -> None:
        for _ in range(times):
            with pytest.raises(PermanentError, match="handler_poison"):
                await call(record)

    await given_up(2)
    broken = False
    await call(record)
    broken = True
    await given_up(2)
    with pytest.raises(FatalError, match=r"dead_letters_in_a_row: 3 events in a row .* the last for handler_poison"):
        await call(record)


async def test_the_panic_of_an_extension_is_retried_and_the_end_of_the_process_is_not() -> None:
    """A subscriber's process is its own: what it raises to end it passes."""
    error = await outcome(raising(PanicException("planted")))
    assert isinstance(error, TransientError)
    assert error.message.startswith("PanicException at test_handler_call.py:")
    with pytest.raises(SystemExit):
        await outcome(raising(SystemExit(3)))

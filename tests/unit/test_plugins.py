"""Foreign code may raise anything: what is kept of it, and what passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

import pytest
from support.loud_processors import LOUD, Leak, shout

from pipeline.plugins import Fault, PluginFailed, contained, contained_call, fault_of

SECRET: Final = "4111111111111111"


def fault_from(call: Callable[[], object]) -> Fault:
    with pytest.raises(PluginFailed) as caught:
        contained_call(call, PluginFailed)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value.fault


@pytest.mark.parametrize("way", list(LOUD))
def test_class_file_and_line_are_kept_and_the_text_is_not(way: str) -> None:
    fault = fault_from(lambda: shout(way, SECRET))
    assert fault.kind == LOUD[way].__name__
    assert fault.where.startswith("support/loud_processors.py:") or fault.where.startswith("unit/test_plugins.py:")
    assert SECRET not in f"{fault} {fault!r} {fault.lines} {list(fault.traceback())}"


def test_the_line_named_is_the_plug_ins_own_not_that_of_a_library_it_calls() -> None:
    def parse() -> object:
        return asyncio.run("no coroutine")  # type: ignore[arg-type]

    fault = fault_from(parse)
    assert fault.where.startswith("unit/test_plugins.py:")
    assert fault.frames[-1].package == "asyncio"


def test_a_traceback_shows_code_and_causes_without_values() -> None:
    lines = list(fault_from(lambda: shout("chain", SECRET)).traceback())
    assert lines[0] == "Traceback (most recent call last), without values:"
    assert "    raise loud from error" in lines
    assert lines.index("Leak") < lines.index("from") < lines.index("ValueError")


def test_of_many_frames_the_first_and_the_last_are_kept() -> None:
    fault = fault_from(lambda: shout("recursion", SECRET))
    assert len(fault.frames) == 30
    assert fault.frames[0].function == "<lambda>"
    assert fault.frames[-1].function == "shout"


def test_causes_that_cause_each_other_end() -> None:
    one, other = Leak(1), Leak(2)
    one.__cause__, other.__cause__ = other, one
    assert len(fault_of(one).causes) == 1


def test_a_class_named_after_a_card_is_not_named() -> None:
    def raise_it() -> NoReturn:
        raise type(SECRET, (Exception,), {})

    assert fault_from(raise_it).kind == "an exception"


async def test_a_cancellation_passes_and_one_that_nobody_asked_for_is_contained() -> None:
    async def wait() -> None:
        await asyncio.sleep(10)

    task = asyncio.create_task(contained(wait, PluginFailed))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def cancelled() -> None:
        other = asyncio.create_task(wait())
        await asyncio.sleep(0)
        other.cancel()
        await other

    with pytest.raises(PluginFailed, match="CancelledError"):
        await contained(cancelled, PluginFailed)


async def test_a_closed_coroutine_ends_quietly() -> None:
    """As the interpreter closes one that was never finished."""

    async def wait() -> None:
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    work = contained(wait, PluginFailed)
    work.send(None)
    closed = loop.create_future()

    def close() -> None:  # a callback of the loop runs in no task
        work.close()
        closed.set_result(None)

    loop.call_soon(close)
    await closed


@pytest.mark.parametrize("way", ["exit", "interrupt"])
async def test_a_task_that_a_plug_in_starts_does_not_end_the_loop(way: str) -> None:
    async def leave() -> None:
        shout(way, SECRET)

    async def start() -> None:
        await asyncio.gather(leave(), asyncio.sleep(0))

    with pytest.raises(PluginFailed) as caught:
        await contained(start, PluginFailed)
    assert caught.value.fault.kind == LOUD[way].__name__
    assert caught.value.fault.where.startswith("unit/test_plugins.py:")


async def test_what_is_expected_passes_as_it_is() -> None:
    error = Leak("x")

    async def fail() -> None:
        raise error

    with pytest.raises(Leak) as caught:
        await contained(fail, PluginFailed, Leak)
    assert caught.value is error

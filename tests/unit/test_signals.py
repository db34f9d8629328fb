"""SIGTERM and SIGINT, once and twice."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from pipeline.signals import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_asks_for_a_stop(number: signal.Signals) -> None:
    stop = asyncio.Event()
    with stop_on_signals(stop.set):
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), 5)


async def test_a_second_signal_is_python_s_own_again() -> None:
    """The process ends at once."""
    stop = asyncio.Event()
    with stop_on_signals(stop.set):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 5)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_afterwards_the_signals_are_nobodys() -> None:
    with stop_on_signals(lambda: None):
        pass
    loop = asyncio.get_running_loop()
    assert [loop.remove_signal_handler(number) for number in (signal.SIGTERM, signal.SIGINT)] == [False, False]

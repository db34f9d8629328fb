"""SIGTERM and SIGINT ask for a graceful stop, for as long as a subscriber runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first signal; a second one falls back to Python's own handling, for the impatient.

    Afterwards Python handles the signals itself.
    """
    loop = asyncio.get_running_loop()

    def asked(number: signal.Signals) -> None:
        log.info("stop_asked_for", signal=number.name)
        stop()
        for one in _SIGNALS:
            loop.remove_signal_handler(one)

    for number in _SIGNALS:
        loop.add_signal_handler(number, asked, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

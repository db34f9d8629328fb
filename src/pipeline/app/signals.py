"""SIGTERM and SIGINT as an event, for as long as a server runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """Give an event that SIGTERM or SIGINT sets; afterwards the signals do what they did before.

    The first signal asks for a graceful stop. A second one falls back to Python's own handling, for the impatient.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(number: signal.Signals) -> None:
        log.info("stop_asked_for", signal=number.name)
        stop.set()
        for one in _SIGNALS:
            loop.remove_signal_handler(one)

    for number in _SIGNALS:
        loop.add_signal_handler(number, asked, number)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

"""SIGTERM and SIGINT ask a process to stop in an orderly way."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pipeline.observability import get_logger

log = get_logger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first SIGTERM or SIGINT within the block.

    A second signal falls back to Python's own handling, so that it ends the process at once. After the block Python
    handles both signals itself.
    """
    loop = asyncio.get_running_loop()

    def stop_once(number: signal.Signals) -> None:
        log.info("stop_asked_for", signal=number.name)
        stop()
        for one in _SIGNALS:
            loop.remove_signal_handler(one)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop_once, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

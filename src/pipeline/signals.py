"""Lets SIGTERM and SIGINT stop a process in an orderly way, also as the first process of a container.

The command imports this module first, so it imports nothing slow.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_FIRST_PROCESS: Final = 1


def end_on_sigterm() -> None:
    """Let SIGTERM end this process even if it is process 1, like the command of a container.

    The kernel drops a signal for which process 1 has no handler. A container that is stopped during its start would
    then run until it is killed. Any other process ends by SIGTERM anyway. An existing handler stays.
    """
    if os.getpid() == _FIRST_PROCESS and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    # like the signal itself: at once, whatever is running, and with the exit code that a shell shows for it
    os._exit(128 + number)


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first SIGTERM or SIGINT within the block.

    A second signal ends the process at once; a second SIGINT raises KeyboardInterrupt. So do signals after the block.
    """
    import asyncio  # noqa: PLC0415 - see above

    from pipeline.observability import get_logger  # noqa: PLC0415 - see above

    loop = asyncio.get_running_loop()
    log = get_logger(__name__)

    def stop_once(number: signal.Signals) -> None:
        log.info("stop_asked_for", signal=number.name)
        stop()
        _release(loop)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop_once, number)
    try:
        yield
    finally:
        _release(loop)


def _release(loop: asyncio.AbstractEventLoop) -> None:
    """Restore Python's handling of both signals."""
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
    end_on_sigterm()

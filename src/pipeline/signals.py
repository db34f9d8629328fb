"""SIGTERM and SIGINT ask a process to stop in an orderly way, also as the first process of a container.

The command imports this module before everything else, so it imports nothing slow itself.
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
    """Let SIGTERM end this process even if it is process 1, as the command of a container is.

    The kernel drops a signal that process 1 has no handler for: a container that is stopped while it starts would run
    on until it is killed. Any other process ends by SIGTERM anyway, and an existing handler stays.
    """
    if os.getpid() == _FIRST_PROCESS and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    # as the signal itself would: at once, whatever runs; a shell shows the same code for a process that it ended
    os._exit(128 + number)


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first SIGTERM or SIGINT within the block.

    A second signal ends the process at once: SIGINT as a KeyboardInterrupt. The same is true of signals after the
    block.
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
    """Give both signals back to Python."""
    for number in _SIGNALS:
        loop.remove_signal_handler(number)
    end_on_sigterm()

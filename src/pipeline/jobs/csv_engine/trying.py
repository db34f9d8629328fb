"""Tries, pauses between them, and what a processor may not do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pipeline.errors import PermanentError
from pipeline.jobs.processors.protocols import TransientCardError
from pipeline.jobs.processors.settings import ProcessorSettings


class Tries:
    """How often something is tried, and how long is waited in between.

    Args:
        settings: Tries and pauses.
        pause: Waits the given seconds.
    """

    def __init__(self, settings: ProcessorSettings, pause: Callable[[float], Awaitable[object]]) -> None:
        self.settings = settings
        self._pause = pause

    async def wait(self, failures: int, error: TransientCardError) -> bool:
        """Wait after so many failures (from 1); return whether there is another try.

        The other side's wish for a longer pause is granted up to the limit. A shorter one changes nothing: it would
        only use up the tries sooner.
        """
        retry = self.settings.retry
        if failures >= retry.max_tries:
            return False
        await self._pause(max(retry.policy.pause(failures), min(error.retry_after or 0.0, retry.max_seconds)))
        return True

    def given_up(self, error: TransientCardError) -> str:
        """Return the message of a card that failed for good after its last try."""
        return f"{str(error) or 'no answer'} (after {self.settings.retry.max_tries} attempts)"


def misbehaved(settings: ProcessorSettings, what: str) -> PermanentError:
    """Return the error for a processor that broke its contract; ``what`` is free of card data."""
    return PermanentError("processor_failed", f"Processor {settings.name} {what}.")

"""Attempts, pauses between them, and what a processor may not do."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from pipeline.errors import PermanentError
from pipeline.jobs.processors.protocols import TransientCardError
from pipeline.jobs.processors.settings import ProcessorSettings


class Tries:
    """How often something is tried, and how long is waited in between.

    Args:
        settings: Attempts and pauses.
        pause: Waits the given seconds.
    """

    def __init__(self, settings: ProcessorSettings, pause: Callable[[float], Awaitable[object]]) -> None:
        self.settings = settings
        self._pause = pause

    async def wait(self, attempt: int, error: TransientCardError) -> bool:
        """Wait after the failed ``attempt`` (from 1); return whether there is another.

        The pause doubles with every attempt and is drawn from its upper half, so that cards that failed together do not
        come back together. The other side's wish for a longer one is granted up to the limit.
        """
        if attempt >= self.settings.attempts:
            return False
        longest = self.settings.backoff_limit_seconds
        pause = min(self.settings.backoff_seconds * 2 ** (attempt - 1), longest) * random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
        await self._pause(max(pause, min(error.retry_after or 0.0, longest)))
        return True

    def given_up(self, error: TransientCardError) -> str:
        """Return the message of a card that failed for good after its last attempt."""
        return f"{str(error) or 'no answer'} (after {self.settings.attempts} attempts)"


def misbehaved(settings: ProcessorSettings, what: str) -> PermanentError:
    """Return the error for a processor that broke its contract; ``what`` is free of card data."""
    return PermanentError("processor_failed", f"Processor {settings.name} {what}.")

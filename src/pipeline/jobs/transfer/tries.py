"""Trying again within one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from pipeline.errors import PermanentError, TransientError
from pipeline.jobs.transfer.failures import Direction, NotFound
from pipeline.jobs.transfer.protocols import SignedUrl, UrlSource
from pipeline.jobs.transfer.settings import TransferSettings
from pipeline.observability import Metrics

log = structlog.get_logger(__name__)


class Tries:
    """Counts failed tries within one call, and waits between them."""

    def __init__(
        self, settings: TransferSettings, direction: Direction, clock: Callable[[], datetime], metrics: Metrics | None
    ) -> None:
        self._retry = settings.retry
        self._max_not_found_tries = settings.max_not_found_tries
        self._direction = direction
        self._clock = clock
        self._metrics = metrics
        self._failed = 0
        self._not_found = 0

    def progressed(self) -> None:
        """Forget failures: enough was done since the last one."""
        self._failed = 0

    async def after(self, failure: TransientError, deadline: datetime) -> None:
        """Wait before the next try.

        Raises:
            TransientError: ``failure``: the tries are used up, or a longer pause is asked for than a call makes.
            SourceRefused: The object is still not there.
        """
        self._failed += 1
        if isinstance(failure, NotFound):
            self._not_found += 1
            if self._not_found >= self._max_not_found_tries:
                raise self._direction.refused(failure.code, failure.message)
        elif self._failed - self._not_found >= self._retry.max_tries:
            raise failure
        if failure.retry_after is not None and failure.retry_after > self._retry.max_seconds:
            raise failure
        pause = self._retry.policy.pause(self._failed, failure.retry_after)
        pause = min(pause, max(0.0, (deadline - self._clock()).total_seconds()))
        log.warning(
            "transfer_repeated",
            direction=self._direction.name,
            code=failure.code,
            tries=self._failed,
            pause=round(pause, 3),
        )
        if self._metrics is not None:
            self._metrics.transfer_retries.labels(self._direction.name, failure.code).inc()
        await asyncio.sleep(pause)


async def renewed(source: UrlSource, used: SignedUrl) -> bool:
    """Say whether a newer announcement brought another URL than the one just refused."""
    return (await source()).url != used.url


def as_transient(refused: PermanentError) -> TransientError:
    """Return a refusal of an old URL as a reason to try the new one."""
    return TransientError(refused.code, refused.message)

"""Calling a handler until it is done, without holding a slot while waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import structlog

from pipeline.contracts import Record
from pipeline.errors import LeaseLost, Overloaded, PipelineError, TransientError
from pipeline.kafka._lease import Tenure
from pipeline.kafka.settings import ConsumerSettings
from pipeline.observability import Metrics

log = structlog.get_logger(__name__)


class Attempts:
    """Repeats calls as their errors ask for. One per partition.

    Args:
        changed: Called whenever a call ended.
    """

    def __init__(
        self, *, group: str, settings: ConsumerSettings, metrics: Metrics, lease: Tenure, changed: Callable[[], None]
    ) -> None:
        self._group = group
        self._retry = settings.retry.policy
        self._metrics = metrics
        self._lease = lease
        self._changed = changed
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def close(self) -> None:
        """Begin no call any more; those that run may finish."""
        self._closed = True

    @property
    def running(self) -> set[asyncio.Task[None]]:
        """The tasks that are inside a call now."""
        return self._running

    async def until_done(
        self,
        call: Callable[[int], Awaitable[None]],
        slot: Callable[[], AbstractAsyncContextManager[None]],
        record: Record | None = None,
    ) -> None:
        """Await ``call(attempt)`` in a slot until it returns.

        Args:
            call: What to do.
            slot: Entered for each call, never held while waiting.
            record: What the call is about (the first of a batch), for the log.

        Raises:
            LeaseLost: The partition is lost, or the process stops.
            PermanentError, FatalError, and whatever the call did not expect.
        """
        attempt = 1
        while True:
            try:
                await self._ensure()
                async with slot():
                    await self._ensure()
                    await self._called(call, attempt)
            except TransientError as error:
                pause = self._retry.pause(attempt, error.retry_after)
                attempt += 1
                self._note(error, attempt, pause, record)
            except Overloaded as error:
                pause = self._retry.pause(1)
                self._note(error, attempt, pause, record)
            except LeaseLost as error:
                # another worker decided something first, yet the partition is ours: look again at what stands now
                if self._lease.lost or self._closed:
                    raise
                pause = self._retry.pause(1)
                self._note(error, attempt, pause, record)
            else:
                return
            await asyncio.sleep(pause)

    async def _ensure(self) -> None:
        await self._lease.ensure()
        if self._closed:
            raise LeaseLost("stopping", "The process stops; the record will be handled after its next start.")

    async def _called(self, call: Callable[[int], Awaitable[None]], attempt: int) -> None:
        task = asyncio.current_task()
        if task:
            self._running.add(task)
        started = time.perf_counter()
        try:
            await call(attempt)
        finally:
            self._metrics.consumer_handle_seconds.labels(stage=self._group).observe(time.perf_counter() - started)
            if task:
                self._running.discard(task)
            self._changed()

    def _note(self, error: PipelineError, attempt: int, pause: float, record: Record | None) -> None:
        note_put_off(self._metrics, self._group, error, attempt=attempt, pause=pause, record=record)


def note_put_off(
    metrics: Metrics, group: str, error: PipelineError, *, attempt: int, pause: float, record: Record | None
) -> None:
    """Count and log that work will be tried again."""
    metrics.consumer_retries.labels(stage=group, code=error.code).inc()
    place = {}
    if record is not None:
        # the key is the job: who asks why a job hangs looks for it in the log
        place = {"topic": record.topic, "partition": record.partition, "offset": record.offset, "key": record.key}
    log.warning(
        "work_put_off",
        group=group,
        code=error.code,
        message=error.message,
        try_number=attempt,
        seconds=round(pause, 3),
        **place,
    )

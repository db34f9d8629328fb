"""Publishes parked jobs to their topics again when they are due."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final

import structlog

from pipeline.contracts import (
    RETRY_ATTEMPT_HEADER,
    RETRY_CODE_HEADER,
    RETRY_COUNT_HEADER,
    RETRY_DEADLINE_HEADER,
    RETRY_FIRST_AT_HEADER,
    RETRY_GROUP_HEADER,
    OutgoingRecord,
    first_values,
)
from pipeline.errors import FatalError, Overloaded, PipelineError, TransientError
from pipeline.jobs.job_tree import WaitingMarker
from pipeline.jobs.parking import CALLS_AT_ONCE, Parking, at_once
from pipeline.jobs.receipts import Waiting
from pipeline.jobs.stage import StageContext, job_in_logs
from pipeline.observability import trace_in_logs
from pipeline.plugins import fault_of

log = structlog.get_logger(__name__)

_RETRY_HEADERS: Final = frozenset(
    {
        RETRY_GROUP_HEADER,
        RETRY_COUNT_HEADER,
        RETRY_FIRST_AT_HEADER,
        RETRY_CODE_HEADER,
        RETRY_ATTEMPT_HEADER,
        RETRY_DEADLINE_HEADER,
    }
)
_LEFT_TO_OTHERS_SECONDS: Final = 30.0
"""How long other watches leave a due job to the owner of its partition. After that, any of them publishes it."""
_COUNT_EVERY_SECONDS: Final = 30.0
"""Only metrics need a full listing of the parked jobs."""


class DueJobs:
    """Publishes parked jobs to their topics again when they are due. It runs beside the deadline watch.

    It publishes up to 16 at the same time, and then removes their markers by one request. Several may run. Each takes
    the jobs of its partitions; so usually one publishes a job. If two do, or one dies between the publications and the
    removal of the markers, the second copies find the receipts of the first ones.
    A job of an integration that the settings lack stays parked until a process with other settings runs.

    Args:
        context: Dependencies of the deadline watch.
        parking: Knows the parked jobs.
        integrations: Names of the configured integrations that have jobs.
        owns: Returns whether this member has a partition, by its number in ``card-batch.requested``. Every topic of
            jobs is partitioned by the same key; where the numbers of partitions differ, a job may have no owner.
        interval: Seconds between two looks.
    """

    def __init__(
        self,
        context: StageContext,
        parking: Parking,
        integrations: Collection[str],
        *,
        owns: Callable[[int], bool],
        interval: float,
    ) -> None:
        self._context = context
        self._parking = parking
        self._integrations = integrations
        self._owns = owns
        self._interval = interval
        self._count_at = 0.0
        self._failing: set[str] = set()

    async def run(self) -> None:
        """Look for due jobs every ``interval`` seconds until cancelled; only a FatalError ends it."""
        while True:
            try:
                await self.poll()
                if time.monotonic() >= self._count_at:
                    await self.count()
                    self._count_at = time.monotonic() + _COUNT_EVERY_SECONDS
            except FatalError:
                raise
            except Exception as error:  # noqa: BLE001 - it must go on: without it, no job would be tried again
                log_failed_look(error)
            await asyncio.sleep(self._interval)

    async def poll(self) -> None:
        """Publish every parked job that is due.

        Jobs that failed in the last look come last, so that they hold up no others.

        Raises:
            TransientError, Overloaded: The store or the broker seems to be unavailable: several jobs failed.
        """
        failed: set[str] = set()
        try:
            await self._look(failed)
        except (TransientError, Overloaded):
            self._failing |= failed
            raise
        self._failing = failed

    async def _look(self, failed: set[str]) -> None:
        now = self._context.clock()
        some: list[WaitingMarker] = []
        later: list[WaitingMarker] = []
        async for marker in self._parking.parked():
            if marker.due > now:
                break
            if marker.ref.integration in self._integrations:
                (later if marker.key in self._failing else some).append(marker)
            if len(some) == CALLS_AT_ONCE:
                await self._publish_some(some, failed)
                some.clear()
        await self._publish_some(some, failed)
        self._failing &= {marker.key for marker in later}
        for start in range(0, len(later), CALLS_AT_ONCE):
            await self._publish_some(later[start : start + CALLS_AT_ONCE], failed)

    async def _publish_some(self, markers: Sequence[WaitingMarker], failed: set[str]) -> None:
        errors: list[TransientError | Overloaded] = []
        published: list[str] = []

        async def publish(marker: WaitingMarker) -> None:
            try:
                if await self._publish(marker):
                    published.append(marker.key)
            except (TransientError, Overloaded) as error:
                failed.add(marker.key)
                errors.append(error)

        await at_once(publish, markers)
        await self._context.jobs.objects.delete_all(published)
        if errors and not published:
            raise errors[0]

    async def count(self) -> None:
        """Set the metrics of parked jobs."""
        now, late = self._context.clock(), 0.0
        counts: Counter[tuple[str, str]] = Counter()
        async for marker in self._parking.parked():
            known = marker.ref.integration in self._integrations
            counts[marker.ref.integration if known else "unknown", marker.code] += 1
            if known:
                late = max(late, (now - marker.due).total_seconds())
        gauge = self._context.metrics.jobs_waiting
        gauge.clear()
        for (integration, code), number in counts.items():
            gauge.labels(integration=integration, code=code).set(number)
        self._context.metrics.parked_overdue_seconds.set(late)

    async def _publish(self, marker: WaitingMarker) -> bool:
        """Publish a due job; return whether it was published."""
        with job_in_logs(marker.ref):
            try:
                return await self._publish_receipt(marker)
            except (TransientError, Overloaded) as error:
                log.warning("parked_job_postponed", code=error.code, message=error.message)
                raise
            except Exception as error:  # noqa: BLE001 - one damaged job must not hold up the others
                code, message = (
                    (error.code, error.message) if isinstance(error, PipelineError) else (type(error).__name__, "")
                )
                log.error("parked_job_stuck", marker=marker.key, code=code, message=message)  # noqa: TRY400
                return False

    async def _publish_receipt(self, marker: WaitingMarker) -> bool:
        jobs = self._context.jobs
        waiting = await self._parking.receipt(marker)
        if waiting is None:
            # a lifecycle rule deleted the receipt, which is older than its marker: nothing is left to do
            log.warning("parked_job_forgotten", marker=marker.key)
            await jobs.unfile(marker.key)
            return False
        with trace_in_logs(first_values(waiting.headers).get("traceparent")):
            return await self._publish_waiting(marker, waiting)

    async def _publish_waiting(self, marker: WaitingMarker, waiting: Waiting) -> bool:
        late = (self._context.clock() - marker.due).total_seconds()
        if late < _LEFT_TO_OTHERS_SECONDS and not self._owns(waiting.partition):
            return False
        await self._context.publisher.publish(outgoing(waiting))
        log.info("job_resumed", stage=waiting.stage, code=waiting.code, waits=waiting.count)
        return True


def log_failed_look(error: Exception) -> None:
    """Log why a look at the store failed, without the text of an unexpected error: it may hold data of a job."""
    if isinstance(error, TransientError | Overloaded):
        log.warning("watch_postponed", code=error.code, message=error.message)
    else:
        fault = fault_of(error)
        log.error("watch_failed", error=fault.kind, frames=fault.lines)


def outgoing(waiting: Waiting) -> OutgoingRecord:
    """Return the record to publish when a wait is over: the original key, value and headers, for its group only."""
    retry = {
        RETRY_GROUP_HEADER: waiting.stage,
        RETRY_COUNT_HEADER: str(waiting.count),
        RETRY_FIRST_AT_HEADER: waiting.first_at.isoformat().replace("+00:00", "Z"),
        RETRY_CODE_HEADER: waiting.code,
    }
    if waiting.deadline is not None:
        retry[RETRY_ATTEMPT_HEADER] = str(waiting.attempt)
        retry[RETRY_DEADLINE_HEADER] = waiting.deadline.isoformat().replace("+00:00", "Z")
    kept = [(name, value) for name, value in waiting.headers if name not in _RETRY_HEADERS]
    added = [(name, value.encode()) for name, value in retry.items()]
    return OutgoingRecord(waiting.topic, waiting.key, waiting.value, (*kept, *added))

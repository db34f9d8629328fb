"""Parking: a job that cannot be done now waits in the job store, and holds up neither a slot nor a partition.

A receipt holds the record, a marker says when it is due. When both exist, the record's offset may be finished. The
deadline watch publishes the record to its topic again when it is due.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import structlog
from pydantic import ValidationError

from pipeline.contracts import (
    RETRY_CODE_HEADER,
    RETRY_COUNT_HEADER,
    RETRY_FIRST_AT_HEADER,
    RETRY_GROUP_HEADER,
    JobMessage,
    OutgoingRecord,
    Record,
    Topic,
    first_values,
    parse_job_key,
    stable_hash,
)
from pipeline.errors import Overloaded, PermanentError, PipelineError, TransientError, Untried
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import WAITING_MARKERS, JobRef, WaitingMarker, parse_waiting_marker
from pipeline.jobs.receipts import Waiting
from pipeline.jobs.stage import StageContext, job_in_logs
from pipeline.jobs.wording import shorten
from pipeline.observability import trace_in_logs
from pipeline.retry import RetryPolicy
from pipeline.storage import ObjectNotFound

log = structlog.get_logger(__name__)

T = TypeVar("T")

CALLS_AT_ONCE: Final = 16
"""Calls of the store and of the broker at the same time, when many jobs are resumed."""

_RETRY: Final = RetryPolicy(30.0, 900.0)
_MESSAGE_LIMIT: Final = 500
_RETRY_HEADERS: Final = frozenset({RETRY_GROUP_HEADER, RETRY_COUNT_HEADER, RETRY_FIRST_AT_HEADER, RETRY_CODE_HEADER})
_RECEIPT: Final = re.compile(r"(?P<record>[a-z]+-[0-9a-f]{16})-\d{4,9}\.json")
_NUMBER: Final = re.compile(r"[0-9]{1,8}")
_LEFT_TO_OTHERS_SECONDS: Final = 30.0
"""How long a due job is left to the watch that owns its partition. Then any watch publishes it."""
_COUNT_EVERY_SECONDS: Final = 30.0
"""A full listing of the parked jobs is for metrics only."""


class Parking:
    """Parks jobs, says what they wait for, and resumes them. It needs the store only, so commands can use it.

    Args:
        jobs: The job store.
        clock: Returns the time, in UTC.
        retry: How long a job waits, by the number of its waits.
        worker: Who parks, for operators; by default this host.
    """

    def __init__(
        self,
        jobs: JobStore,
        clock: Callable[[], datetime],
        retry: RetryPolicy = _RETRY,
        *,
        worker: str | None = None,
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._retry = retry
        self._worker = worker or socket.gethostname()

    async def park(
        self, record: Record, stage: str, error: TransientError, *, due: datetime | None = None
    ) -> Waiting | None:
        """Let a record wait; return its receipt, or None if its key is not that of a job. Safe to repeat and to race.

        When it returns a receipt, the record's offset may be finished. A copy of the record that parks again with the
        same count gets the receipt of the first one.

        Args:
            record: The record, as the stage read it.
            stage: The stage, which is also the name of its consumer group.
            error: Why the job cannot be done now.
            due: When to try it again. By default after a pause that grows with the number of waits, is at least as long
                as the error asks for, and otherwise at most half of the time that is left before the job's deadline.
        """
        job = parse_job_key(record.key)
        if job is None:
            return None
        ref = await self._ref(JobRef(*job), record)
        headers = first_values(record.headers)
        now, count = self._clock(), _number(headers.get(RETRY_COUNT_HEADER)) + 1
        wanted = Waiting(
            integration=ref.integration,
            job_guid=ref.job_guid,
            attempt=ref.attempt,
            stage=stage,
            record_id=stable_hash(headers.get("ce_id", ""), record.value)[:16],
            count=count,
            code=error.code,
            message=shorten(error.message, _MESSAGE_LIMIT),
            tries=record.attempt,
            first_at=_time(headers.get(RETRY_FIRST_AT_HEADER)) or now,
            at=now,
            due=_whole_second(due or now + timedelta(seconds=await self._pause(ref, stage, error, count, now))),
            worker=self._worker,
            topic=record.topic,
            partition=record.partition,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        existing = await self._jobs.record_waiting(wanted)
        # another copy of the record may be further already; then this wait is over
        if existing.nonce == wanted.nonce or not await self.receipt(replace(existing.marker, count=count + 1)):
            await self._jobs.file_waiting(existing.marker)
        return existing

    async def waiting(self, ref: JobRef) -> Waiting | None:
        """Return what a job waits for now, or None if it does not wait."""
        for one in sorted(await self._last_waits(ref), key=lambda one: one.at, reverse=True):
            if await self._filed(one.marker):
                return one
        return None

    async def receipt(self, marker: WaitingMarker) -> Waiting | None:
        """Return the receipt of a wait, or None if it was deleted."""
        return await self._jobs.receipt(marker.receipt, Waiting)

    async def parked(self) -> AsyncIterator[WaitingMarker]:
        """Yield the markers of all parked jobs, the earliest due first. A foreign object is passed over."""
        async for info in self._jobs.objects.list(WAITING_MARKERS):
            marker = parse_waiting_marker(info.key)
            if marker is not None:
                yield marker

    async def resume(self, target: JobRef | str, *, stage: str | None = None, code: str | None = None) -> int:
        """Make parked jobs due now; return how many records that concerns. Safe to repeat and to race.

        Args:
            target: One attempt of one job, or all jobs of an integration (its name).
            stage: Only what waits for this stage.
            code: Only what waits because of this error code.
        """
        now = self._clock()
        due = _whole_second(now - timedelta(seconds=1))
        found = [
            marker
            for marker in await self._markers(target)
            if stage in (None, marker.stage) and code in (None, marker.code) and marker.due > now
        ]

        async def move(marker: WaitingMarker) -> None:
            await self._jobs.file_waiting(replace(marker, due=due))
            await self._jobs.unfile(marker.key)

        await at_once(move, found)
        return len(found)

    async def drop(self, ref: JobRef) -> int:
        """Remove a job's attempt from the parked jobs, e.g. because it was cancelled; return how many waits ended."""
        if not await self._last_waits(ref):
            return 0  # most jobs never wait, and a listing of all parked jobs takes long
        found = [marker async for marker in self.parked() if marker.ref == ref]
        await at_once(lambda marker: self._jobs.unfile(marker.key), found)
        return len(found)

    async def _markers(self, target: JobRef | str) -> list[WaitingMarker]:
        if isinstance(target, JobRef):
            last = [one.marker for one in await self._last_waits(target)]
            return [marker for marker in last if await self._filed(marker)]
        return [marker async for marker in self.parked() if marker.ref.integration == target]

    async def _last_waits(self, ref: JobRef) -> list[Waiting]:
        """Return the last wait of each record of the attempt that ever waited."""
        last: dict[str, str] = {}
        async for info in self._jobs.objects.list(ref.waiting):
            match = _RECEIPT.fullmatch(info.key.removeprefix(ref.waiting))
            if match:
                last[match["record"]] = max(last.get(match["record"], ""), info.key, key=lambda key: (len(key), key))
        found = [await self._jobs.receipt(key, Waiting) for key in last.values()]
        return [one for one in found if one is not None]

    async def _ref(self, first: JobRef, record: Record) -> JobRef:
        if record.topic == Topic.BATCH_REQUESTED:
            announcement = first_values(record.headers).get("ce_id", "")[:16]
            try:
                stored = await self._jobs.all_announcements(first)
            except PermanentError:
                stored = []  # the job's data is damaged, which is perhaps why it waits
            attempt = next((one.attempt for one in stored if one.id == announcement), 1)
        else:
            try:
                attempt = JobMessage.model_validate_json(record.value).attempt
            except ValidationError:
                attempt = 1
        return JobRef(first.integration, first.job_guid, attempt)

    async def _pause(self, ref: JobRef, stage: str, error: TransientError, count: int, now: datetime) -> float:
        asked = error.retry_after
        if asked is not None and (stage == "confirm" or isinstance(error, Untried)):
            return asked  # a pause that grows already, or the end of a known condition
        pause = self._retry.pause(count)
        if stage in {"process", "upload"}:
            pause = min(pause, await self._half_of_the_time_left(ref, now))
        return max(pause, asked or 0.0)

    async def _half_of_the_time_left(self, ref: JobRef, now: datetime) -> float:
        try:
            left = ((await self._jobs.newest(ref)).deadline - now).total_seconds()
        except PermanentError:
            return math.inf  # its announcement is damaged, or not stored yet, because no worker knows the integration
        return max(left / 2, self._retry.first_seconds)

    async def _filed(self, marker: WaitingMarker) -> bool:
        try:
            await self._jobs.objects.get(marker.key)
        except ObjectNotFound:
            return False
        return True


class DueJobs:
    """Publishes parked jobs to their topics again when they are due. It runs beside the deadline watch.

    Several may run. Each takes the jobs of its partitions; so usually one publishes a job. If two do, or one dies
    between the publication and the removal of the marker, the second copy finds the receipts of the first one.
    A job of an integration that the settings lack stays parked until a process with other settings runs.

    Args:
        context: The surroundings of the deadline watch.
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

    async def run(self) -> None:
        """Look for due jobs every ``interval`` seconds until cancelled; an unavailable store or broker delays it."""
        while True:
            try:
                await self.look()
                if time.monotonic() >= self._count_at:
                    await self.count()
                    self._count_at = time.monotonic() + _COUNT_EVERY_SECONDS
            except (TransientError, Overloaded) as error:
                log.warning("watch_postponed", code=error.code, message=error.message)
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Publish every parked job that is due.

        Raises:
            TransientError, Overloaded: The store or the broker is not available now.
        """
        now = self._context.clock()
        some: list[WaitingMarker] = []
        async for marker in self._parking.parked():
            if marker.due > now:
                break
            if marker.ref.integration in self._integrations:
                some.append(marker)
            if len(some) == CALLS_AT_ONCE:
                await at_once(self._publish, some)
                some.clear()
        await at_once(self._publish, some)

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

    async def _publish(self, marker: WaitingMarker) -> None:
        with job_in_logs(marker.ref):
            try:
                await self._publish_receipt(marker)
            except (TransientError, Overloaded):
                raise
            except Exception as error:  # noqa: BLE001 - one damaged job must not hold up the others
                code, message = (
                    (error.code, error.message) if isinstance(error, PipelineError) else (type(error).__name__, "")
                )
                log.error("parked_job_stuck", marker=marker.key, code=code, message=message)  # noqa: TRY400

    async def _publish_receipt(self, marker: WaitingMarker) -> None:
        jobs = self._context.jobs
        waiting = await self._parking.receipt(marker)
        if waiting is None:
            # a lifecycle rule deleted the receipt, which is older than its marker: nothing is left to do
            log.warning("parked_job_forgotten", marker=marker.key)
            await jobs.unfile(marker.key)
            return
        with trace_in_logs(first_values(waiting.headers).get("traceparent")):
            await self._publish_waiting(marker, waiting)

    async def _publish_waiting(self, marker: WaitingMarker, waiting: Waiting) -> None:
        late = (self._context.clock() - marker.due).total_seconds()
        if late < _LEFT_TO_OTHERS_SECONDS and not self._owns(waiting.partition):
            return
        await self._context.publisher.publish(outgoing(waiting))
        await self._context.jobs.unfile(marker.key)
        log.info("job_resumed", stage=waiting.stage, code=waiting.code, waits=waiting.count)


def outgoing(waiting: Waiting) -> OutgoingRecord:
    """Return the record to publish when a wait is over: key, value and headers as they were, and for its group only."""
    retry = {
        RETRY_GROUP_HEADER: waiting.stage,
        RETRY_COUNT_HEADER: str(waiting.count),
        RETRY_FIRST_AT_HEADER: waiting.first_at.isoformat().replace("+00:00", "Z"),
        RETRY_CODE_HEADER: waiting.code,
    }
    kept = [(name, value) for name, value in waiting.headers if name not in _RETRY_HEADERS]
    added = [(name, value.encode()) for name, value in retry.items()]
    return OutgoingRecord(waiting.topic, waiting.key, waiting.value, (*kept, *added))


async def at_once(call: Callable[[T], Awaitable[object]], items: Sequence[T]) -> None:
    """Call a function for each item, some at the same time. An error of one call is raised when no call is running."""
    for start in range(0, len(items), CALLS_AT_ONCE):
        done = await asyncio.gather(*map(call, items[start : start + CALLS_AT_ONCE]), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error


def _whole_second(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=bool(at.microsecond))


def _number(text: str | None) -> int:
    return int(text) if text and _NUMBER.fullmatch(text) else 0


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found if found and found.tzinfo else None

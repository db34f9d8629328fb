"""The deadline watch: every job gets an outcome by its deadline, even if no worker ever started it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

import structlog

from pipeline.contracts import Record
from pipeline.errors import FatalError, Overloaded, PipelineError, TransientError
from pipeline.jobs.announcements import JobRules, announce, decode_request, rules_for
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.due_jobs import log_failed_look
from pipeline.jobs.job_tree import JobRef, Marker, MarkerKind
from pipeline.jobs.outcomes import Decider, counts_so_far
from pipeline.jobs.receipts import Announcement
from pipeline.jobs.stage import StageContext, deadline_passed, job_in_logs
from pipeline.kafka.protocols import Lease
from pipeline.observability import trace_in_logs
from pipeline.plugins import fault_of
from pipeline.storage import ObjectNotFound

log = structlog.get_logger(__name__)

_FAILURES_IN_A_ROW: Final = 5
"""If this many jobs in a row fail, the store or the broker is unavailable, and the next look tries again."""

_COUNT_EVERY_SECONDS: Final = 300.0
"""Only metrics need the count of the open jobs, and it costs a request to the store for every 1,000 of them."""

_FORGET_EVERY_SECONDS: Final = 86_400.0
"""How often the watch checks refused jobs whose receipts are old enough to be deleted."""

_HEAD_START_SECONDS: Final = 1.0
"""How long the watch leaves a new announcement to PROCESS. That is safe: deadlines are minutes away, and the watch
commits the offset only afterwards.
"""

_ARRIVALS_KEPT: Final = 2000
"""How many arrivals are remembered. Records whose partition moves to another worker are never handled here, and must
not pile up.
"""


class DeadlineWatch:
    """Handler of ``card-batch.requested`` in a group of its own, and the loop that looks for jobs that are due.

    It files every new job under the minute of its deadline. At the deadline, it decides ``failed`` for a job without an
    outcome, and files the job as decided. So a look reads only the jobs that are due, not all open or refused ones.
    Several watches may run at the same time: the store creates an outcome only once. Run it inside CONFIRM.

    Args:
        context: Its dependencies.
        integrations: The rules of each integration.
        interval: Seconds between two looks.
        receipts_kept: How long the store keeps the receipts of a job.
    """

    def __init__(
        self,
        context: StageContext,
        integrations: Mapping[str, JobRules],
        *,
        interval: float,
        receipts_kept: timedelta,
    ) -> None:
        self._context = context
        self._jobs = context.jobs
        self._integrations = integrations
        self._interval = interval
        self._receipts_kept = receipts_kept
        self._decider = Decider(context)
        self._nearest: datetime | None = None
        self._failing: set[str] = set()
        self._unconfigured: Counter[str] = Counter()
        self._arrived: dict[tuple[int, int], float] = {}
        self._count_at = 0.0
        self._forget_at = 0.0

    async def arrive(self, record: Record) -> None:
        """Remember when a record arrived: the head start of PROCESS begins then."""
        self._arrived[record.partition, record.offset] = time.monotonic()
        if len(self._arrived) > _ARRIVALS_KEPT:
            del self._arrived[next(iter(self._arrived))]

    async def handle(self, record: Record, lease: Lease) -> None:
        """File a job under its deadline, unless it has ended already.

        PROCESS stores the announcement too. The watch waits for a moment, so that it nearly always finds it stored, and
        small jobs already ended. If no PROCESS runs, the watch stores it.
        """
        request = decode_request(record, self._integrations)
        rules = rules_for(self._integrations, request.integration)
        await self._let_process_begin(record)
        ref = JobRef(request.integration, request.body.job_guid)
        stored = await self._jobs.only_announcement(ref, request.announcement)
        if stored is not None:
            deadline, notified = stored
            if not notified:
                await lease.ensure()
                await self._jobs.file("open", ref, deadline)
            return
        announced = await announce(self._jobs, request, rules, self._context.clock())
        if announced.news == "conflict" or await self._jobs.notification_result(announced.ref) is not None:
            return
        await lease.ensure()
        await self._jobs.file("open", announced.ref, announced.announcement.deadline)

    async def _let_process_begin(self, record: Record) -> None:
        came = self._arrived.pop((record.partition, record.offset), -math.inf)
        await asyncio.sleep(max(0.0, came + _HEAD_START_SECONDS - time.monotonic()))

    async def run(self) -> None:
        """Look for due jobs every ``interval`` seconds until cancelled; only a FatalError ends it."""
        while True:
            try:
                await self.poll()
                self._context.metrics.deadline_watch_failing.set(len(self._failing))
                if time.monotonic() >= self._forget_at:
                    await self.forget()
                    self._forget_at = time.monotonic() + _FORGET_EVERY_SECONDS
                if time.monotonic() >= self._count_at:
                    await self.count()
                    self._count_at = time.monotonic() + _COUNT_EVERY_SECONDS
            except FatalError:
                raise
            except Exception as error:  # noqa: BLE001 - it must go on: without it, jobs would never get an outcome
                self._report_failure(error)
            await asyncio.sleep(self._interval)

    async def poll(self) -> None:
        """Fail jobs whose deadline has passed, and delete parts that were kept long enough.

        Each job is handled by itself. Jobs that failed in the last look come last, so that they hold up no others.

        Raises:
            TransientError: The store or the broker seems to be unavailable: several jobs in a row failed.
        """
        attempts = _Attempts()
        try:
            await self._look(attempts)
        except BaseException:
            self._failing |= attempts.failed
            raise
        self._failing = attempts.failed

    async def _look(self, attempts: _Attempts) -> None:
        now = self._context.clock()
        nearest: datetime | None = None
        later: list[Marker] = []
        async for marker in self._jobs.filed("open"):
            if marker.ref.integration not in self._integrations:
                continue  # its integration was removed or belongs to another deployment: this process cannot handle it
            if nearest is None:
                self._show_nearest(marker.minute)  # first, since deciding the job may fail
            if marker.minute > now:
                nearest = nearest or marker.minute
                break
            if marker.key in self._failing:
                later.append(marker)
                undecided = True
            else:
                undecided = await attempts.make(marker, self._handle_due)
            # a decided job has no deadline any more, whether it waits for the partner's answer or was refused
            if nearest is None and undecided:
                nearest = marker.minute
        for marker in later:
            await attempts.make(marker, self._handle_due)
        self._show_nearest(nearest)
        await self._purge_due(now, attempts)

    async def forget(self) -> None:
        """Remove the markers of decided jobs whose receipts a lifecycle rule deleted: nothing is left to do.

        Raises:
            TransientError: The store seems to be unavailable.
        """
        attempts = _Attempts()
        async for marker in self._jobs.filed("decided", until=self._context.clock() - self._receipts_kept):
            await attempts.make(marker, self._forget)

    async def _forget(self, marker: Marker) -> bool:
        await self._newest(marker)
        return False

    async def _newest(self, marker: Marker) -> Announcement | None:
        """Return the newest announcement of a filed job; if there is none, remove the job's marker and return None.

        A lifecycle rule deletes old announcements. Then nothing is left to do for the job.
        """
        try:
            return await self._jobs.newest(marker.ref)
        except ObjectNotFound:
            log.warning("job_forgotten")
            await self._jobs.unfile(marker.key)
            return None

    async def count(self) -> None:
        """Set the metrics of open jobs, including those of integrations that are not configured here."""
        count = 0
        unconfigured: Counter[str] = Counter()
        kinds: tuple[MarkerKind, ...] = ("open", "decided")
        for kind in kinds:
            async for marker in self._jobs.filed(kind):
                count += 1
                if marker.ref.integration not in self._integrations:
                    unconfigured[marker.ref.integration] += 1
        self._context.metrics.open_jobs.set(count)
        self._report_unconfigured(unconfigured)

    async def _purge_due(self, now: datetime, attempts: _Attempts) -> None:
        async for marker in self._jobs.filed("purge", until=now):
            if marker.over <= now:
                await attempts.make(marker, self._purge)

    async def _purge(self, marker: Marker) -> bool:
        await self._context.ensure_clock()
        with trace_in_logs(await self._traceparent(marker.ref)):
            gone = await self._jobs.drop_parts(marker.ref)
            await self._jobs.drop_urls(marker.ref, self._context.clock())
            await self._jobs.unfile(marker.key)
            log.info("parts_deleted", objects=gone)
        return False

    async def _traceparent(self, ref: JobRef) -> str | None:
        try:
            return (await self._jobs.newest(ref)).traceparent
        except (ObjectNotFound, JobDamaged):
            return None  # its parts are deleted anyway

    def _report_failure(self, error: Exception) -> None:
        log_failed_look(error)
        self._context.metrics.deadline_watch_failing.set(max(1, len(self._failing)))
        self._show_nearest(self._nearest)  # its deadline comes closer all the same

    def _show_nearest(self, nearest: datetime | None) -> None:
        self._nearest = nearest
        left = math.nan if nearest is None else (nearest - self._context.clock()).total_seconds()
        self._context.metrics.deadline_seconds_left_min.set(left)

    def _report_unconfigured(self, found: Counter[str]) -> None:
        gauge = self._context.metrics.open_jobs_unconfigured
        for name in self._unconfigured.keys() - found.keys():
            gauge.remove(name)
        for name, jobs in found.items():
            gauge.labels(name).set(jobs)
        if found.keys() - self._unconfigured.keys():
            log.warning("jobs_unconfigured", integrations=sorted(found), jobs=found.total())
        self._unconfigured = found

    async def _handle_due(self, marker: Marker) -> bool:
        """Decide a job whose minute has begun; return whether it stays undecided under this marker."""
        newest = await self._newest(marker)
        if newest is None:
            return False
        with trace_in_logs(newest.traceparent):
            return await self._decide_due(marker, newest, self._integrations[marker.ref.integration])

    async def _decide_due(self, marker: Marker, newest: Announcement, rules: JobRules) -> bool:
        ref = marker.ref
        if newest.deadline > self._context.clock():
            if ref.marker("open", newest.deadline) == marker.key:
                return True
            await self._jobs.file("open", ref, newest.deadline)
            await self._jobs.unfile(marker.key)
            return False
        # before the publication: CONFIRM, which acts on it, deletes this marker
        await self._jobs.file("decided", ref, marker.minute)
        # publish an existing outcome again: its sender may have died before it published. Once is enough
        if not await self._decider.publish_existing(ref, None):
            log.warning("deadline_passed")
            await self._decider.fail(
                ref, deadline_passed(newest.deadline), rules, counts=await counts_so_far(self._jobs, ref)
            )
        await self._jobs.unfile(marker.key)
        return False


class _Attempts:
    """Handles the jobs of one look, so that a job that fails does not stop the others.

    Attributes:
        failed: Keys of the markers whose attempt failed.
    """

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self._in_a_row = 0

    async def make(self, marker: Marker, work: Callable[[Marker], Awaitable[bool]]) -> bool:
        """Return what the work on one marker returns; True if it failed.

        Raises:
            TransientError: Several attempts in a row failed this way, so the jobs are not the cause.
            FatalError: The work raised it.
        """
        with job_in_logs(marker.ref):
            try:
                result = await work(marker)
            except FatalError:
                raise
            except (TransientError, Overloaded) as error:
                log.warning("watch_job_postponed", code=error.code, message=error.message)
                self._in_a_row += 1
                if self._in_a_row >= _FAILURES_IN_A_ROW:
                    self.failed.add(marker.key)
                    raise
            except PipelineError as error:
                log.error("watch_job_failed", code=error.code, message=error.message)  # noqa: TRY400 - expected
            except Exception as error:  # noqa: BLE001 - the other jobs must get their outcome
                fault = fault_of(error)
                log.error(  # noqa: TRY400 - its text may hold data of the job
                    "watch_job_failed", code="internal_error", message=str(fault), frames=fault.lines
                )
            else:
                self._in_a_row = 0
                return result
        self.failed.add(marker.key)
        return True

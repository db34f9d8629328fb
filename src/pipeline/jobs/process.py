"""PROCESS: from an announcement to the decided cards of its job."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from pipeline.contracts import RETRY_ATTEMPT_HEADER, RETRY_DEADLINE_HEADER, AuditAction, Record, first_values
from pipeline.errors import TransientError
from pipeline.jobs.announcements import Request, announce, decode_request, rules_for
from pipeline.jobs.chunk_work import FileRules
from pipeline.jobs.chunks import FileWork
from pipeline.jobs.fanout import SharedJobs
from pipeline.jobs.job_store import Announced
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.messages import StageMessage, processed_record
from pipeline.jobs.outcomes import Decider
from pipeline.jobs.receipts import Announcement, Outcome, Processed
from pipeline.jobs.recent_jobs import RecentJobs
from pipeline.jobs.stage import StageContext, job_in_logs
from pipeline.jobs.starts import Starts
from pipeline.kafka.protocols import Lease

log = structlog.get_logger(__name__)

_ARRIVALS_KEPT: Final = 2000
"""Records whose partition moves to another worker are never handled here; they must not pile up."""

_ATTEMPT: Final = re.compile(r"[1-9][0-9]{0,6}")
_TRIES_KEPT: Final = 500
"""Jobs that wait, and whose last try this process remembers."""

_ACTIONS: Final = {
    "new": AuditAction.JOB_ANNOUNCED,
    "renewed": AuditAction.JOB_RENEWED,
    "conflict": AuditAction.JOB_CONFLICT,
}


class ProcessStage:
    """Handler of ``card-batch.requested``. One call processes one job's file; it can be restarted at each chunk.

    A job that waited is tried with what its last try here saw: as long as its input cannot be opened, a retry asks the
    store for nothing. Once it is open, the stage looks at the job before anything else.
    """

    def __init__(
        self, context: StageContext, integrations: Mapping[str, FileRules], starts: Starts, shared: SharedJobs
    ) -> None:
        self._context = context
        self._integrations = integrations
        self._starts = starts
        self._shared = shared
        self._arrived: dict[tuple[int, int], tuple[Announced, float]] = {}
        self._tried: dict[tuple[str, UUID], tuple[Announced, RecentJobs]] = {}

    async def arrive(self, record: Record) -> None:
        """Store the announcement at once, so that a running job gets fresh URLs."""
        if RETRY_DEADLINE_HEADER in first_values(record.headers):
            return  # it was stored before it waited
        request = decode_request(record, self._integrations)
        self._tried.pop(_name(request), None)
        self._arrived[record.partition, record.offset] = await self._announce(request)
        if len(self._arrived) > _ARRIVALS_KEPT:
            del self._arrived[next(iter(self._arrived))]

    async def handle(self, record: Record, lease: Lease) -> None:
        """Bring the announced job to ``processed`` or ``failed``, unless it is there already."""
        request = decode_request(record, self._integrations)
        rules = rules_for(self._integrations, request.integration)
        announced, context, jobs = await self._known(record, request)
        message = StageMessage.of(record, announced.ref, lease)
        with job_in_logs(announced.ref):
            if not jobs.fresh:
                await jobs.load()
            if announced.news != "conflict":
                jobs.know(announced.announcement)
            work = FileWork(context, rules, message, self._starts, self._shared)
            try:
                await _JobProcessing(context, work, message, request, announced=announced, rules=rules).run()
            except TransientError:
                self._remember(request, announced, jobs)
                raise

    async def _known(self, record: Record, request: Request) -> tuple[Announced, StageContext, RecentJobs]:
        """Return the stored announcement of a record, and the surroundings with what is known of its job."""
        arrived = self._arrived.pop((record.partition, record.offset), None)
        tried = self._tried.pop(_name(request), None)
        headers = first_values(record.headers)
        if arrived is None and RETRY_DEADLINE_HEADER in headers:
            if tried is not None and _is_current(tried[0].announcement, request, self._context.clock()):
                context, jobs = self._context.recent(tried[0].ref)
                jobs.recall(tried[1])
                return tried[0], context, jobs
            context, jobs = self._context.recent(_attempt(request, headers.get(RETRY_ATTEMPT_HEADER)))
            await jobs.load()
            stored = await jobs.announced(request.announcement)
            if stored is not None:
                return stored, context, jobs
        announced, at = arrived or await self._announce(request)
        context, jobs = self._context.recent(announced.ref)
        if announced.created:
            jobs.created(announced.announcement, at)
        return announced, context, jobs

    def _remember(self, request: Request, announced: Announced, jobs: RecentJobs) -> None:
        if announced.news != "conflict" and jobs.untouched:
            self._tried[_name(request)] = announced, jobs
            if len(self._tried) > _TRIES_KEPT:
                del self._tried[next(iter(self._tried))]

    async def _announce(self, request: Request) -> tuple[Announced, float]:
        """Store an announcement; return the result and the monotonic time before it."""
        rules = rules_for(self._integrations, request.integration)
        began = time.monotonic()
        return await announce(self._context.jobs, request, rules, self._context.clock()), began


class _JobProcessing:
    """The work on one announcement."""

    def __init__(
        self,
        context: StageContext,
        work: FileWork,
        message: StageMessage,
        request: Request,
        *,
        announced: Announced,
        rules: FileRules,
    ) -> None:
        self._context = context
        self._decider = Decider(context)
        self._work = work
        self._request = request
        self._announced = announced
        self._message = message
        self._rules = rules

    async def run(self) -> None:
        """See ProcessStage."""
        await self._audit_announcement()
        if self._announced.news == "conflict":
            await self._answer_conflict()
            return
        async with self._decider.failing_damaged(self._message, self._rules):
            if not await self._publish_existing():
                await self._process()

    async def _audit_announcement(self) -> None:
        request, announced = self._request, self._announced
        await self._context.audit(
            _ACTIONS[announced.news],
            announced.ref,
            request.announcement,
            traceparent=self._message.traceparent,
            at=announced.announcement.stored_at,
            detail={
                "announcement": request.announcement,
                "merchant_guid": str(request.body.merchant_guid),
                "record_count": request.body.record_count,
                "expires_at": request.body.expires_at.isoformat(),
                **({"differences": [one.field for one in announced.differences]} if announced.differences else {}),
            },
        )

    async def _answer_conflict(self) -> None:
        """Raise an alarm, and send the outcome again if there is one, because the partner has announced the job again.

        Without an outcome, there is nothing to send: the first notification will come after this announcement anyway.
        """
        announced = self._announced
        differences = [f"{one.field}: {one.first}, now {one.later}" for one in announced.differences]
        log.error("announcement_conflict", announcement=announced.announcement.id, differences=differences)
        self._context.metrics.announcement_conflicts.labels(announced.ref.integration).inc()
        await self._decider.publish_existing(
            self._message.ref, self._message.traceparent, again=lambda outcome: _again(announced, outcome)
        )

    async def _publish_existing(self) -> bool:
        """Publish again the result of an earlier message of this job; return False if there is none."""
        announced, message = self._announced, self._message
        if await self._decider.publish_existing(
            message.ref, message.traceparent, again=lambda outcome: _again(announced, outcome)
        ):
            return True
        receipt = await self._context.jobs.processed(message.ref)
        if receipt is not None:
            await self._publish(receipt)
        return receipt is not None

    async def _process(self) -> None:
        message, work = self._message, self._work
        receipt = await self._decider.run(
            message,
            self._rules,
            lambda: self._context.within_deadline(message.ref, work.run),
            lambda: work.counts,
        )
        if receipt is not None:
            await message.lease.ensure()
            await self._publish(receipt)
            log.info("job_processed", records=receipt.records, ok=receipt.ok, failed=receipt.failed)

    async def _publish(self, receipt: Processed) -> None:
        message = self._message
        announcement = await self._context.jobs.newest(message.ref)
        await asyncio.gather(
            self._context.audit(
                AuditAction.JOB_PROCESSED,
                message.ref,
                receipt.generation,
                traceparent=message.traceparent,
                at=receipt.at,
                detail={
                    "generation": receipt.generation,
                    "records": receipt.records,
                    "ok": receipt.ok,
                    "failed": receipt.failed,
                    "result_bytes": receipt.result_bytes,
                },
            ),
            self._context.publisher.publish(processed_record(message, announcement, receipt)),
        )


def _name(request: Request) -> tuple[str, UUID]:
    return request.integration, request.body.job_guid


def _is_current(tried: Announcement, request: Request, now: datetime) -> bool:
    """Return whether the last try of a job was one of this announcement, and its deadline is to come."""
    return tried.id == request.announcement and tried.deadline > now


def _attempt(request: Request, number: str | None) -> JobRef:
    known = int(number) if number and _ATTEMPT.fullmatch(number) else 1
    return JobRef(request.integration, request.body.job_guid, known)


def _again(announced: Announced, outcome: Outcome) -> str | None:
    """Return the name of a repeated notification, if the job was announced again after its outcome."""
    return announced.announcement.id if announced.announcement.stored_at > outcome.at else None

"""Code that all stages of a job share: the context, the audit trail, and the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar
from uuid import uuid4

import structlog
from pydantic import JsonValue

from pipeline.contracts import AuditAction, AuditEvent, audit_record
from pipeline.errors import PermanentError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.recent_jobs import FRESH_SECONDS, RecentJobs
from pipeline.kafka.protocols import Publisher
from pipeline.observability import CheckedClock, Metrics

T = TypeVar("T")


class DeadlinePassed(PermanentError):
    """The URLs of the newest announcement have expired, or expire before they can be used."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """The dependencies of one stage.

    Attributes:
        stage: ``process``, ``upload``, ``confirm`` or ``watch``; the actor in audit events and outcomes.
        clock: Returns the time, in UTC.
        checked: The same clock, if it is compared with other clocks; None if it is trusted.
        fresh_seconds: How long the work on one message uses a listing of the store.
    """

    stage: str
    jobs: JobStore
    publisher: Publisher
    clock: Callable[[], datetime]
    metrics: Metrics
    checked: CheckedClock | None = None
    fresh_seconds: float = FRESH_SECONDS

    def recent(self, ref: JobRef) -> tuple[StageContext, RecentJobs]:
        """Return the context for the work on one message, and its store, which remembers the job for a moment.

        Call the store's ``load`` first.
        """
        jobs = RecentJobs(self.jobs, ref, now=self.clock, seconds=self.fresh_seconds)
        return replace(self, jobs=jobs), jobs

    @property
    def clock_ok(self) -> bool:
        """Whether the clock is not known to be wrong."""
        return self.checked is None or self.checked.check().ok

    async def ensure_clock(self) -> None:
        """Check the clock. Call this right before a decision that depends on the time and cannot be undone.

        If Kafka's time is not known, it publishes an audit event to learn it.

        Raises:
            ClockWrong: The clock differs from those of others.
        """
        if self.checked is not None:
            await self.checked.ensure(self._compare_clock)

    async def _compare_clock(self) -> None:
        at = self.clock()
        ident = AuditEvent.id_of(AuditAction.CLOCK_COMPARED, self.stage, uuid4().hex)
        await self.publisher.publish(
            audit_record(AuditEvent(id=ident, action=AuditAction.CLOCK_COMPARED, at=at, actor=self.stage))
        )

    async def audit(
        self,
        action: AuditAction,
        ref: JobRef,
        *facts: str,
        traceparent: str | None = None,
        at: datetime | None = None,
        detail: dict[str, JsonValue] | None = None,
    ) -> None:
        """Add one step to the audit trail; returns when it is durable. A repeat does not change the log.

        Args:
            action: The step.
            ref: The job's attempt.
            facts: Text that distinguishes this step from others of the same action and attempt, e.g. the announcement.
            traceparent: Trace context of the work.
            at: When the step happened; by default now.
            detail: Counts, codes, hashes; never a URL query, a token or card data.
        """
        event = AuditEvent(
            id=AuditEvent.id_of(action, ref.integration, str(ref.job_guid), str(ref.attempt), *facts),
            action=action,
            at=at or self.clock(),
            actor=self.stage,
            integration=ref.integration,
            job_guid=ref.job_guid,
            detail={"attempt": ref.attempt, **(detail or {})},
        )
        await self.publisher.publish(audit_record(event, traceparent=traceparent))

    async def within_deadline(self, ref: JobRef, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what ``work`` returns, unless the deadline of the newest announcement comes first.

        At the deadline it reads the announcements again. If there is a later deadline, the work continues. After a
        deadline, an error or a cancellation, no part of ``work`` is still running.

        Raises:
            DeadlinePassed: The work was cancelled, or never started.
        """
        left = await self._seconds_left(ref)
        task = asyncio.create_task(work())
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=left)
                if done:
                    return task.result()
                left = await self._seconds_left(ref)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
                if not task.cancelled():
                    task.exception()  # read it, so that asyncio logs no traceback: another error is raised instead

    async def _seconds_left(self, ref: JobRef) -> float:
        deadline = (await self.jobs.newest(ref)).deadline
        left = (deadline - self.clock()).total_seconds()
        if left <= 0:
            raise deadline_passed(deadline)
        return left


def deadline_passed(deadline: datetime) -> DeadlinePassed:
    """Return the error of a job that missed its deadline; the partner's support reads its message."""
    return DeadlinePassed(
        "deadline_passed",
        "The job could not be finished in time, before its URLs expired: "
        f"work had to end at {deadline:%Y-%m-%d %H:%M:%S} UTC.",
    )


@contextmanager
def job_in_logs(ref: JobRef) -> Iterator[None]:
    """Add the job to every log line that is written inside the block."""
    with structlog.contextvars.bound_contextvars(
        integration=ref.integration, job_guid=str(ref.job_guid), attempt=ref.attempt
    ):
        yield

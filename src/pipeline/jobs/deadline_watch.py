"""The deadline watch: no job ends in silence, not even one that nobody ever started."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import structlog

from pipeline.contracts import Record
from pipeline.errors import TransientError
from pipeline.jobs.announcements import JobRules, announce, decode_request, rules_for
from pipeline.jobs.audit_trail import Trail
from pipeline.jobs.deadline import deadline_passed
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import Marker
from pipeline.jobs.outcomes import Counts, Judge
from pipeline.kafka.protocols import Lease, Publisher
from pipeline.observability import Metrics
from pipeline.storage import ObjectNotFound

log = structlog.get_logger(__name__)

STAGE: Final = "watch"


class DeadlineWatch:
    """Handler of ``card-batch.requested`` in a group of its own, and the loop that looks at what is due.

    It files every job under the minute of its deadline at once; when the deadline comes, a job without an outcome gets
    ``failed``. Several watches may run: the outcome is created once. Run it inside CONFIRM.
    """

    def __init__(
        self,
        jobs: JobStore,
        publisher: Publisher,
        integrations: Mapping[str, JobRules],
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        interval: float,
    ) -> None:
        self._jobs = jobs
        self._integrations = integrations
        self._clock = clock
        self._metrics = metrics
        self._interval = interval
        self._judge = Judge(jobs, publisher, Trail(publisher, STAGE, clock), clock=clock, metrics=metrics, stage=STAGE)
        self._repeated: set[str] = set()

    async def arrive(self, record: Record) -> None:
        """Nothing before its turn: filing is all there is to do."""

    async def handle(self, record: Record, lease: Lease) -> None:
        """File a job under its deadline."""
        request = decode_request(record)
        rules = rules_for(self._integrations, request.integration)
        announced = await announce(self._jobs, request, rules, self._clock())
        if announced.news == "conflict" or await self._jobs.told(announced.ref) is not None:
            return
        await lease.ensure()
        await self._jobs.file("open", announced.ref, announced.announcement.deadline)

    async def run(self) -> None:
        """Look at what is due every ``interval`` seconds, until cancelled; an absent store or broker postpones it."""
        while True:
            try:
                await self.look()
            except TransientError as error:
                log.warning("watch_postponed", code=error.code, message=error.message)
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Fail what is due, and delete what has been kept long enough."""
        now = self._clock()
        nearest, count = float("nan"), 0
        repeated: set[str] = set()
        async for marker in self._jobs.filed("open"):
            count += 1
            undecided = marker.key not in self._repeated
            if marker.minute <= now:
                with structlog.contextvars.bound_contextvars(
                    integration=marker.ref.integration, job_guid=str(marker.ref.job_guid), attempt=marker.ref.attempt
                ):
                    undecided = await self._judge_due(marker)
            if marker.key in self._repeated:
                repeated.add(marker.key)
            # what is decided and waits for ECS, or was refused, has no deadline any more that somebody could meet
            if math.isnan(nearest) and undecided:
                nearest = (marker.minute - now).total_seconds()
        self._repeated = repeated
        self._metrics.open_jobs.set(count)
        self._metrics.deadline_seconds_left_min.set(nearest)
        async for marker in self._jobs.filed("purge", until=now):
            if marker.over <= now:
                gone = await self._jobs.drop_parts(marker.ref)
                await self._jobs.unfile(marker.key)
                log.info("parts_deleted", job_guid=str(marker.ref.job_guid), objects=gone)

    async def _judge_due(self, marker: Marker) -> bool:
        """Decide a job whose minute has come; return whether it is left undecided under this marker."""
        ref = marker.ref
        rules = self._integrations.get(ref.integration)
        if rules is None:
            return True  # another deployment's job; its own watch, or the next configuration, will find it
        try:
            newest = await self._jobs.newest(ref)
        except ObjectNotFound:
            # a lifecycle rule took its announcements, which are older than this marker: nothing is left to be told
            log.warning("job_forgotten")
            await self._jobs.unfile(marker.key)
            return False
        if newest.deadline > self._clock():
            if ref.marker("open", newest.deadline) == marker.key:
                return True
            await self._jobs.file("open", ref, newest.deadline)
            await self._jobs.unfile(marker.key)
            return False
        outcome = await self._jobs.outcome(ref)
        if outcome is None:
            log.warning("deadline_passed")
            counts = Counts(*await self._jobs.decided_cards(ref))
            await self._judge.fail(ref, deadline_passed(newest.deadline), rules.policies, counts=counts)
            self._repeated.add(marker.key)
        elif marker.key not in self._repeated:
            # decided, but perhaps the message was lost with its sender; once per process is enough
            await self._judge.repeat(ref, outcome, None)
            self._repeated.add(marker.key)
        return False

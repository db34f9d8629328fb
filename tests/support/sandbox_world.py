"""What tests of the sandbox are made of: a clock that is stopped, and jobs that were not announced."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from yarl import URL

from pipeline.sandbox import JobRequest, Sandbox
from pipeline.sandbox.jobs import Announcement, Job


class Clock:
    """UTC time that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 21, 22, 43, 59, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        """Let time pass, or go back."""
        self.now += timedelta(seconds=seconds)


class Prepared:
    """A job that exists at ECS and was not announced, with its URLs."""

    def __init__(self, sandbox: Sandbox, job: Job, announcement: Announcement) -> None:
        job.announcements.append(announcement)
        self.job = job
        self.input_url = URL(announcement.urls[0], encoded=True)
        self.result_url = URL(announcement.urls[1], encoded=True)
        self.callback_url = f"{sandbox.url}/api/reporting/v1/partner/batch-jobs/{job.guid}/result-uploaded"


async def prepare(sandbox: Sandbox, **request: Any) -> Prepared:
    """Create a job and sign its URLs without announcing it."""
    job = await sandbox.ecs.create(JobRequest(announce=False, **request))
    return Prepared(sandbox, job, sandbox.ecs.prepare(job))


Start = Callable[..., Awaitable[Sandbox]]
"""Starts a sandbox with settings of the test's own."""

"""Work within a job's deadline, which a later announcement may move while the work goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar

from pipeline.errors import PermanentError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef

T = TypeVar("T")


class DeadlinePassed(PermanentError):
    """The URLs of the newest announcement have expired, or will before anything can be done with them."""


async def within_deadline(
    jobs: JobStore, ref: JobRef, clock: Callable[[], datetime], work: Callable[[], Coroutine[Any, Any, T]]
) -> T:
    """Return what ``work`` returns, unless the deadline of the newest announcement comes first.

    When a deadline is reached the announcements are read again: with a later one the work goes on undisturbed. On a
    deadline, an error or a cancellation nothing of ``work`` is left running.

    Raises:
        DeadlinePassed: The work was cancelled, or never begun.
    """
    left = await _seconds_left(jobs, ref, clock)
    task = asyncio.create_task(work())
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=left)
            if done:
                return task.result()
            left = await _seconds_left(jobs, ref, clock)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _seconds_left(jobs: JobStore, ref: JobRef, clock: Callable[[], datetime]) -> float:
    deadline = (await jobs.newest(ref)).deadline
    left = (deadline - clock()).total_seconds()
    if left <= 0:
        raise deadline_passed(deadline)
    return left


def deadline_passed(deadline: datetime) -> DeadlinePassed:
    """Return the error that ECS's support will read."""
    return DeadlinePassed(
        "deadline_passed",
        "The job could not be finished in time, before its URLs expired: "
        f"work had to end at {deadline:%Y-%m-%d %H:%M:%S} UTC. Announce the job again with fresh URLs.",
    )

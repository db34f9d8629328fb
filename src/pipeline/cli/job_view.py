"""What the job store says of a job, for commands: read only, without URLs, tokens or card data."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar
from uuid import UUID

import click

from pipeline.app import open_jobs
from pipeline.cli.context import Setup
from pipeline.cli.exits import UsageRefused
from pipeline.errors import PermanentError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.operations import NOBODY_NOTIFIED
from pipeline.jobs.receipts import (
    Announcement,
    Manifest,
    NotificationAttempt,
    NotificationResult,
    Outcome,
    Processed,
    Uploaded,
)

R = TypeVar("R")

job_argument = click.argument("job_text", metavar="JOB")

State = Literal[
    "announced", "processing", "processed", "uploaded", "completed", "failed", "confirmed", "refused", "closed"
]
"""How far a job is; ``completed`` and ``failed`` are decided only; the three last end it (docs/cli.md)."""


class NotFound(PermanentError):
    """There is no such job, or nothing left of it."""


@dataclass(frozen=True, slots=True)
class JobView:
    """One attempt of a job.

    Attributes:
        tries: How many callbacks were begun.
        first_try: When the first callback was sent; None before it.
        last_try: When the latest callback was sent.
    """

    ref: JobRef
    announcements: Sequence[Announcement]
    chunks: int
    processed: Processed | None
    uploaded: Uploaded | None
    outcome: Outcome | None
    tries: int
    first_try: datetime | None
    last_try: datetime | None
    told: NotificationResult | None

    @property
    def state(self) -> State:
        """How far it is."""
        if self.told:
            return "closed" if self.told.code == NOBODY_NOTIFIED else self.told.told
        if self.outcome:
            return self.outcome.outcome
        if self.uploaded:
            return "uploaded"
        if self.processed:
            return "processed"
        return "processing" if self.chunks else "announced"

    @property
    def deadline(self) -> datetime:
        """When work on it must have ended."""
        return self.announcements[-1].deadline

    @property
    def steps(self) -> list[tuple[str, datetime]]:
        """What happened when, in the order of time."""
        stored = min(one.stored_at for one in self.announcements)
        renewed = max(one.stored_at for one in self.announcements)
        steps = {
            "announced": stored,
            "renewed": renewed if renewed > stored else None,
            "processed": self.processed and self.processed.at,
            "uploaded": self.uploaded and self.uploaded.at,
            "decided": self.outcome and self.outcome.at,
            "first_callback": self.first_try,
            "last_callback": self.last_try if self.tries > 1 else None,
            "ended": self.told and self.told.at,
        }
        return sorted(((name, at) for name, at in steps.items() if at), key=lambda step: step[1])

    def as_json(self) -> dict[str, Any]:
        """Return the view as JSON values (docs/cli.md)."""
        newest = self.announcements[-1]
        hidden = {"nonce", "body", "request_id", "result_etag", "detail"}
        return {
            "job": job_name(self.ref),
            "integration": self.ref.integration,
            "job_guid": str(self.ref.job_guid),
            "attempt": self.ref.attempt,
            "state": self.state,
            "deadline": newest.deadline.isoformat(),
            "merchant_guid": str(newest.request.merchant_guid),
            "record_count": newest.request.record_count,
            "announcements": [
                {"id": one.id, "deadline": one.deadline.isoformat(), "stored_at": one.stored_at.isoformat()}
                for one in self.announcements
            ],
            "chunks": self.chunks,
            "processed": self.processed and self.processed.model_dump(mode="json", exclude=hidden),
            "uploaded": self.uploaded and self.uploaded.model_dump(mode="json", exclude=hidden),
            "outcome": self.outcome and self.outcome.model_dump(mode="json", exclude=hidden),
            "tries": self.tries,
            "told": self.told and self.told.model_dump(mode="json", exclude=hidden),
            "steps": [{"step": name, "at": at.isoformat()} for name, at in self.steps],
        }


def job_name(ref: JobRef) -> str:
    """Return a job as it is written on the command line."""
    return f"{ref.integration}/{ref.job_guid}"


def parse_job(text: str, integrations: Iterable[str]) -> list[JobRef]:
    """Return the jobs that ``INTEGRATION/GUID``, or a GUID alone, may mean.

    Raises:
        UsageRefused: It is neither.
    """
    name, slash, guid = text.rpartition("/")
    try:
        job_guid = UUID(guid)
    except ValueError:
        raise UsageRefused("job_name", f"{text!r} names no job; write INTEGRATION/GUID, or the GUID alone") from None
    return [JobRef(one, job_guid) for one in ([name] if slash else integrations)]


async def find_job(jobs: JobStore, wanted: Sequence[JobRef]) -> JobRef:
    """Return the latest attempt of the one job that exists.

    Raises:
        NotFound: None of them does.
    """
    found = await asyncio.gather(*(jobs.all_announcements(ref) for ref in wanted))
    for ref, announcements in zip(wanted, found, strict=True):
        if announcements:
            return JobRef(ref.integration, ref.job_guid, max(one.attempt for one in announcements))
    guid = wanted[0].job_guid if wanted else "-"
    raise NotFound("job_unknown", f"the store knows no job {guid}; give INTEGRATION/GUID, and see `pipeline job list`")


async def named_job(jobs: JobStore, text: str, configured: Iterable[str]) -> JobRef:
    """Return the latest attempt of the job that a text names; the store also knows integrations that were removed.

    Raises:
        UsageRefused: The text names no job.
        NotFound: The store has no such job.
    """
    names = [] if "/" in text else sorted({*configured, *await jobs.objects.folders("jobs/")})
    return await find_job(jobs, parse_job(text, names))


async def with_jobs(setup: Setup, work: Callable[[JobStore], Awaitable[R]]) -> R:
    """Return the result of work on the configured job store."""
    async with open_jobs(setup.settings(), setup.ports) as jobs:
        return await work(jobs)


async def with_job(setup: Setup, text: str, work: Callable[[JobStore, JobRef], Awaitable[R]]) -> R:
    """Return the result of work on the latest attempt of the job that a text names; errors as of :func:`named_job`."""
    async with open_jobs(setup.settings(), setup.ports) as jobs:
        return await work(jobs, await named_job(jobs, text, setup.settings().job_names))


def all_attempts(latest: JobRef) -> list[JobRef]:
    """Return every attempt of a job, the first one first."""
    return [JobRef(latest.integration, latest.job_guid, number) for number in range(1, latest.attempt + 1)]


async def view_job(jobs: JobStore, ref: JobRef) -> JobView:
    """Return what is known of an attempt: one listing of the job's objects, then only the receipts that it has."""
    keys = [info.key async for info in jobs.objects.list(ref.root)]
    own = {key.removeprefix(ref.work) for key in keys if key.startswith(ref.work)}
    processed = await jobs.processed(ref) if "processed.json" in own else None
    tries = sorted(name for name in own if name.startswith("told/") and not name.endswith(".answer.json"))
    times = [
        found.at
        for name in dict.fromkeys(tries[:1] + tries[-1:])
        if (found := await jobs.receipt(f"{ref.work}{name}", NotificationAttempt))
    ]
    return JobView(
        ref=ref,
        announcements=await jobs.announcements(ref),
        chunks=processed.parts if processed else _chunks(own),
        processed=processed,
        uploaded=await jobs.uploaded(ref) if "uploaded.json" in own else None,
        outcome=await jobs.outcome(ref) if "outcome.json" in own else None,
        tries=len(tries),
        first_try=times[0] if times else None,
        last_try=times[-1] if times else None,
        told=await jobs.final_result(ref) if own & {"confirmed.json", "refused.json"} else None,
    )


def _chunks(own: Iterable[str]) -> int:
    """Return how many chunks of the most complete generation are finished, by the names of an attempt's objects."""
    finished: Counter[str] = Counter()
    for name in own:
        folder, _, rest = name.partition("/")
        generation, _, file = rest.partition("/")
        if folder == "parts" and file.endswith(".json") and file[:-5].isdigit():
            finished[generation] += 1
    return max(finished.values(), default=0)


async def decided_parts(jobs: JobStore, ref: JobRef) -> list[Manifest]:
    """Return the manifests from the first chunk up to the first gap; empty if no parts are left."""
    numbers = await jobs.finished_chunks(ref)
    processed = await jobs.processed(ref)
    if processed is not None:
        numbers = {processed.generation: numbers.get(processed.generation, set())}
    best: tuple[str, int] = ("", 0)
    for generation, found in numbers.items():
        gapless = next(number for number in range(len(found) + 1) if number not in found)
        best = max(best, (generation, gapless), key=lambda one: one[1])
    return await jobs.manifests(ref, best[0], range(best[1]))

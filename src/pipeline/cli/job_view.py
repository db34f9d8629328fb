"""Reads a job from the job store, for commands. It changes nothing, and shows no URLs, tokens or card data."""

from __future__ import annotations

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
from pipeline.cli.job_progress import JobProgress, progress_of
from pipeline.cli.times import now
from pipeline.errors import PermanentError
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.job_store import JobStore, deadline_in
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.operations import NOBODY_NOTIFIED
from pipeline.jobs.parking import Parking
from pipeline.jobs.receipts import (
    Announcement,
    Conflict,
    Manifest,
    NotificationAttempt,
    NotificationResult,
    Outcome,
    Processed,
    Started,
    Waiting,
)

R = TypeVar("R")
T = TypeVar("T")

job_argument = click.argument("job_text", metavar="JOB")

State = Literal[
    "announced",
    "processing",
    "processed",
    "completed",
    "failed",
    "waiting",
    "damaged",
    "refused",
    "confirmed",
    "closed",
]
"""The state of a job (see cli.md). A ``completed`` or ``failed`` job still has to notify its partner. The last three
states are final."""


class NotFound(PermanentError):
    """The job does not exist, or its data is deleted."""


@dataclass(frozen=True, slots=True)
class JobView:
    """One attempt of a job.

    Attributes:
        tries: How many callbacks were begun.
        first_try: When the first callback was sent; None before it.
        last_try: When the latest callback was sent.
        waiting: What it waits for now, if it is parked.
        held: The start of the worker that processes its file; None if none does, or it died and the job is at rest.
        conflicts: Later announcements that contradict the first one.
        damage: What cannot be read of it.
        known_deadline: Its deadline, where its announcements were not read.
        progress: How far PROCESS is; None if that was not asked for, or PROCESS has not begun or has ended.
    """

    ref: JobRef
    announcements: Sequence[Announcement]
    chunks: int
    processed: Processed | None
    outcome: Outcome | None
    tries: int
    first_try: datetime | None
    last_try: datetime | None
    notification: NotificationResult | None
    waiting: Waiting | None
    held: Started | None
    conflicts: Sequence[Conflict]
    damage: Sequence[str]
    known_deadline: datetime | None = None
    progress: JobProgress | None = None

    @property
    def state(self) -> State:
        """How far it is."""
        if self.notification:
            return "closed" if self.notification.code == NOBODY_NOTIFIED else self.notification.told
        if self.waiting:
            return "waiting"
        if self.damage:
            return "damaged"
        return self._progress

    @property
    def _progress(self) -> State:
        if self.outcome:
            return self.outcome.outcome
        if self.processed:
            return "processed"
        return "processing" if self.chunks else "announced"

    @property
    def deadline(self) -> datetime | None:
        """When work on it must end; None if no worker has stored its announcement yet."""
        return self.announcements[-1].deadline if self.announcements else self.known_deadline

    @property
    def why(self) -> str | None:
        """The error code because of which it failed, was refused or waits."""
        if self.outcome and self.outcome.reason:
            return self.outcome.reason
        if self.notification and self.notification.told == "refused":
            return self.notification.code
        return self.waiting.code if self.waiting else "job_damaged" if self.damage else None

    @property
    def steps(self) -> list[tuple[str, datetime]]:
        """Its steps with their times, in order."""
        stored = sorted(one.stored_at for one in self.announcements)
        steps = {
            "announced": stored[0] if stored else None,
            "renewed": stored[-1] if len(stored) > 1 else None,
            "started": self.held and self.held.at,
            "waiting": self.waiting and self.waiting.at,
            "processed": self.processed and self.processed.at,
            "decided": self.outcome and self.outcome.at,
            "first_callback": self.first_try,
            "last_callback": self.last_try if self.tries > 1 else None,
            "ended": self.notification and self.notification.at,
        }
        return sorted(((name, at) for name, at in steps.items() if at), key=lambda step: step[1])

    def as_json(self) -> dict[str, Any]:
        """Return the view as JSON values (docs/reference/cli.md)."""
        newest = self.announcements[-1] if self.announcements else None
        hidden = {"nonce", "body", "request_id", "result_etag", "detail"}
        return {
            "job": job_name(self.ref),
            "integration": self.ref.integration,
            "job_guid": str(self.ref.job_guid),
            "attempt": self.ref.attempt,
            "state": self.state,
            "deadline": newest and newest.deadline.isoformat(),
            "merchant_guid": newest and str(newest.request.merchant_guid),
            "record_count": newest and newest.request.record_count,
            "announcements": [
                {"id": one.id, "deadline": one.deadline.isoformat(), "stored_at": one.stored_at.isoformat()}
                for one in self.announcements
            ],
            "chunks": self.chunks,
            "progress": self.progress and self.progress.as_json(),
            "processed": self.processed and self.processed.model_dump(mode="json", exclude=hidden),
            "outcome": self.outcome and self.outcome.model_dump(mode="json", exclude=hidden),
            "tries": self.tries,
            "notification": self.notification and self.notification.model_dump(mode="json", exclude=hidden),
            "waiting": self.waiting and self.waiting.model_dump(mode="json", include=_SHOWN_OF_A_WAIT),
            "held_by": self.held and {"host": self.held.host, "since": self.held.at.isoformat()},
            "conflicts": [one.model_dump(mode="json", exclude={"nonce", "attempt"}) for one in self.conflicts],
            "damage": [*self.damage],
            "steps": [{"step": name, "at": at.isoformat()} for name, at in self.steps],
        }


_SHOWN_OF_A_WAIT = {"stage", "count", "code", "message", "tries", "first_at", "at", "due", "worker"}


def job_name(ref: JobRef) -> str:
    """Return the name of a job for the command line."""
    return f"{ref.integration}/{ref.job_guid}"


def parse_job(text: str, integrations: Iterable[str]) -> list[JobRef]:
    """Return the possible jobs for ``INTEGRATION/GUID``, or for a GUID alone.

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
    """Return the latest attempt of the only job that exists.

    Raises:
        NotFound: None of them does.
    """
    for ref in wanted:
        try:
            announcements = await jobs.all_announcements(ref)
        except JobDamaged:
            return ref  # the view shows the damage
        if announcements:
            return JobRef(ref.integration, ref.job_guid, max(one.attempt for one in announcements))
        if await Parking(jobs, now).waiting(ref):  # a worker that lacks the integration does not store the announcement
            return ref
    guid = wanted[0].job_guid if wanted else "-"
    raise NotFound("job_unknown", f"the store knows no job {guid}; give INTEGRATION/GUID, and see `pipeline job list`")


async def named_job(jobs: JobStore, text: str, configured: Iterable[str]) -> JobRef:
    """Return the latest attempt of a job by its name. It also finds jobs of removed integrations.

    Raises:
        UsageRefused: The text names no job.
        NotFound: The store has no such job.
    """
    names = [] if "/" in text else sorted({*configured, *await jobs.objects.folders("jobs/")})
    return await find_job(jobs, parse_job(text, names))


async def with_jobs(setup: Setup, work: Callable[[JobStore], Awaitable[R]]) -> R:
    """Open the configured job store, and return the result of ``work``."""
    async with open_jobs(setup.settings(), setup.ports) as jobs:
        return await work(jobs)


async def with_job(
    setup: Setup, text: str, work: Callable[[JobStore, JobRef], Awaitable[R]], *, with_parts: bool = False
) -> R:
    """Find the latest attempt of a job by its name, and return the result of ``work``.

    Args:
        setup: Settings and ports.
        text: Names the job.
        work: Gets the store and the attempt.
        with_parts: Whether it reads results: then the key files are needed.

    Raises:
        UsageRefused, NotFound: As :func:`named_job`.
        FatalError: A key file is missing or malformed.
    """
    async with open_jobs(setup.settings(), setup.ports, with_parts=with_parts) as jobs:
        return await work(jobs, await named_job(jobs, text, setup.settings().job_names))


def all_attempts(latest: JobRef) -> list[JobRef]:
    """Return all attempts of a job, in order."""
    return [JobRef(latest.integration, latest.job_guid, number) for number in range(1, latest.attempt + 1)]


async def view_with_progress(jobs: JobStore, ref: JobRef) -> JobView:
    """Return the state of an attempt, and the progress of PROCESS."""
    return await view_job(jobs, ref, until=now())


async def view_job(jobs: JobStore, ref: JobRef, *, until: datetime | None = None) -> JobView:
    """Return the state of an attempt. Needs one listing of the job's objects, and a read for each receipt.

    Args:
        jobs: The job store.
        ref: The attempt.
        until: The time at which the progress of PROCESS is wanted; None if it is not.
    """
    listed = [info async for info in jobs.objects.scan(ref.root)]
    keys = sorted(info.key for info in listed)
    own = {key.removeprefix(ref.work) for key in keys if key.startswith(ref.work)}
    tries = sorted(name for name in own if name.startswith("told/") and not name.endswith(".answer.json"))
    damage: list[str] = []

    async def read(call: Callable[[], Awaitable[T | None]], *, there: bool = True) -> T | None:
        try:
            return await call() if there else None
        except JobDamaged as error:
            damage.append(error.key)
            return None

    async def try_at(name: str) -> datetime | None:
        found = await read(lambda: jobs.receipt(f"{ref.work}{name}", NotificationAttempt))
        return found.at if found else None

    contradicted = any(key.startswith(f"{ref.root}conflicts/") for key in keys)
    announcements = await read(lambda: jobs.announcements(ref)) or []
    conflicts = await read(lambda: jobs.conflicts(ref), there=contradicted) or []
    processed = await read(lambda: jobs.processed(ref), there="processed.json" in own)
    waiting = await read(
        lambda: Parking(jobs, now).waiting(ref), there=any(key.startswith(ref.waiting) for key in keys)
    )
    in_process = not own & {"processed.json", "outcome.json"}
    running = _running(own) if in_process and not waiting else None
    held = await read(lambda: jobs.receipt(f"{ref.work}{running}", Started), there=running is not None)
    progress = None
    if until is not None and in_process and any(key.startswith(ref.parts()) for key in keys):
        progress = await progress_of(
            jobs,
            ref,
            listed,
            read,
            announcement=announcements[-1] if announcements else None,
            held=held,
            waits=waiting is not None and waiting.stage != "chunks",
            until=until,
        )
    return JobView(
        ref=ref,
        announcements=announcements,
        chunks=processed.parts if processed else _chunks(own),
        processed=processed,
        outcome=await read(lambda: jobs.outcome(ref), there="outcome.json" in own),
        tries=len(tries),
        first_try=await try_at(tries[0]) if tries else None,
        last_try=await try_at(tries[-1]) if tries else None,
        notification=await read(lambda: jobs.final_result(ref), there=bool(own & {"confirmed.json", "refused.json"})),
        waiting=waiting,
        held=held,
        conflicts=[one for one in conflicts if one.attempt == ref.attempt],
        damage=damage,
        progress=progress,
    )


async def glance_at_job(jobs: JobStore, ref: JobRef) -> JobView:
    """Return the columns of a list for an attempt. One listing is enough for a job without a result.

    Whether its announcement is damaged is not known then.
    """
    keys = await jobs.keys(ref.root)
    names = [key.removeprefix(ref.root) for key in keys]
    announced = [name for name in names if name.startswith("announcements/")]
    if not announced or any(not name.startswith(_BEFORE_THE_RESULT) for name in names):
        return await view_job(jobs, ref)
    return JobView(
        ref=ref,
        announcements=(),
        chunks=_chunks(names),
        processed=None,
        outcome=None,
        tries=0,
        first_try=None,
        last_try=None,
        notification=None,
        waiting=None,
        held=None,
        conflicts=(),
        damage=(),
        known_deadline=deadline_in(max(announced)),
    )


_BEFORE_THE_RESULT = ("announcements/", "job.json", "parts/", "started/")


def _running(own: Iterable[str]) -> str | None:
    """Return the name of the last start of work on the file, unless that work ended."""
    starts = {int(name[8:-5]): name for name in own if name.startswith("started/") and name[8:-5].isdigit()}
    if not starts or f"started/{max(starts)}.ended.json" in own:
        return None
    return starts[max(starts)]


def _chunks(own: Iterable[str]) -> int:
    """Return the number of finished chunks of the most complete generation, from the names of an attempt's objects."""
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

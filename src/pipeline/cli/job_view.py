"""What the job store says of a job, for commands: read only, without URLs, tokens or card data."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from pipeline.cli.exits import UsageRefused
from pipeline.errors import PermanentError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.receipts import Announcement, Manifest, NotificationResult, Outcome, Processed, Uploaded

State = Literal["announced", "processing", "processed", "uploaded", "completed", "failed", "confirmed", "refused"]
"""How far a job is; ``completed`` and ``failed`` are decided only; ``confirmed`` and ``refused`` end it."""


class NotFound(PermanentError):
    """There is no such job, or nothing left of it."""


@dataclass(frozen=True, slots=True)
class JobView:
    """One attempt of a job."""

    ref: JobRef
    announcements: Sequence[Announcement]
    chunks: int
    processed: Processed | None
    uploaded: Uploaded | None
    outcome: Outcome | None
    tries: int
    told: NotificationResult | None

    @property
    def state(self) -> State:
        """How far it is."""
        if self.told:
            return self.told.told
        if self.outcome:
            return self.outcome.outcome
        if self.uploaded:
            return "uploaded"
        if self.processed:
            return "processed"
        return "processing" if self.chunks else "announced"

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
    for ref in wanted:
        attempts = [attempt async for attempt in _attempts(jobs, ref)]
        if attempts:
            return attempts[-1]
    guid = wanted[0].job_guid if wanted else "-"
    raise NotFound("job_unknown", f"the store knows no job {guid}; give INTEGRATION/GUID, and see `pipeline job list`")


async def all_attempts(jobs: JobStore, ref: JobRef) -> list[JobRef]:
    """Return every attempt of a job, the first one first."""
    return [attempt async for attempt in _attempts(jobs, ref)]


async def _attempts(jobs: JobStore, ref: JobRef) -> AsyncIterator[JobRef]:
    attempt = JobRef(ref.integration, ref.job_guid)
    while await jobs.announcements(attempt):
        yield attempt
        attempt = JobRef(ref.integration, ref.job_guid, attempt.attempt + 1)


async def view_job(jobs: JobStore, ref: JobRef) -> JobView:
    """Return what is known of an attempt."""
    processed = await jobs.processed(ref)
    return JobView(
        ref=ref,
        announcements=await jobs.announcements(ref),
        chunks=processed.parts if processed else max(map(len, (await jobs.finished_chunks(ref)).values()), default=0),
        processed=processed,
        uploaded=await jobs.uploaded(ref),
        outcome=await jobs.outcome(ref),
        tries=(await jobs.notification_attempts(ref))[0],
        told=await jobs.final_result(ref),
    )


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

"""The job store: announcements, parts, receipts. Nothing is ever overwritten; creation decides."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeVar

from pipeline.jobs.job_tree import JobRef, Marker, WaitingMarker, parse_marker
from pipeline.jobs.part_store import PartStore
from pipeline.jobs.receipts import (
    Announcement,
    Conflict,
    Difference,
    JobIdentity,
    NotificationAnswer,
    NotificationAttempt,
    NotificationResult,
    Outcome,
    Processed,
    Receipt,
    Uploaded,
    Waiting,
    millis,
)
from pipeline.storage import ObjectNotFound

R = TypeVar("R", bound=Receipt)

_ANNOUNCEMENT: Final = re.compile(r"\d{15}-\w+\.json")
_CONFLICT: Final = re.compile(r"\w+\.json")
_TRY: Final = re.compile(r"(\d{4,})(\.answer)?\.json")


@dataclass(frozen=True, slots=True)
class Announced:
    """The result of storing an announcement.

    Attributes:
        news: ``new``: the job's first announcement. ``renewed``: a further one. ``conflict``: its merchant or record
            count differs from the first one's, and the first decides. A repeated announcement gets the same result.
        differences: For a conflict: what differs.
    """

    ref: JobRef
    announcement: Announcement
    news: Literal["new", "renewed", "conflict"]
    differences: tuple[Difference, ...] = ()


class JobStore(PartStore):
    """The state of all jobs, in any :class:`pipeline.storage.ObjectStore`."""

    # --- announcements ---------------------------------------------------------------------------------------------

    async def announce(self, integration: str, wanted: Announcement, *, new_attempt_after_failure: bool) -> Announced:
        """Store an announcement unless it is known or contradicts the first. Safe to repeat and to run concurrently.

        Args:
            integration: Name of the integration.
            wanted: The announcement; the store decides its attempt.
            new_attempt_after_failure: Whether a new announcement of a failed job begins a new attempt.
        """
        request = wanted.request
        first = JobRef(integration, request.job_guid)
        identity = JobIdentity(
            merchant_guid=request.merchant_guid, record_count=request.record_count, announcement=wanted.id
        )
        won, existing = await self._create(f"{first.root}job.json", identity)
        differences = existing.differences(identity)
        if differences:
            return await self._record_conflict(first, wanted, differences)
        earlier = [] if won else await self._announcement_keys(first)
        # compare only the id: after a change of the margin, the same announcement has another deadline
        known = next((key for key in earlier if key.endswith(f"-{wanted.id}.json")), None)
        if known is not None:
            stored = await self._get(known, Announcement)
        else:
            if earlier and new_attempt_after_failure:
                wanted = wanted.model_copy(update={"attempt": await self._attempt_for(first, earlier)})
            key = f"{first.root}announcements/{millis(wanted.deadline):015d}-{wanted.id}.json"
            _, stored = await self._create(key, wanted)
        ref = JobRef(integration, request.job_guid, stored.attempt)
        return Announced(ref, stored, "new" if existing.announcement == wanted.id else "renewed")

    async def _record_conflict(
        self, first: JobRef, wanted: Announcement, differences: tuple[Difference, ...]
    ) -> Announced:
        earlier = await self._announcement_keys(first)
        latest = await self._latest_attempt(earlier)
        conflict = Conflict(id=wanted.id, attempt=latest, differences=differences, stored_at=wanted.stored_at)
        _, stored = await self._create(f"{first.root}conflicts/{wanted.id}.json", conflict)
        wanted = wanted.model_copy(update={"attempt": stored.attempt, "stored_at": stored.stored_at})
        ref = JobRef(first.integration, first.job_guid, stored.attempt)
        return Announced(ref, wanted, "conflict", stored.differences)

    async def conflicts(self, ref: JobRef) -> list[Conflict]:
        """Return the announcements of all attempts of a job that contradict its first one, in order of time."""
        prefix = f"{ref.root}conflicts/"
        keys = [info.key async for info in self.objects.list(prefix)]
        found = [await self._get(key, Conflict) for key in keys if _CONFLICT.fullmatch(key.removeprefix(prefix))]
        return sorted(found, key=lambda one: one.stored_at)

    async def _latest_attempt(self, announcements: Sequence[str]) -> int:
        return max([(await self._get(key, Announcement)).attempt for key in announcements], default=1)

    async def _attempt_for(self, first: JobRef, earlier: Sequence[str]) -> int:
        latest = await self._latest_attempt(earlier)
        outcome = await self.outcome(JobRef(first.integration, first.job_guid, latest))
        return latest + 1 if outcome is not None and outcome.outcome == "failed" else latest

    async def announcements(self, ref: JobRef) -> list[Announcement]:
        """Return this attempt's announcements, the one with the latest deadline last."""
        return [one for one in await self.all_announcements(ref) if one.attempt == ref.attempt]

    async def all_announcements(self, ref: JobRef) -> list[Announcement]:
        """Return the announcements of all attempts of the job, the one with the latest deadline last."""
        keys = await self._announcement_keys(ref)
        return list(await asyncio.gather(*(self._get(key, Announcement) for key in keys)))

    async def newest(self, ref: JobRef) -> Announcement:
        """Return the current announcement: the one with the latest deadline."""
        for key in reversed(await self._announcement_keys(ref)):
            found = await self._get(key, Announcement)
            if found.attempt == ref.attempt:
                return found
        raise ObjectNotFound(f"{ref.root}announcements/")

    async def _announcement_keys(self, ref: JobRef) -> list[str]:
        prefix = f"{ref.root}announcements/"
        keys = [info.key async for info in self.objects.list(prefix)]
        found = [key for key in keys if _ANNOUNCEMENT.fullmatch(key.removeprefix(prefix))]
        for key in keys if len(found) < len(keys) else ():
            if key not in found:
                self._findings.foreign(key)
        return found

    # --- what is due -----------------------------------------------------------------------------------------------

    async def file(self, kind: Literal["open", "purge"], ref: JobRef, due: datetime) -> None:
        """File a job under the minute of a due time. A repeat changes nothing."""
        await self.objects.create(ref.marker(kind, due), b"")

    async def filed(self, kind: Literal["open", "purge"], *, until: datetime | None = None) -> AsyncIterator[Marker]:
        """Yield filed jobs, earliest minute first; with ``until`` only minutes that have begun by then."""
        async for info in self.objects.list(f"{kind}/"):
            marker = parse_marker(info.key)
            if marker is None:
                self._findings.foreign(info.key)
                continue
            if until is not None and marker.minute > until:
                return
            yield marker

    async def file_waiting(self, marker: WaitingMarker) -> None:
        """File a parked job under the time at which it is due. A repeat changes nothing."""
        await self.objects.create(marker.key, b"")

    async def unfile(self, marker_key: str) -> None:
        """Remove a marker."""
        await self.objects.delete(marker_key)

    async def close(self, ref: JobRef, outcome: Outcome, at: datetime) -> None:
        """File an attempt as ended, and remove it from all minutes that it is filed under. A repeat changes nothing."""
        await self.objects.create(ref.ended(at, outcome.outcome), b"")
        for announcement in await self.announcements(ref):
            await self.unfile(ref.marker("open", announcement.deadline))

    # --- receipts --------------------------------------------------------------------------------------------------

    async def receipt(self, key: str, model: type[R]) -> R | None:
        """Return the receipt of that key, if it exists."""
        return await self._find(key, model)

    async def record_waiting(self, wanted: Waiting) -> Waiting:
        """Record that a record of the job waits; return the existing receipt."""
        return (await self._create(wanted.marker.receipt, wanted))[1]

    async def processed(self, ref: JobRef) -> Processed | None:
        """Return the receipt of PROCESS, if it exists."""
        return await self._find(f"{ref.work}processed.json", Processed)

    async def decided_cards(self, ref: JobRef) -> tuple[int, int]:
        """Return how many cards are ok and how many failed so far, by the most complete generation of parts."""
        receipt = await self.processed(ref)
        if receipt is not None:
            return receipt.ok, receipt.failed
        numbers = await self.finished_chunks(ref)
        if not numbers:
            return 0, 0
        furthest = max(numbers, key=lambda name: len(numbers[name]))
        found = await self.manifests(ref, furthest, sorted(numbers[furthest]))
        return sum(one.ok for one in found), sum(one.failed for one in found)

    async def record_processed(self, ref: JobRef, receipt: Processed) -> Processed:
        """Record that every card is decided; return the existing receipt."""
        return (await self._create(f"{ref.work}processed.json", receipt))[1]

    async def uploaded(self, ref: JobRef) -> Uploaded | None:
        """Return the receipt of UPLOAD, if it exists."""
        return await self._find(f"{ref.work}uploaded.json", Uploaded)

    async def record_uploaded(self, ref: JobRef, receipt: Uploaded) -> Uploaded:
        """Record that the partner has the result; return the existing receipt."""
        return (await self._create(f"{ref.work}uploaded.json", receipt))[1]

    async def outcome(self, ref: JobRef) -> Outcome | None:
        """Return the job's outcome, if it is decided."""
        return await self._find(f"{ref.work}outcome.json", Outcome)

    async def decide(self, ref: JobRef, wanted: Outcome) -> Outcome:
        """Decide the job's outcome unless it is decided; return the existing outcome."""
        return (await self._create(f"{ref.work}outcome.json", wanted))[1]

    # --- notifications ---------------------------------------------------------------------------------------------

    async def notification_result(self, ref: JobRef, again: str | None = None) -> NotificationResult | None:
        """Return how a notification ended, if it did; a confirmation takes precedence over a refusal."""
        for result in ("confirmed", "refused"):
            found = await self._find(f"{ref.notification(again)}{result}.json", NotificationResult)
            if found is not None:
                return found
        return None

    async def final_result(self, ref: JobRef) -> NotificationResult | None:
        """Return how the notifications ended: a confirmation of any of them takes precedence over a refusal."""
        first = await self.notification_result(ref)
        if first is None or first.told == "confirmed":
            return first
        for again in await self.objects.folders(f"{ref.work}again/"):
            later = await self.notification_result(ref, again)
            if later is not None and later.told == "confirmed":
                return later
        return first

    async def record_result(
        self, ref: JobRef, receipt: NotificationResult, again: str | None = None
    ) -> NotificationResult:
        """Record how a notification ended; return the existing receipt."""
        return (await self._create(f"{ref.notification(again)}{receipt.told}.json", receipt))[1]

    async def notification_attempts(self, ref: JobRef, again: str | None = None) -> tuple[int, bool]:
        """Return how many callbacks were begun, and whether one of them has no known answer."""
        begun: set[str] = set()
        answered: set[str] = set()
        prefix = f"{ref.notification(again)}told/"
        async for info in self.objects.list(prefix):
            found = _TRY.fullmatch(info.key.removeprefix(prefix))
            if found is None:
                self._findings.foreign(info.key)
                continue
            (answered if found[2] else begun).add(found[1])
        return len(begun), bool(begun - answered)

    async def attempt_at(self, ref: JobRef, number: int, again: str | None = None) -> datetime:
        """Return when a callback was begun."""
        return (await self._get(f"{ref.notification(again)}told/{number:04d}.json", NotificationAttempt)).at

    async def record_attempt(self, ref: JobRef, receipt: NotificationAttempt, again: str | None = None) -> bool:
        """Record a callback before it is sent; return False if another worker sends it."""
        won, _ = await self._create(f"{ref.notification(again)}told/{receipt.number:04d}.json", receipt)
        return won

    async def record_answer(self, ref: JobRef, receipt: NotificationAnswer, again: str | None = None) -> None:
        """Record an answer that did not confirm the callback."""
        await self._create(f"{ref.notification(again)}told/{receipt.number:04d}.answer.json", receipt)

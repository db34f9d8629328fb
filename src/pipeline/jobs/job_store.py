"""The job store: announcements, parts, receipts. The first creation of an object wins; no object is overwritten."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar

from pipeline.contracts import Topic
from pipeline.errors import PoisonRecord
from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.job_tree import WAITING_RECEIPT, JobRef, Marker, MarkerKind, WaitingMarker, parse_marker
from pipeline.jobs.notification_store import NotificationStore
from pipeline.jobs.receipts import (
    Announcement,
    Conflict,
    Difference,
    JobIdentity,
    Outcome,
    Processed,
    Receipt,
    Waiting,
    millis,
)
from pipeline.storage import ObjectNotFound

R = TypeVar("R", bound=Receipt)

MOST_ANNOUNCEMENTS: Final = 100
"""Maximum number of announcements of one job, over all attempts.

Each is read and erased when the job has ended, and each new attempt reads all. A partner that sends new URLs twice an
hour for two days stays below it.
"""

_ANNOUNCEMENT: Final = re.compile(r"\d{15}-\w+\.json")
_READ_ANNOUNCEMENTS: Final = frozenset({"process", "watch"})
"""Stages that read announcements: their waiting records hold URLs."""

_NEXT_LOOK: Final = timedelta(hours=1)
_CONFLICT: Final = re.compile(r"\w+\.json")


@dataclass(frozen=True, slots=True)
class Announced:
    """The result of storing an announcement.

    Attributes:
        news: ``new``: the job's first announcement. ``renewed``: a further one. ``conflict``: its merchant or record
            count differs from the first one's, and the first decides. A repeated announcement gets the same result.
        differences: For a conflict: what differs.
        created: Whether this call created the job.
    """

    ref: JobRef
    announcement: Announcement
    news: Literal["new", "renewed", "conflict"]
    differences: tuple[Difference, ...] = ()
    created: bool = False


class JobStore(NotificationStore):
    """The state of all jobs, in any :class:`pipeline.storage.ObjectStore`."""

    def forget(self) -> None:
        """Read from the store again, without memory. Only a :class:`RecentJobs` has one."""

    async def refresh(self) -> bool:
        """Call it before the first effect on the job. Only a :class:`RecentJobs` knows something of an earlier message.

        Then it looks again.

        Returns:
            Whether the job has changed since that message.
        """
        return False

    # --- announcements ---------------------------------------------------------------------------------------------

    async def announce(self, integration: str, wanted: Announcement, *, new_attempt_after_failure: bool) -> Announced:
        """Store an announcement unless it is known or contradicts the first. Safe to repeat and to run concurrently.

        Args:
            integration: Name of the integration.
            wanted: The announcement; the store decides its attempt.
            new_attempt_after_failure: Whether a new announcement of a failed job begins a new attempt.

        Raises:
            PoisonRecord: The job has :data:`MOST_ANNOUNCEMENTS` (``announcements_too_many``).
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
        # compare only the id: if the margin was changed, the same announcement has another deadline
        known = next((key for key in earlier if key.endswith(f"-{wanted.id}.json")), None)
        if known is not None:
            mine, stored = False, await self._get(known, Announcement)
        else:
            if len(earlier) >= MOST_ANNOUNCEMENTS:
                raise PoisonRecord(
                    "announcements_too_many",
                    f"The job has {len(earlier)} announcements already, so this one is not used. Ask the partner "
                    "why it announces the job so often.",
                )
            if earlier and new_attempt_after_failure:
                wanted = wanted.model_copy(update={"attempt": await self._attempt_for(first, earlier)})
            mine, stored = await self._create(self.announcement_key(first, wanted), wanted)
        ref = JobRef(integration, request.job_guid, stored.attempt)
        news: Literal["new", "renewed"] = "new" if existing.announcement == wanted.id else "renewed"
        return Announced(ref, stored, news, created=won and mine)

    @staticmethod
    def announcement_key(ref: JobRef, announcement: Announcement) -> str:
        """Return the key of an announcement; a listing has the one with the latest deadline last."""
        return f"{ref.root}announcements/{millis(announcement.deadline):015d}-{announcement.id}.json"

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
        return list(await asyncio.gather(*map(self._announcement, keys)))

    async def only_announcement(self, first: JobRef, ident: str) -> tuple[datetime, bool] | None:
        """Return the deadline of a job's only announcement, and whether its partner is notified; it costs one listing.

        It returns None if the announcement is not stored, or is not the only one: its key does not name the attempt.

        Args:
            first: The first attempt of the job.
            ident: Id of the announcement.
        """
        keys = await self.keys(first.root)
        stored = self._announcements_among(keys, first)
        if len(stored) != 1 or not stored[0].endswith(f"-{ident}.json"):
            return None
        return deadline_in(stored[0]), bool({f"{first.work}confirmed.json", f"{first.work}refused.json"} & {*keys})

    async def newest(self, ref: JobRef) -> Announcement:
        """Return the current announcement: the one with the latest deadline.

        One that has its URLs comes before an erased one.
        """
        newest = None
        for key in reversed(await self._announcement_keys(ref)):
            found = await self._announcement(key)
            if found.attempt == ref.attempt:
                if not found.erased:
                    return found
                newest = newest or found
        if newest is None:
            raise ObjectNotFound(f"{ref.root}announcements/")
        return newest

    async def _announcement(self, key: str) -> Announcement:
        return await self._get(key, Announcement)

    async def _announcement_keys(self, ref: JobRef) -> list[str]:
        listed = self.objects.list(f"{ref.root}announcements/")
        return self._announcements_among([info.key async for info in listed], ref)

    def _announcements_among(self, keys: Sequence[str], ref: JobRef) -> list[str]:
        prefix = f"{ref.root}announcements/"
        keys = [key for key in keys if key.startswith(prefix)]
        found = [key for key in keys if _ANNOUNCEMENT.fullmatch(key.removeprefix(prefix))]
        for key in keys if len(found) < len(keys) else ():
            if key not in found:
                self.findings.foreign(key)
        return found

    # --- what is due -----------------------------------------------------------------------------------------------

    async def file(self, kind: MarkerKind, ref: JobRef, due: datetime) -> None:
        """File a job under the minute of a due time. A repeat changes nothing."""
        await self.objects.create(ref.marker(kind, due), b"")

    async def filed(self, kind: MarkerKind, *, until: datetime | None = None, after: str = "") -> AsyncIterator[Marker]:
        """Yield filed jobs, earliest minute first, in any order within a minute. Stopping early saves requests.

        Args:
            kind: The list to read.
            until: Yield only minutes that have begun by then.
            after: Key of a marker of this kind; yield only those that follow it.
        """
        async for info in self.objects.scan(f"{kind}/", after=after):
            marker = parse_marker(info.key)
            if marker is None:
                self.findings.foreign(info.key)
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

    async def close(
        self,
        ref: JobRef,
        outcome: Outcome,
        at: datetime,
        *,
        keep_urls: bool,
        newest: Announcement,
        drop_parts: bool = False,
    ) -> None:
        """File an attempt as ended, and remove all its open and decided markers. A repeat changes nothing.

        It needs one listing, and removes parts and markers in one deletion. The caller repeats it until it succeeds.

        Args:
            ref: The attempt.
            outcome: How it ended.
            at: When.
            keep_urls: Whether its signed URLs stay in the store, because they may still be needed.
            newest: The attempt's announcement that the caller has read already.
            drop_parts: Whether to delete its parts.
        """
        await self.objects.create(ref.ended(at, outcome.outcome), b"")
        keys = await self.keys(ref.root)
        parts = [key for key in keys if key.startswith(ref.parts())] if drop_parts else []
        if keep_urls:
            deadlines = [one.deadline for one in await self.announcements(ref)]
        else:
            left = [key for key in keys if key not in set(parts)]
            deadlines = await self._drop_urls(ref, at, left, decided=outcome.at, newest=newest)
        kinds: tuple[MarkerKind, ...] = ("open", "decided")
        await self.delete_known([*parts, *(ref.marker(kind, one) for one in deadlines for kind in kinds)])

    async def drop_urls(self, ref: JobRef, at: datetime) -> list[datetime]:
        """Erase the signed URLs of an attempt that are no longer needed, and return its announcements' deadlines.

        Announcements contain URLs, and so do the receipts of announcements that waited. Some URLs are still needed:

        - those in the receipt of an announcement that still waits,
        - those of an announcement that came after the outcome, until the partner is notified again or they expire.

        So the deadline watch calls this again: when it deletes the attempt's parts or, if there are none, after an
        hour. A damaged object is left as it is.
        """
        keys = await self.keys(ref.root)
        return await self._drop_urls(ref, at, keys, decided=await self._decided_at(ref))

    async def _drop_urls(
        self, ref: JobRef, at: datetime, keys: Sequence[str], *, decided: datetime, newest: Announcement | None = None
    ) -> list[datetime]:
        """See :meth:`drop_urls`.

        Args:
            ref: The attempt.
            at: The time.
            keys: Keys of all objects of the job.
            decided: When the outcome was decided.
            newest: An announcement that the caller has read.
        """
        known = {self.announcement_key(ref, newest): newest} if newest else {}
        deadlines, awaited = [], False
        for key in self._announcements_among(keys, ref):
            try:
                found = known.get(key) or await self._announcement(key)
            except JobDamaged:
                deadlines.append(deadline_in(key))
                continue
            if found.attempt == ref.attempt:
                deadlines.append(found.deadline)
                if found.erased:
                    continue
                if found.stored_at > decided and found.request.expires_at > at and not _is_answered(ref, found, keys):
                    awaited = True
                else:
                    await self.objects.replace(key, found.without_urls().model_dump_json().encode())
        left = [key for key in keys if key.startswith(ref.waiting) and not await self._drop_wait(ref, key, at)]
        if (left or awaited) and not any(key.startswith(ref.parts()) for key in keys):
            await self.file("purge", ref, at + _NEXT_LOOK)
        return deadlines

    async def _decided_at(self, ref: JobRef) -> datetime:
        """Return when the outcome was decided; if that is not known, the latest possible time."""
        with suppress(JobDamaged):
            outcome = await self.outcome(ref)
            if outcome is not None:
                return outcome.at
        return datetime.max.replace(tzinfo=UTC)

    async def _drop_wait(self, ref: JobRef, key: str, at: datetime) -> bool:
        """Delete the receipt of a waiting announcement of this attempt; return False if the wait is not over."""
        found = WAITING_RECEIPT.fullmatch(key.removeprefix(ref.waiting))
        if found is None:
            self.findings.foreign(key)
        if found is None or found["stage"] not in _READ_ANNOUNCEMENTS:
            return True  # a large job has many waits of chunks, which hold no URL
        with suppress(JobDamaged):
            wait = await self._find(key, Waiting)
            if wait is not None and wait.attempt == ref.attempt and wait.topic == Topic.BATCH_REQUESTED:
                # a receipt that is not due and has no marker may be one that is about to be filed
                if wait.due > at or await self.is_filed(wait.marker):
                    return False
                await self.objects.delete(key)
        return True

    async def is_filed(self, marker: WaitingMarker) -> bool:
        """Return whether a parked job is filed under this marker."""
        try:
            await self.objects.get(marker.key)
        except ObjectNotFound:
            return False
        return True

    # --- receipts --------------------------------------------------------------------------------------------------

    async def receipt(self, key: str, model: type[R]) -> R | None:
        """Return the receipt of that key, if it exists."""
        return await self._find(key, model)

    async def record_waiting(self, wanted: Waiting) -> Waiting:
        """Store the receipt of a wait; return the stored one, which may be an earlier one."""
        return (await self._create(wanted.marker.receipt, wanted))[1]

    async def processed(self, ref: JobRef) -> Processed | None:
        """Return the receipt of PROCESS, if it exists."""
        return await self._find(f"{ref.work}processed.json", Processed)

    async def decided_cards(self, ref: JobRef) -> tuple[int, int]:
        """Return how many cards are ok and how many failed so far, in the most complete generation of parts."""
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

    async def outcome(self, ref: JobRef) -> Outcome | None:
        """Return the job's outcome, if it is decided."""
        return await self._find(f"{ref.work}outcome.json", Outcome)

    async def decide(self, ref: JobRef, wanted: Outcome) -> Outcome:
        """Decide the job's outcome unless it is decided; return the existing outcome."""
        return (await self._create(f"{ref.work}outcome.json", wanted))[1]


def _is_answered(ref: JobRef, announcement: Announcement, keys: Sequence[str]) -> bool:
    """Return whether the repeated notification that an announcement caused has ended."""
    folder = ref.notification(announcement.id)
    return f"{folder}confirmed.json" in keys or f"{folder}refused.json" in keys


def deadline_in(key: str) -> datetime:
    """Return the deadline in the key of an announcement."""
    return datetime.fromtimestamp(int(key.rpartition("/")[2].partition("-")[0]) / 1000, UTC)

"""Finds objects in the job store that nobody needs any more: orphans, leftovers of ended jobs, expired objects.

It decides from listings, and reads an object only if a listing cannot decide. It skips objects that are younger than a
given age, because running workers may still be writing them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from pipeline.jobs.damage import JobDamaged
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import (
    WAITING_MARKERS,
    JobRef,
    Marker,
    WaitingMarker,
    parse_marker,
    parse_waiting_marker,
)
from pipeline.storage import ObjectInfo

Kind = Literal["part", "leftover", "marker", "expired", "probe", "foreign"]
"""``part``: result bytes that no manifest names. ``leftover``: part of a job that has ended. ``marker``: names a job
that has ended or does not exist. ``expired``: older than its retention. ``probe``: left by an interrupted check of the
store. ``foreign``: has a name that the pipeline never makes."""

KINDS: Final[tuple[Kind, ...]] = ("part", "leftover", "marker", "expired", "probe", "foreign")

_JOB: Final = re.compile(r"jobs/([a-z0-9-]+)/([0-9a-f-]{36})/(?:attempts/([1-9]\d{0,6})/)?(.+)")
_PART: Final = re.compile(r"parts/(\w+)/(\d{8})-\w+\.csv(?:\.aes)?")
_OF_A_JOB: Final = re.compile(
    r"(?:job|processed|uploaded|outcome|confirmed|refused)\.json"
    r"|(?:announcements|conflicts|waiting|started|told)/[\w.-]+\.json"
    r"|(?:parts|again)/.+"
)
_KEPT: Final = ("ended/", "commands/", "dead-letters/")
_OF_CARDS: Final = frozenset({"chunks", "upload"})
"""Stages that have nothing to do once the partner has confirmed."""
_DAY: Final = timedelta(days=1)
_NO_JOB: Final = JobRef("", UUID(int=0))


@dataclass(frozen=True, slots=True)
class Finding:
    """An object that nobody needs."""

    kind: Kind
    key: str
    size: int
    modified: datetime | None


class StoreCheck:
    """Searches a job store. It skips the audit log, its checkpoints, and the switches of integrations.

    Args:
        jobs: The store.
        clock: Returns the time, in UTC.
        receipts_kept: How long the receipts of a job are kept.
        failed_parts_kept: How long the parts of failed and refused jobs are kept.
        age: Skip objects that are younger. It must be longer than any worker needs for one object.
    """

    def __init__(
        self,
        jobs: JobStore,
        clock: Callable[[], datetime],
        *,
        receipts_kept: timedelta,
        failed_parts_kept: timedelta,
        age: timedelta = _DAY,
    ) -> None:
        self._jobs = jobs
        self._objects = jobs.objects
        self._now = clock()
        self._old = self._now - age
        self._expired = self._old - receipts_kept
        self._failed = self._old - failed_parts_kept
        self._markers: dict[tuple[str, UUID], list[tuple[Marker | WaitingMarker, ObjectInfo]]] = defaultdict(list)

    async def findings(self) -> AsyncGenerator[Finding, None]:
        """Yield the findings. Memory holds the markers of all open jobs, and the names of one job's objects.

        A job exists before its markers, and this reads the markers before the jobs. So a marker whose job starts during
        the search is never a finding.
        """
        async for finding in self._read_markers():
            yield finding
        async for first, objects in self._all_jobs():
            markers = self._markers.pop((first.integration, first.job_guid), [])
            for finding in await self._of_job(first, objects, markers):
                yield finding
        for _, info in (one for markers in self._markers.values() for one in markers):
            if _before(info, self._old):
                yield _found("marker", info)
        async for finding in self._beside_jobs():
            yield finding

    async def _beside_jobs(self) -> AsyncIterator[Finding]:
        for folder in _KEPT:
            async for info in self._objects.scan(folder):
                if _before(info, self._expired):
                    yield _found("expired", info)
        async for info in self._objects.scan("check/"):
            if _before(info, self._old):
                yield _found("probe", info)

    async def _read_markers(self) -> AsyncIterator[Finding]:
        for folder in ("open/", "decided/", "purge/", WAITING_MARKERS):
            async for info in self._objects.scan(folder):
                marker = parse_waiting_marker(info.key) if folder == WAITING_MARKERS else parse_marker(info.key)
                if marker is not None:
                    self._markers[marker.ref.integration, marker.ref.job_guid].append((marker, info))
                elif _before(info, self._old):
                    yield _found("foreign", info)

    async def _all_jobs(self) -> AsyncIterator[tuple[JobRef, list[ObjectInfo]]]:
        """Yield each job with its objects, which every server lists together, because they share a folder."""
        first: JobRef | None = None
        objects: list[ObjectInfo] = []
        async for info in self._objects.scan("jobs/"):
            ref = _job_of(info.key) or _NO_JOB
            if ref != first:
                if first is not None:
                    yield first, objects
                first, objects = ref, []
            objects.append(info)
        if first is not None:
            yield first, objects

    async def _of_job(
        self, first: JobRef, objects: Sequence[ObjectInfo], markers: Sequence[tuple[Marker | WaitingMarker, ObjectInfo]]
    ) -> list[Finding]:
        attempts: dict[int, dict[str, ObjectInfo]] = defaultdict(dict)
        found: list[Finding] = []
        for info in objects:
            match = _JOB.fullmatch(info.key)
            if match and first != _NO_JOB and _OF_A_JOB.fullmatch(match[4]):
                attempts[int(match[3] or 1)][match[4]] = info
            elif _before(info, self._old):
                found.append(_found("foreign", info))
        if not attempts:
            return found
        if self._is_over(attempts, markers):
            return [*found, *(_found("expired", info) for names in attempts.values() for info in names.values())]
        for attempt, names in attempts.items():
            ref = JobRef(first.integration, first.job_guid, attempt)
            mine = [(marker, info) for marker, info in markers if marker.ref == ref]
            found += await self._orphans(ref, names)
            found += await self._leftovers(ref, names, mine)
            if "confirmed.json" in names:
                found += [_found("marker", info) for marker, info in mine if self._is_late(marker, info)]
        return found

    def _is_over(
        self,
        attempts: dict[int, dict[str, ObjectInfo]],
        markers: Sequence[tuple[Marker | WaitingMarker, ObjectInfo]],
    ) -> bool:
        """Return whether all attempts of a job have ended, and all its objects are older than their retention."""
        if not all(_before(info, self._expired) for names in attempts.values() for info in names.values()):
            return False
        if not all(isinstance(marker, Marker) and marker.key.startswith("decided/") for marker, _ in markers):
            return False
        return all(map(_end, attempts.values()))

    async def _orphans(self, ref: JobRef, names: dict[str, ObjectInfo]) -> list[Finding]:
        """Return the parts that no manifest names. It reads a manifest only if its chunk has several parts."""
        parts: dict[tuple[str, int], list[ObjectInfo]] = defaultdict(list)
        for name, info in names.items():
            match = _PART.fullmatch(name)
            if match:
                parts[match[1], int(match[2])].append(info)
        found = []
        for (generation, number), data in parts.items():
            named: str | None = None
            if f"parts/{generation}/{number:08d}.json" in names:
                if len(data) == 1:
                    continue
                try:
                    manifest = await self._jobs.manifest(ref, generation, number)
                except JobDamaged:
                    continue
                named = manifest.data if manifest else None
            found += [_found("part", info) for info in data if info.key != named and _before(info, self._old)]
        return found

    async def _leftovers(
        self, ref: JobRef, names: dict[str, ObjectInfo], markers: Sequence[tuple[Marker | WaitingMarker, ObjectInfo]]
    ) -> list[Finding]:
        """Return the parts of an attempt that has ended, unless the pipeline will delete them itself."""
        parts = [info for name, info in names.items() if name.startswith("parts/")]
        end = _end(names)
        if not parts or end is None or not all(_before(info, self._old) for info in names.values()):
            return []
        if any(marker.key.startswith("purge/") for marker, _ in markers):
            return []
        with suppress(JobDamaged):
            outcome = await self._jobs.outcome(ref)
            done = outcome is not None and outcome.outcome == "completed" and "confirmed.json" in names
            if done or _before(end, self._failed):
                return [_found("leftover", info) for info in parts]
        return []

    def _is_late(self, marker: Marker | WaitingMarker, info: ObjectInfo) -> bool:
        """Return whether a marker should be deleted by now, given that the partner has confirmed its attempt.

        Markers of waiting records that are not about cards may still be needed: for example, if the partner has to be
        notified again.
        """
        if isinstance(marker, WaitingMarker):
            return marker.stage in _OF_CARDS and marker.due < self._old and _before(info, self._old)
        return not marker.key.startswith("purge/") and marker.over < self._old and _before(info, self._old)


def _job_of(key: str) -> JobRef | None:
    match = _JOB.fullmatch(key)
    if match is None:
        return None
    try:
        guid = UUID(match[2])
    except ValueError:
        return None
    return JobRef(match[1], guid) if str(guid) == match[2] else None  # UUID() ignores where the dashes are


def _end(names: dict[str, ObjectInfo]) -> ObjectInfo | None:
    """Return the object that ends an attempt: the partner's confirmation, or its final refusal."""
    return names.get("confirmed.json") or names.get("refused.json")


def _before(info: ObjectInfo, moment: datetime) -> bool:
    """Return whether an object was written before a time. Return False if the storage does not say when."""
    return info.modified is not None and info.modified < moment


def _found(kind: Kind, info: ObjectInfo) -> Finding:
    return Finding(kind, info.key, info.size, info.modified)

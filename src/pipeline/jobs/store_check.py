"""Finds what nobody needs any more in the job store: orphans, leftovers of ended jobs, what outlived its retention.

It reads listings, and an object only where a listing cannot decide. What is younger than a given age is passed over, so
that nothing is touched that running workers are just writing.
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
"""``part``: result bytes that no manifest names. ``leftover``: parts of a job that has ended. ``marker``: it names a
job that has ended, or that does not exist. ``expired``: older than its retention. ``probe``: a check of the store was
interrupted. ``foreign``: the pipeline makes no such name."""

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
    """Looks through a job store. It never looks into the audit log, its checkpoints and the switches of integrations.

    Args:
        jobs: The store.
        clock: Returns the time, in UTC.
        receipts_kept: How long the receipts of a job are kept.
        failed_parts_kept: How long the parts of failed and refused jobs are kept.
        age: What is younger is passed over; it must be longer than any worker may be at one object.
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
        """Yield what was found. It holds the markers of all open jobs in memory, and the names of one job's objects.

        It reads the markers before the jobs, and a job exists before its markers. So a job that begins meanwhile is no
        finding.
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
        """Yield each job with its objects. Every server lists the objects of one folder together."""
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
        """Return whether all attempts of a job have ended, and all of it is older than its retention."""
        if not all(_before(info, self._expired) for names in attempts.values() for info in names.values()):
            return False
        if not all(isinstance(marker, Marker) and marker.key.startswith("decided/") for marker, _ in markers):
            return False
        return all(map(_end, attempts.values()))

    async def _orphans(self, ref: JobRef, names: dict[str, ObjectInfo]) -> list[Finding]:
        """Return the parts that no manifest names. Only where a chunk has several, the manifest is read."""
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
        """Return the parts of an attempt that has ended, if nothing is to delete them later."""
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
        """Return whether a marker of an attempt whose partner has confirmed should be gone.

        Other records than those about the cards may wait: the partner may have asked for its notification once more.
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
    return JobRef(match[1], guid) if str(guid) == match[2] else None  # its dashes may be at other places


def _end(names: dict[str, ObjectInfo]) -> ObjectInfo | None:
    """Return what says that an attempt has ended: its partner has confirmed, or refused for good."""
    return names.get("confirmed.json") or names.get("refused.json")


def _before(info: ObjectInfo, moment: datetime) -> bool:
    """Return whether an object was written before; False if the storage does not say."""
    return info.modified is not None and info.modified < moment


def _found(kind: Kind, info: ObjectInfo) -> Finding:
    return Finding(kind, info.key, info.size, info.modified)

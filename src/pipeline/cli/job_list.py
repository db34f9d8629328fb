"""Lists jobs from the store, page by page: first open ones by deadline, then ended ones, the latest first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from pipeline.cli.exits import UsageRefused
from pipeline.cli.job_view import JobView, State, glance_at_job, view_job
from pipeline.cli.times import now
from pipeline.jobs.announcements import IntegrationUnknown
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import WAITING_MARKERS, JobRef, ended_folder, parse_ended
from pipeline.jobs.parking import Parking
from pipeline.storage import ObjectNotFound

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE: Final = 16
"""How many jobs a command reads or changes at the same time."""

ENDED: Final[frozenset[State]] = frozenset({"confirmed", "closed"})
"""States of ended jobs."""

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filter of a list.

    Attributes:
        states: Only these; empty for all open ones, and with ``since`` all.
        since: Only jobs announced or ended since then; ended jobs are looked for in the last day without it.
        until: Now.
        after: Cursor of the last job of the page before, or None for the first page.
        glance: Whether only what the columns of a list show is needed, so that less is read.
    """

    states: Collection[State]
    integration: str | None
    since: datetime | None
    until: datetime
    after: str | None
    glance: bool = False

    @property
    def open(self) -> bool:
        """Whether open jobs can be among them."""
        return not self.states or not ENDED.issuperset(self.states)

    @property
    def ended(self) -> bool:
        """Whether ended jobs can be among them."""
        return bool(ENDED.intersection(self.states)) or (not self.states and self.since is not None)

    def has(self, view: JobView) -> bool:
        """Return whether a job matches the filter."""
        if self.states and view.state not in self.states:
            return False
        return self.since is None or (bool(view.steps) and view.steps[-1][1] >= self.since)


@dataclass(frozen=True, slots=True)
class Listed:
    """One job of a list, with the cursor for the jobs after it."""

    view: JobView
    cursor: str


async def list_jobs(jobs: JobStore, wanted: Wanted, limit: int | None) -> AsyncIterator[Listed]:
    """Yield at most ``limit`` jobs; all for None.

    Each job costs one listing and up to ten reads, :data:`AT_ONCE` jobs at a time. At a glance, a job without a result
    costs one listing. Open jobs cost one listing for each 1,000 that are read, ended ones two for each day and one for
    each minute in which a job ended.
    """
    glance = wanted.glance and not wanted.states and wanted.since is None

    async def listed_job(found: tuple[str, JobRef]) -> Listed | None:
        cursor, ref = found
        try:
            view = await (glance_at_job if glance else view_job)(jobs, ref)
        except ObjectNotFound:
            return None  # deleted since it was listed
        known = view.deadline or view.waiting or view.damage
        return Listed(view, cursor) if known and wanted.has(view) else None

    async for listed in in_order(_found(jobs, wanted), listed_job):
        if listed is None:
            continue
        yield listed
        if limit is not None and (limit := limit - 1) == 0:
            return


async def in_order(items: AsyncIterator[T], work: Callable[[T], Awaitable[R]]) -> AsyncIterator[R]:
    """Yield ``work(item)`` for each item, in the items' order; :data:`AT_ONCE` of them are in work at a time."""
    batch: list[T] = []
    async for item in items:
        batch.append(item)
        if len(batch) == AT_ONCE:
            for result in await asyncio.gather(*map(work, batch)):
                yield result
            batch = []
    for result in await asyncio.gather(*map(work, batch)):
        yield result


async def _found(jobs: JobStore, wanted: Wanted) -> AsyncIterator[tuple[str, JobRef]]:
    after = wanted.after or ""
    sources = {"decided/": _decided, "open/": _open, WAITING_MARKERS: _unread, "ended/": _ended}
    begin = next((prefix for prefix in sources if after.startswith(prefix)), None)
    if after and begin is None:
        raise UsageRefused("cursor_unknown", f"{after!r} is not a cursor; give one that `job list` printed")
    order = list(sources)
    known: set[JobRef] = set()
    for prefix in order[order.index(begin) if begin else 0 :]:
        if wanted.ended if prefix == "ended/" else wanted.open:
            async for key, ref in sources[prefix](jobs, wanted, after if prefix == begin else ""):
                # a renewed job has several deadlines, and a job with a repeated notification ended twice
                if ref not in known:
                    known.add(ref)
                    yield key, ref


async def _decided(jobs: JobStore, wanted: Wanted, after: str) -> AsyncIterator[tuple[str, JobRef]]:
    """Yield the open attempts with a past deadline, the earliest first. They already have an outcome."""
    async for marker in jobs.filed("decided", after=after):
        if wanted.integration in (None, marker.ref.integration):
            yield marker.key, marker.ref


async def _open(jobs: JobStore, wanted: Wanted, after: str) -> AsyncIterator[tuple[str, JobRef]]:
    """Yield the other open attempts, the earliest deadline first."""
    async for marker in jobs.filed("open", after=after):
        if wanted.integration in (None, marker.ref.integration):
            yield marker.key, marker.ref


async def _unread(jobs: JobStore, wanted: Wanted, after: str) -> AsyncIterator[tuple[str, JobRef]]:
    """Yield the waiting jobs whose announcement no worker has stored, because none has their integration."""
    known: set[JobRef] = set()
    async for marker in Parking(jobs, now).parked():
        # the watch reads every announcement, so each such job is parked
        if (marker.code, marker.stage) != (IntegrationUnknown.CODE, "watch"):
            continue
        if marker.key <= after or marker.ref in known:
            continue
        if wanted.integration in (None, marker.ref.integration) and not await jobs.all_announcements(marker.ref):
            known.add(marker.ref)
            yield marker.key, marker.ref


async def _ended(jobs: JobStore, wanted: Wanted, after: str) -> AsyncIterator[tuple[str, JobRef]]:
    """Yield the attempts that ended, the latest minute first."""
    since = wanted.since or wanted.until - _DAY
    names = [wanted.integration] if wanted.integration else await jobs.objects.folders("ended/")
    latest = _minute_of(after) if after else ("9", "")
    day = wanted.until
    while day.date() >= since.astimezone(UTC).date():
        text = f"{day.astimezone(UTC):%Y%m%d}"
        minutes = [
            (f"{text}{minute}", name)
            for name in names
            for minute in await jobs.objects.folders(f"ended/{name}/{text}/")
            if f"{text}{minute}" >= f"{since.astimezone(UTC):%Y%m%d%H%M}"
        ]
        for minute, name in sorted(minutes, reverse=True):
            if (minute, name) > latest:
                continue
            async for key, ref in _ended_in(jobs, name, minute):
                if (minute, name) < latest or key < after:
                    yield key, ref
        day -= _DAY


async def _ended_in(jobs: JobStore, name: str, minute: str) -> AsyncIterator[tuple[str, JobRef]]:
    folder = ended_folder(name, datetime.strptime(minute, "%Y%m%d%H%M").replace(tzinfo=UTC))
    for key in sorted([info.key async for info in jobs.objects.list(folder)], reverse=True):
        if found := parse_ended(key):
            yield key, found[0]


def _minute_of(cursor: str) -> tuple[str, str]:
    parts = cursor.split("/")
    if len(parts) != 5:  # noqa: PLR2004 - ended/integration/day/minute/name
        raise UsageRefused("cursor_unknown", f"{cursor!r} is not a cursor; give one that `job list` printed")
    return f"{parts[2]}{parts[3]}", parts[1]

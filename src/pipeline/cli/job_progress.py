"""The progress of PROCESS with a job's file: its chunks, their workers, the rate, and the expected end."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from pipeline.cli.times import shown_duration
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.receipts import Announcement, Manifest, Plan, Started
from pipeline.storage import ObjectInfo

T = TypeVar("T")

_WINDOW: Final = timedelta(minutes=5)
"""The rate covers chunks that finished within this time, so an earlier pause or fault does not affect it."""

_FEW: Final = 2
"""With fewer finished chunks in that time, the rate covers all chunks since the work began."""

_MOST_READ: Final = 64
"""Maximum number of starts to read, so that requests do not grow with the number of chunks."""

_FIRST_SECONDS: Final = 1.0
"""Minimum seconds for a rate, since S3's times have a resolution of a second."""

_LEAST_RATE: Final = 0.1
_MANIFEST: Final = re.compile(r"(\d{8,})\.json")
_START: Final = re.compile(r"started/(\d{8,})/([1-9]\d*)(\.ended)?\.json")
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_WORKER_CHARS: Final = 6


class Read(Protocol):
    """Reads an object of the job. Returns None if it is missing or damaged, and records the damage."""

    def __call__(self, call: Callable[[], Awaitable[T | None]]) -> Awaitable[T | None]:
        """Return what the call gives."""
        ...


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker of PROCESS with chunks of the job.

    Attributes:
        host: Where it runs.
        ident: Tells it from other workers of that host.
        chunks: Numbers of the chunks that it has begun and not finished; empty if it does the file alone.
        since: When it began the first of them.
    """

    host: str
    ident: str
    chunks: Sequence[int]
    since: datetime

    @property
    def name(self) -> str:
        """Host and the beginning of its id."""
        return f"{self.host or '-'}/{self.ident[:_WORKER_CHARS]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """The progress of PROCESS.

    Attributes:
        shared: Whether all workers share the chunks. Otherwise one worker does the file.
        done: Finished chunks.
        total: How many chunks there are. An estimate unless they are shared; None before the first is finished.
        in_work: How many chunks are begun and not finished; None unless they are shared.
        waiting: How many chunks were begun and could not be done: they are tried again.
        cards: Cards of the finished chunks; an estimate while some chunks are not finished.
        cards_total: Cards of the file; as announced, unless the chunks are shared.
        rate: Cards per second; None before there is one.
        end: When all cards are decided, at this rate; None without a rate, or while the job waits.
        deadline: The job's deadline.
        workers: Who works on it; at most of 64 chunks.
    """

    shared: bool
    done: int
    total: int | None
    in_work: int | None
    waiting: int
    cards: int
    cards_total: int | None
    rate: float | None
    end: datetime | None
    deadline: datetime | None
    workers: Sequence[Worker]

    @property
    def in_time(self) -> bool | None:
        """Whether the expected end is before the deadline."""
        return None if self.end is None or self.deadline is None else self.end <= self.deadline

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values (docs/reference/cli.md)."""
        return {
            "shared": self.shared,
            "chunks": {"done": self.done, "in_work": self.in_work, "waiting": self.waiting, "total": self.total},
            "cards": {"done": self.cards, "total": self.cards_total},
            "cards_per_second": None if self.rate is None else round(self.rate, 1),
            "expected_end": self.end and self.end.isoformat(timespec="seconds"),
            "in_time": self.in_time,
            "workers": [
                {"host": one.host, "worker": one.ident, "chunks": [*one.chunks], "since": one.since.isoformat()}
                for one in self.workers
            ],
        }

    def fields(self, until: datetime) -> Iterator[tuple[str, str]]:
        """Yield names and values for people."""
        yield "chunks", ", ".join(self._chunks())
        yield "cards", self._cards()
        for worker in self.workers:
            yield f"worker {worker.name}", _work_of(worker, until)
        if self.rate is not None:
            yield "rate", f"{shown_rate(self.rate)} cards/s"
        if self.end is not None:
            yield "expected end", self._end(self.end, until)

    def _chunks(self) -> Iterator[str]:
        about = "" if self.shared else "about "
        yield f"{self.done} done" if self.total is None else f"{self.done} of {about}{self.total} done"
        if self.in_work is not None:
            yield f"{self.in_work} in work"
        if self.waiting:
            yield f"{self.waiting} will be tried again"
        yield "shared by all workers" if self.shared else "one worker does the file"

    def _cards(self) -> str:
        if not self.cards_total:
            return f"{self.cards:,} decided"
        return f"{self.cards:,} of {self.cards_total:,} decided ({self.cards / self.cards_total:.0%})"

    def _end(self, end: datetime, until: datetime) -> str:
        text = f"{end.isoformat(timespec='seconds')} (in {shown_duration(end - until)}"
        if self.deadline is None:
            return f"{text})"
        if end <= self.deadline:
            return f"{text}, {shown_duration(self.deadline - end)} before the deadline)"
        return f"{text}, TOO LATE: {shown_duration(end - self.deadline)} after the deadline)"


def shown_rate(rate: float) -> str:
    """Return a rate as text for people."""
    if rate < _LEAST_RATE:
        return f"less than {_LEAST_RATE}"
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"  # noqa: PLR2004 - two digits say enough


def _work_of(worker: Worker, until: datetime) -> str:
    since = f"for {shown_duration(max(until - worker.since, timedelta()))}"
    if not worker.chunks:
        return f"does the file, {since}"
    numbers = ", ".join(str(number) for number in islice(worker.chunks, 8))
    more = f" and {len(worker.chunks) - 8} more" if len(worker.chunks) > 8 else ""  # noqa: PLR2004 - one line
    return f"chunk{'s' if len(worker.chunks) > 1 else ''} {numbers}{more}, {since}"


@dataclass(slots=True)
class _Generation:
    """One generation of parts in a listing.

    Attributes:
        latest: When its latest object was written.
        planned: When its plan was complete.
        finished: When each finished chunk was.
        starts: The last start of each begun chunk.
        ended: The starts that ended without a finished chunk.
    """

    name: str
    latest: datetime = _LONG_AGO
    planned: datetime | None = None
    finished: dict[int, datetime | None] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    ended: set[tuple[int, int]] = field(default_factory=set)

    def add(self, name: str, modified: datetime | None) -> None:
        self.latest = max(self.latest, modified or _LONG_AGO)
        if found := _MANIFEST.fullmatch(name):
            self.finished[int(found[1])] = modified
        elif found := _START.fullmatch(name):
            number, count = int(found[1]), int(found[2])
            if found[3]:
                self.ended.add((number, count))
            else:
                self.starts[number] = max(self.starts.get(number, 0), count)
        elif name == "plan.json":
            self.planned = modified or _LONG_AGO

    @property
    def begun(self) -> Mapping[int, int]:
        """The started but unfinished chunks, with their last start."""
        return {number: self.starts[number] for number in sorted(self.starts.keys() - self.finished.keys())}


def _latest_generation(ref: JobRef, listed: Iterable[ObjectInfo]) -> _Generation | None:
    """Return the most recently written generation. The others belong to earlier files or settings."""
    found: dict[str, _Generation] = {}
    for info in listed:
        if info.key.startswith(ref.parts()):
            generation, _, name = info.key.removeprefix(ref.parts()).partition("/")
            found.setdefault(generation, _Generation(generation)).add(name, info.modified)
    return max(found.values(), key=lambda one: (one.latest, len(one.finished)), default=None)


async def progress_of(
    jobs: JobStore,
    ref: JobRef,
    listed: Sequence[ObjectInfo],
    read: Read,
    *,
    announcement: Announcement | None,
    held: Started | None,
    waits: bool,
    until: datetime,
) -> JobProgress:
    """Return the progress of PROCESS. Needs a listing, one object of the parts, and some starts of chunks.

    Args:
        jobs: The job store.
        ref: The attempt.
        listed: The objects of the job.
        read: Reads one of them.
        announcement: The newest one.
        held: The start of the worker that does the file alone.
        waits: Whether the whole job waits.
        until: Now.
    """
    generation = _latest_generation(ref, listed) or _Generation("")
    plan = await read(lambda: jobs.plan(ref, generation.name)) if generation.planned is not None else None
    announced = announcement.request.record_count if announcement else None
    deadline = announcement.deadline if announcement else None
    cards_total = plan.records if plan else announced
    in_chunk = await _cards_in_a_chunk(jobs, ref, generation, plan, read)
    done = len(generation.finished)
    cards = round(done * in_chunk)
    total = plan.chunks if plan else math.ceil(cards_total / in_chunk) if cards_total and in_chunk else None
    began = generation.planned if plan else held.at if held else None
    rate = _rate(generation, in_chunk, began, until)
    left = max(0, (cards_total or cards) - cards)
    trying = {number: count for number, count in generation.begun.items() if (number, count) not in generation.ended}
    return JobProgress(
        shared=plan is not None,
        done=done,
        total=total if total is None else max(total, done),
        in_work=len(trying) if plan else None,
        waiting=len(generation.begun) - len(trying),
        cards=min(cards, cards_total) if cards_total else cards,
        cards_total=cards_total,
        rate=rate,
        end=until + timedelta(seconds=left / rate) if rate and not waits else None,
        deadline=deadline,
        workers=await _workers(jobs, ref, generation, trying, read) if plan else _alone(held),
    )


async def _cards_in_a_chunk(
    jobs: JobStore, ref: JobRef, generation: _Generation, plan: Plan | None, read: Read
) -> float:
    """Return the mean; 0 before it is known."""
    if plan is not None:
        return plan.records / plan.chunks
    if not generation.finished:
        return 0.0
    number = max(generation.finished)
    last: Manifest | None = await read(lambda: jobs.manifest(ref, generation.name, number))
    return last.end.record / (number + 1) if last else 0.0


def _rate(generation: _Generation, in_chunk: float, began: datetime | None, until: datetime) -> float | None:
    times = [at for at in generation.finished.values() if at is not None]
    if began is None or not times:
        return None
    until = max(until, *times)  # the clock of the store may be ahead
    since = max(began, until - _WINDOW)
    if sum(at >= since for at in times) < _FEW:
        since = began
    seconds, chunks = (until - since).total_seconds(), sum(at >= since for at in times)
    return chunks * in_chunk / seconds if seconds >= _FIRST_SECONDS and chunks and in_chunk else None


def _alone(held: Started | None) -> Sequence[Worker]:
    return [Worker(held.host, held.worker, (), held.at)] if held else []


async def _workers(
    jobs: JobStore, ref: JobRef, generation: _Generation, trying: Mapping[int, int], read: Read
) -> Sequence[Worker]:
    async def start(number: int, count: int) -> tuple[int, Started | None]:
        key = f"{ref.chunk_starts(generation.name, number)}{count}.json"
        return number, await read(lambda: jobs.receipt(key, Started))

    found: dict[str, list[tuple[int, Started]]] = {}
    for number, one in await asyncio.gather(*(start(*each) for each in islice(trying.items(), _MOST_READ))):
        if one is not None:
            found.setdefault(one.worker, []).append((number, one))
    workers = [
        Worker(own[0][1].host, ident, [number for number, _ in own], min(one.at for _, one in own))
        for ident, own in found.items()
    ]
    return sorted(workers, key=lambda one: (one.host, one.ident))

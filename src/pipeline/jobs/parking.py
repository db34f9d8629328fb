"""Parking: a job that cannot be done now waits in the job store, where it blocks neither a slot nor a partition.

A receipt holds the record, and a marker says when it is due. Once both exist, the record's offset may be committed. The
deadline watch publishes the record to its topic again when it is due.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import structlog
from pydantic import ValidationError

from pipeline.contracts import (
    RETRY_ATTEMPT_HEADER,
    RETRY_COUNT_HEADER,
    RETRY_DEADLINE_HEADER,
    RETRY_FIRST_AT_HEADER,
    JobMessage,
    Record,
    Topic,
    first_values,
    parse_job_key,
    stable_hash,
)
from pipeline.errors import PermanentError, TransientError, Untried
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import WAITING_MARKERS, WAITING_RECEIPT, JobRef, WaitingMarker, parse_waiting_marker
from pipeline.jobs.receipts import Waiting
from pipeline.jobs.wording import shorten
from pipeline.retry import RetryPolicy

log = structlog.get_logger(__name__)

T = TypeVar("T")

CALLS_AT_ONCE: Final = 16
"""Maximum number of concurrent calls to the store and the broker when many jobs are resumed."""

_RETRY: Final = RetryPolicy(30.0, 900.0)
_MESSAGE_LIMIT: Final = 500
_NUMBER: Final = re.compile(r"[0-9]{1,8}")
_CHUNKS_LOOKED_AT: Final = 16
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_WAITS_KEPT: Final = 10_000
"""How many of its own waits a process remembers. For forgotten ones it reads the store."""


class Parking:
    """Parks jobs, shows why they wait, and resumes them. It needs only the store, so commands can use it.

    Args:
        jobs: The job store.
        clock: Returns the time, in UTC.
        retry: How long a job waits, depending on how often it has waited.
        worker: Name of the worker that parks, for operators; by default this host.
    """

    def __init__(
        self,
        jobs: JobStore,
        clock: Callable[[], datetime],
        retry: RetryPolicy = _RETRY,
        *,
        worker: str | None = None,
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._retry = retry
        self._worker = worker or socket.gethostname()
        self._parked: dict[tuple[str, str, str], int] = {}

    async def park(
        self, record: Record, stage: str, error: TransientError, *, due: datetime | None = None
    ) -> Waiting | None:
        """Let a record wait; return its receipt, or None if its key is not that of a job.

        It is safe to repeat, and to run at the same time as another worker. Once it returns a receipt, the record's
        offset may be committed. Copies of a record share one wait: a second copy gets the receipt of the wait that is
        filed already. A wait that was never filed, because its worker died, is treated as over.

        Args:
            record: The record that the stage read.
            stage: The stage, which is also the name of its consumer group.
            error: Why the job cannot be done now.
            due: When to try it again. By default, the pause grows with the number of waits, but takes at most half of
                the time that is left before the job's deadline. It is at least as long as the error asks for.
        """
        job = parse_job_key(record.key)
        if job is None:
            return None
        over = _number(first_values(record.headers).get(RETRY_COUNT_HEADER))
        ref, deadline = await self._job_of(JobRef(*job), record)
        wanted = await self._wait(ref, record, stage, error, count=over + 1, deadline=deadline, due=due)
        existing = None
        with suppress(PermanentError):  # it exists, and is damaged
            existing = await self._jobs.record_waiting(wanted)
        if existing is None or existing.nonce != wanted.nonce:
            before, last = await self._last_wait(ref, stage, _record_id(record))
            # the wait that produced this copy is over, even if the watch has not deleted its marker yet
            if last is not None and last.count > over and await self._jobs.is_filed(last.marker):
                return last
            count = max(before, over) + 1
            wanted = await self._wait(ref, record, stage, error, count=count, deadline=deadline, due=due)
            existing = await self._jobs.record_waiting(wanted)
        await self._jobs.file_waiting(existing.marker)
        self._remember(record, stage, existing.count)
        return existing

    async def _wait(
        self,
        ref: JobRef,
        record: Record,
        stage: str,
        error: TransientError,
        *,
        count: int,
        deadline: datetime | None,
        due: datetime | None,
    ) -> Waiting:
        """Return the receipt of a wait; see :meth:`park`."""
        headers, now = first_values(record.headers), self._clock()
        if due is None:
            due = now + timedelta(seconds=await self._pause(ref, stage, error, count=count, now=now, deadline=deadline))
        return Waiting(
            integration=ref.integration,
            job_guid=ref.job_guid,
            attempt=ref.attempt,
            stage=stage,
            record_id=_record_id(record),
            count=count,
            code=error.code,
            message=shorten(error.message, _MESSAGE_LIMIT),
            tries=record.attempt,
            first_at=_time(headers.get(RETRY_FIRST_AT_HEADER)) or now,
            at=now,
            due=_whole_second(due),
            worker=self._worker,
            deadline=deadline,
            topic=record.topic,
            partition=record.partition,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )

    def _remember(self, record: Record, stage: str, count: int) -> None:
        name = (stage, record.key, _record_id(record))
        self._parked.pop(name, None)
        self._parked[name] = count
        if len(self._parked) > _WAITS_KEPT:
            del self._parked[next(iter(self._parked))]

    def is_next(self, record: Record, stage: str) -> bool:
        """Return whether a copy comes from the last wait that this process parked: then it needs not ask :meth:`waits`.

        Another process may have parked another copy meanwhile. Then this copy is tried once too early.
        """
        over = _number(first_values(record.headers).get(RETRY_COUNT_HEADER))
        return self._parked.get((stage, record.key, _record_id(record))) == over

    async def waits(self, record: Record, stage: str) -> bool:
        """Return whether this record is parked now. If so, another copy of it must not shorten the wait."""
        job = parse_job_key(record.key)
        if job is None:
            return False
        ref, name = JobRef(*job), _record_id(record)
        count = _number(first_values(record.headers).get(RETRY_COUNT_HEADER)) + 1
        try:
            if await self.receipt(WaitingMarker(ref, stage, name, count, "", self._clock())) is None:
                return False  # nearly always, and this costs one request
        except PermanentError:
            pass  # the receipt is damaged: the last wait decides
        _, last = await self._last_wait(ref, stage, name)
        return last is not None and await self._jobs.is_filed(last.marker)

    async def waiting(self, ref: JobRef) -> Waiting | None:
        """Return the current wait of a job, or None if it does not wait.

        For a shared file, it checks only the 16 chunks that began to wait last, because a large job has many.
        """
        last = await self._last_receipts(ref.waiting, ref)
        chunks = sorted((at, record) for record, (_, _, at) in last.items() if record.startswith("chunks-"))
        for _, record in chunks[:-_CHUNKS_LOOKED_AT]:
            del last[record]
        for one in sorted(await self._read_waits(last), key=lambda one: one.at, reverse=True):
            if one.attempt == ref.attempt and await self._jobs.is_filed(one.marker):
                return one
        return None

    async def receipt(self, marker: WaitingMarker) -> Waiting | None:
        """Return the receipt of a wait, or None if it was deleted."""
        return await self._jobs.receipt(marker.receipt, Waiting)

    async def parked(self) -> AsyncIterator[WaitingMarker]:
        """Yield the markers of all parked jobs, the earliest due first. It ignores foreign objects."""
        async for info in self._jobs.objects.scan(WAITING_MARKERS):
            marker = parse_waiting_marker(info.key)
            if marker is not None:
                yield marker

    async def resume(self, target: JobRef | str, *, stage: str | None = None, code: str | None = None) -> int:
        """Make parked jobs due now; return how many records are affected. Safe to repeat, also at the same time.

        Args:
            target: One attempt of one job, or all jobs of an integration (its name).
            stage: Only records that wait for this stage.
            code: Only records that wait because of this error code.
        """
        now = self._clock()
        due = _whole_second(now - timedelta(seconds=1))
        found = [
            marker
            for marker in await self._markers(target)
            if stage in (None, marker.stage) and code in (None, marker.code) and marker.due > now
        ]

        async def move(marker: WaitingMarker) -> None:
            await self._jobs.file_waiting(replace(marker, due=due))
            await self._jobs.unfile(marker.key)

        await at_once(move, found)
        return len(found)

    async def drop(self, ref: JobRef) -> int:
        """Remove a job's attempt from the parked jobs, e.g. because it was cancelled; return how many waits ended."""
        if not await self._last_waits(ref):
            return 0  # most jobs never wait, and a listing of all parked jobs takes long
        found = [marker async for marker in self.parked() if marker.ref == ref]
        await at_once(lambda marker: self._jobs.unfile(marker.key), found)
        return len(found)

    async def _markers(self, target: JobRef | str) -> list[WaitingMarker]:
        if isinstance(target, JobRef):
            last = [one.marker for one in await self._last_waits(target) if one.attempt == target.attempt]
            return [marker for marker in last if await self._jobs.is_filed(marker)]
        return [marker async for marker in self.parked() if marker.ref.integration == target]

    async def _last_waits(self, ref: JobRef) -> list[Waiting]:
        """Return the last wait of each record of the job that has ever waited."""
        return await self._read_waits(await self._last_receipts(ref.waiting, ref))

    async def _read_waits(self, last: Mapping[str, tuple[int, str, datetime]]) -> list[Waiting]:
        found = [await self._jobs.receipt(key, Waiting) for _, key, _ in last.values()]
        return [one for one in found if one is not None]

    async def _last_wait(self, ref: JobRef, stage: str, record: str) -> tuple[int, Waiting | None]:
        """Return how often a record has waited, and its last wait, unless that is damaged."""
        last = await self._last_receipts(f"{ref.waiting}{stage}-{record}-", ref)
        for count, key, _ in last.values():
            try:
                return count, await self._jobs.receipt(key, Waiting)
            except PermanentError:
                return count, None
        return 0, None

    async def _last_receipts(self, prefix: str, ref: JobRef) -> dict[str, tuple[int, str, datetime]]:
        """Return count and key of the last wait of each record, and when it was written."""
        last: dict[str, tuple[int, str, datetime]] = {}
        async for info in self._jobs.objects.list(prefix):
            match = WAITING_RECEIPT.fullmatch(info.key.removeprefix(ref.waiting))
            if match:
                found = (int(match["count"]), info.key, info.modified or _LONG_AGO)
                last[match["record"]] = max(last.get(match["record"], found), found)
        return last

    async def _job_of(self, first: JobRef, record: Record) -> tuple[JobRef, datetime | None]:
        """Return the attempt that a record is about, and its deadline if that is known without another request."""
        headers = first_values(record.headers)
        if record.topic != Topic.BATCH_REQUESTED:
            try:
                attempt = JobMessage.model_validate_json(record.value).attempt
            except ValidationError:
                attempt = 1
            return replace(first, attempt=attempt), None
        attempt, deadline = _number(headers.get(RETRY_ATTEMPT_HEADER)), _time(headers.get(RETRY_DEADLINE_HEADER))
        if attempt and deadline and deadline > self._clock():
            return replace(first, attempt=attempt), deadline  # a later deadline was announced by another record
        try:
            stored = await self._jobs.all_announcements(first)
        except PermanentError:
            stored = []  # the job's data is damaged, which may be why it waits
        mine = next((one for one in stored if one.id == headers.get("ce_id", "")[:16]), None)
        if mine is None:
            return first, None
        ref = replace(first, attempt=mine.attempt)
        return ref, max(one.deadline for one in stored if one.attempt == mine.attempt)

    async def _pause(
        self, ref: JobRef, stage: str, error: TransientError, *, count: int, now: datetime, deadline: datetime | None
    ) -> float:
        asked = error.retry_after
        if asked is not None and (stage == "confirm" or isinstance(error, Untried)):
            return asked  # the caller's pause grows already, or lasts until the end of a known condition
        pause = self._retry.pause(count)
        if stage in {"process", "chunks", "upload"}:
            pause = min(pause, await self._half_of_the_time_left(ref, now, deadline))
        return max(pause, asked or 0.0)

    async def _half_of_the_time_left(self, ref: JobRef, now: datetime, deadline: datetime | None) -> float:
        try:
            left = ((deadline or (await self._jobs.newest(ref)).deadline) - now).total_seconds()
        except PermanentError:
            return math.inf  # its announcement is damaged, or not stored yet, because no worker knows the integration
        if left <= 0:
            return math.inf  # the watch fails the job in time; more tries do not help
        return max(left / 2, self._retry.first_seconds)


async def at_once(call: Callable[[T], Awaitable[object]], items: Sequence[T]) -> None:
    """Call a function for each item, several at a time.

    If a call fails, it raises the error after the others have ended.
    """
    for start in range(0, len(items), CALLS_AT_ONCE):
        done = await asyncio.gather(*map(call, items[start : start + CALLS_AT_ONCE]), return_exceptions=True)
        for error in done:
            if isinstance(error, BaseException):
                raise error


def _record_id(record: Record) -> str:
    """Return an id that is equal for copies of one record, and different for other records."""
    return stable_hash(first_values(record.headers).get("ce_id", ""), record.value)[:16]


def _whole_second(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=bool(at.microsecond))


def _number(text: str | None) -> int:
    return int(text) if text and _NUMBER.fullmatch(text) else 0


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found if found and found.tzinfo else None

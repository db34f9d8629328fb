"""Counts the workers that died while they worked on a job, so that no job can kill one worker after another.

If a worker dies, each job that it was working on is a suspect. A worker runs suspects one at a time, so that another
death points to one job. A suspect that finishes a chunk is innocent.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar
from uuid import uuid4

import structlog
from pydantic import ValidationError

from pipeline.errors import PermanentError, PipelineError, TransientError
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.receipts import Receipt, Started, StartEnded
from pipeline.jobs.stage import StageContext
from pipeline.kafka.protocols import Lease
from pipeline.storage import ObjectNotFound

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=Receipt)

MOST_DEATHS: Final = 3
"""A job fails after this many deaths of its workers. After fewer, something else may be the cause."""

_NAME: Final = re.compile(r"([1-9]\d*)(\.ended)?\.json")
_SHARED: Final = "shared"
_ALONE_SECONDS: Final = 60.0
"""How long a suspect runs alone the first time. The time doubles after each time without a finished chunk."""

_LONGEST_ALONE_SECONDS: Final = 3600.0
_WAIT_SECONDS: Final = 10.0
"""How long a suspect waits for its turn before it frees its slot and tries again later."""

_END_SECONDS: Final = 5.0
"""How long a stopping worker tries to record that it did not die."""


class Start:
    """The work of one worker on one job's file."""

    def __init__(self, alone: asyncio.Lock | None) -> None:
        self._alone = alone
        self.sharing: asyncio.Task[None] | None = None

    def progressed(self) -> None:
        """Note a finished chunk: the job did not cause the earlier deaths."""
        if self._alone is not None:
            self._alone.release()
            self._alone = None
        if self.sharing is not None:
            self.sharing.cancel()
            self.sharing = None


class Starts:
    """The starts of jobs in one worker."""

    def __init__(self, context: StageContext) -> None:
        self._context = context
        self._jobs = context.jobs
        self._worker = uuid4().hex
        self._alone = asyncio.Lock()

    @asynccontextmanager
    async def run(self, ref: JobRef, lease: Lease) -> AsyncIterator[Start]:
        """Record that work on a job's file starts; if the block raises, record its end. Success needs no record.

        Raises:
            PermanentError: Several workers died while they worked on this job, and finished no chunk.
            TransientError: Another suspect is running. Try again later.
        """
        async with self._run(f"{ref.work}started/", lease, ref) as (start, _):
            yield start

    @asynccontextmanager
    async def plan(self, ref: JobRef, lease: Lease) -> AsyncIterator[None]:
        """Record the start and the end of the block, which divides a job's file among the workers.

        Afterwards the job waits for other workers. If this worker dies then, the file is not the cause. Raises as
        :meth:`run`.
        """
        folder = f"{ref.work}started/"
        async with self._run(folder, lease, ref) as (_, (number, chunks)):
            yield
            await self._end(folder, number, chunks, "planned")

    @asynccontextmanager
    async def chunk(self, ref: JobRef, generation: str, number: int, lease: Lease) -> AsyncIterator[None]:
        """Record that work on one chunk starts; if the block raises, record its end.

        Each chunk is counted separately, because finished chunks on other workers prove nothing about this one. It
        raises the errors of :meth:`run`.
        """
        async with self._run(ref.chunk_starts(generation, number), lease, None):
            yield

    @asynccontextmanager
    async def _run(self, folder: str, lease: Lease, ref: JobRef | None) -> AsyncIterator[tuple[Start, tuple[int, int]]]:
        await lease.ensure()
        if await self._create(folder, "1", self._started(1, 0)):
            start, number, chunks = Start(None), 1, 0
        else:
            start, number, chunks = await self._start_again(folder, lease, ref)
        try:
            yield start, (number, chunks)
        except BaseException as error:
            await self._end(folder, number, chunks, getattr(error, "code", "stopped"))
            raise
        finally:
            start.progressed()

    async def _start_again(self, folder: str, lease: Lease, ref: JobRef | None) -> tuple[Start, int, int]:
        chunks = sum(map(len, (await self._jobs.finished_chunks(ref)).values())) if ref else 0
        last, begun, ended = await self._read(folder)
        for mine in (one for one in begun if one.worker == self._worker):
            # this process is alive, so that start was no death; the store was unavailable when its end was recorded
            await self._end(folder, mine.number, mine.chunks, "unrecorded")
        deaths = sum(one.worker != self._worker and one.chunks >= chunks for one in begun)
        if deaths >= MOST_DEATHS:
            raise _worker_crashed(deaths)
        alone = None
        if deaths:
            log.warning("job_suspected", deaths=deaths, chunks=chunks)
            alone = await self._turn()
        try:
            seconds = await self._alone_seconds(folder, ended, chunks) if alone is not None else 0.0
            await lease.ensure()
            number = last + 1
            while not await self._create(folder, str(number), self._started(number, chunks)):
                number += 1
        except BaseException:
            if alone is not None:
                alone.release()
            raise
        start = Start(alone)
        if alone is not None:
            start.sharing = asyncio.create_task(self._share(folder, number, chunks, seconds, start))
        return start, number, chunks

    async def _read(self, folder: str) -> tuple[int, list[Started], list[int]]:
        """Return the highest number of all starts, the starts without an end, and the numbers of the ended ones."""
        keys = [info.key async for info in self._jobs.objects.list(folder)]
        found = [match for key in keys if (match := _NAME.fullmatch(key.removeprefix(folder)))]
        ended = {int(match[1]) for match in found if match[2]}
        begun = {int(match[1]) for match in found if not match[2]}
        starts = [await self._get(folder, str(number), Started) for number in sorted(begun - ended)]
        return max(begun, default=0), [start for start in starts if start is not None], sorted(ended)

    async def _alone_seconds(self, folder: str, ended: Sequence[int], chunks: int) -> float:
        """Return how long a suspect runs alone: longer after each time that it ran alone and finished no chunk."""
        ends = [await self._get(folder, f"{number}.ended", StartEnded) for number in ended]
        tries = sum(end is not None and end.reason == _SHARED and end.chunks >= chunks for end in ends)
        return min(_ALONE_SECONDS * 2.0**tries, _LONGEST_ALONE_SECONDS)

    async def _get(self, folder: str, name: str, model: type[R]) -> R | None:
        try:
            return model.model_validate_json(await self._jobs.objects.get(f"{folder}{name}.json"))
        except (ObjectNotFound, ValidationError):
            log.warning("start_unreadable", name=name)
            return None  # it is only used for counting

    async def _create(self, folder: str, name: str, receipt: Receipt) -> bool:
        return await self._jobs.objects.create(f"{folder}{name}.json", receipt.model_dump_json().encode())

    def _started(self, number: int, chunks: int) -> Started:
        return Started(
            number=number, chunks=chunks, worker=self._worker, host=socket.gethostname(), at=self._context.clock()
        )

    async def _turn(self) -> asyncio.Lock:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._alone.acquire()
        except TimeoutError:
            raise TransientError(
                "suspect_waits",
                "A worker died while it worked on this job and on others; they run again one after another.",
                retry_after=_WAIT_SECONDS,
            ) from None
        return self._alone

    async def _share(self, folder: str, number: int, chunks: int, seconds: float, start: Start) -> None:
        """After some time, let other suspects run too. From then on, a death proves nothing about this one."""
        await asyncio.sleep(seconds)
        await self._end(folder, number, chunks, _SHARED)
        start.sharing = None
        start.progressed()

    async def _end(self, folder: str, number: int, chunks: int, reason: str) -> None:
        end = StartEnded(number=number, reason=reason, chunks=chunks, at=self._context.clock())
        with suppress(PipelineError, TimeoutError):  # the next start of this process records it
            async with asyncio.timeout(_END_SECONDS):
                await self._create(folder, f"{number}.ended", end)


def _worker_crashed(deaths: int) -> PermanentError:
    return PermanentError(
        "worker_crashed",
        f"{deaths} workers in a row died while they processed this file, and finished no further cards (out of "
        "memory, or a fault of the processor's libraries). It is not tried again.",
    )

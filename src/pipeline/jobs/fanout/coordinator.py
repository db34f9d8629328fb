"""Publishes the chunks of a planned file for all workers, and waits until all are done."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from pipeline.errors import Untried
from pipeline.jobs.chunk_work import FileRules
from pipeline.jobs.fanout.planner import sends_ranges
from pipeline.jobs.messages import StageMessage, chunk_record
from pipeline.jobs.outcomes import OutcomeExists
from pipeline.jobs.parking import at_once
from pipeline.jobs.receipts import Announcement, Manifest, Plan, Source
from pipeline.jobs.stage import StageContext
from pipeline.jobs.transfer import UrlSource

log = structlog.get_logger(__name__)

_SHORTEST_STEP: Final = 0.2
_FIRST_STEP: Final = 0.5
_LONGEST_STEP: Final = 5.0
"""Seconds between two listings of the finished chunks.

The pause gets shorter the more chunks are finished between two listings, so that no worker is idle.
"""

_REPEAT_SECONDS: Final = 60.0
"""An unfinished chunk is published again after this time, then after twice the time, and so on.

A record is lost only if an operator skips it. The copy has the same key as the first record, so it comes later in the
same partition, and the worker that gets it finds the manifest.
"""

_PATIENCE_SECONDS: Final = 300.0
"""If no chunk is finished during this time, the job is parked: its chunks probably wait for a host."""
_PARKED_SECONDS: Final = 30.0

_SHARED_JOBS: Final = 8
"""Maximum number of shared jobs of one integration that a worker plans and coordinates at a time."""


class SharedJobs:
    """The shared jobs that one worker coordinates, by integration.

    Each one occupies a slot of PROCESS until it ends. Together they use at most half of the slots, so that small jobs
    find a free slot.

    Args:
        concurrency: How many jobs of one integration and one partition PROCESS handles at a time.
        slots: How many jobs PROCESS handles at a time, over all partitions and integrations.
    """

    def __init__(self, *, concurrency: int, slots: int) -> None:
        self._most = max(min(_SHARED_JOBS, concurrency // 2), 1)
        self._most_in_all = max(slots // 2, 1)
        self._running = Counter[str]()

    @contextmanager
    def one_of(self, integration: str) -> Iterator[None]:
        """Count one more shared job until the end of the block.

        Raises:
            Untried: So many are running that small jobs might find no free slot.
        """
        if self._running.total() >= self._most_in_all:
            raise _too_many(self._most_in_all, "all integrations")
        if self._running[integration] >= self._most:
            raise _too_many(self._most, "the integration")
        self._running[integration] += 1
        try:
            yield
        finally:
            self._running[integration] -= 1


def _too_many(most: int, whose: str) -> Untried:
    return Untried(
        "shared_jobs_wait",
        f"This worker already coordinates {most} large files of {whose}, the most at a time; this one waits until one "
        "of them is done.",
        retry_after=_PARKED_SECONDS,
    )


@dataclass(slots=True)
class _HandedOut:
    """When a chunk was last published (monotonic clock), and how often."""

    at: float
    times: int = 1


class Coordinator:
    """Publishes the chunks of one generation for all workers, for one message.

    At most ``limits.fanout_chunks`` chunks are published and unfinished at a time. The manifests in the store show
    which chunks are finished. So if a coordinator dies, another one continues without its state.

    Args:
        on_finished: Called once per run with the manifest of each finished chunk.
    """

    def __init__(
        self,
        context: StageContext,
        rules: FileRules,
        message: StageMessage,
        url: UrlSource,
        on_finished: Callable[[Manifest], None],
    ) -> None:
        self._context = context
        self._jobs = context.jobs
        self._rules = rules
        self._message = message
        self._ref = message.ref
        self._url = url
        self._on_finished = on_finished
        self._finished: set[int] = set()
        self._out: dict[int, _HandedOut] = {}
        self._next = 0

    async def run(self, generation: str, source: Source, plan: Plan, announcement: Announcement) -> None:
        """Publish the chunks, and return when each has its manifest.

        Raises:
            OutcomeExists: The job's outcome was decided meanwhile, for example because a chunk failed.
            SourceChanged: A worker found another file, and this worker confirms it.
            Untried: No chunk was finished for a long time.
            LeaseLost: Another worker may coordinate this job.
        """
        step, progressed = _FIRST_STEP, time.monotonic()
        while True:
            await self._message.lease.ensure()
            if await self._jobs.outcome(self._ref) is not None:
                raise OutcomeExists
            fresh = await self._look(generation, source, plan)
            if len(self._finished) == plan.chunks:
                return
            now = time.monotonic()
            progressed = now if fresh else progressed
            if now - progressed > _PATIENCE_SECONDS:
                raise _chunks_wait(len(self._finished), plan.chunks)
            await self._hand_out(generation, plan, announcement)
            if fresh * 4 >= self._rules.limits.fanout_chunks:
                step = max(step / 2, _SHORTEST_STEP)
            elif not fresh:
                step = min(step * 1.5, _LONGEST_STEP)
            await asyncio.sleep(_pause(step, fresh, plan.chunks - len(self._finished)))

    async def _look(self, generation: str, source: Source, plan: Plan) -> int:
        """Record the chunks that were finished since the last listing, and return their number."""
        finished, changed = await self._jobs.finished_in(self._ref, generation, plan.chunks)
        if changed:
            # raises SourceChanged if it is no longer the generation's file: then the new file is split
            await sends_ranges(self._rules, self._url, source)
        fresh = sorted(number for number in finished - self._finished if number < plan.chunks)
        for manifest in await self._jobs.manifests(self._ref, generation, fresh):
            self._on_finished(manifest)
        self._finished.update(fresh)
        for number in fresh:
            self._out.pop(number, None)
        return len(fresh)

    async def _hand_out(self, generation: str, plan: Plan, announcement: Announcement) -> None:
        now = time.monotonic()
        late = [number for number, one in self._out.items() if now - one.at > _REPEAT_SECONDS * 2 ** (one.times - 1)]
        new: list[int] = []
        while len(self._out) + len(new) < self._rules.limits.fanout_chunks and self._next < plan.chunks:
            if self._next not in self._finished:
                new.append(self._next)
            self._next += 1
        if not late and not new:
            return
        await self._message.lease.ensure()

        async def publish(number: int) -> None:
            await self._context.publisher.publish(chunk_record(self._message, announcement, plan, generation, number))

        await at_once(publish, [*late, *new])
        for number in late:
            self._out[number] = _HandedOut(now, self._out[number].times + 1)
        self._out |= {number: _HandedOut(now) for number in new}
        chunks = self._context.metrics.chunks
        chunks.labels(self._ref.integration, "shared").inc(len(new))
        if late:
            chunks.labels(self._ref.integration, "republished").inc(len(late))
            log.warning("chunks_republished", chunks=len(late))


def _pause(step: float, fresh: int, left: int) -> float:
    """Return the seconds until the next listing: fewer if, at the rate of the last one, the job ends before."""
    return max(step * left / fresh, _SHORTEST_STEP) if left < fresh else step


def _chunks_wait(done: int, chunks: int) -> Untried:
    return Untried(
        "chunks_wait",
        f"No chunk of this job was finished for {_PATIENCE_SECONDS:.0f} s; {done} of {chunks} are done. Its chunks "
        "wait or take very long; the job continues by itself.",
        retry_after=_PARKED_SECONDS,
    )

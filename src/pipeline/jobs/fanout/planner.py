"""Splits a large file into chunks, so that all workers can process them."""

from __future__ import annotations

import time
from contextlib import aclosing
from itertools import count
from typing import Final

import structlog

from pipeline.jobs.chunk_work import FileRules, chunks_of, file_position, open_layout, position
from pipeline.jobs.csv_engine import Position, Splitter
from pipeline.jobs.file_checks import FileChecks
from pipeline.jobs.messages import StageMessage
from pipeline.jobs.outcomes import OutcomeExists
from pipeline.jobs.receipts import Announcement, Checkpoint, Plan, PlanPage, Source
from pipeline.jobs.stage import StageContext
from pipeline.jobs.starts import Starts
from pipeline.jobs.transfer import SourceChanged, UrlSource

log = structlog.get_logger(__name__)

PAGE_CHUNKS: Final = 1000
"""Chunks per page of a plan. After a crash, one page is split again. To find a chunk, a worker reads one page."""


class Planner:
    """Splits the file of one generation into chunks, for one message.

    It reads the whole file once, because only the bytes before a position show whether a record ends there. It
    processes no card. So a file that is broken, or whose number of records differs from the announcement, fails before
    its first card. Memory holds at most two chunks and one page. After a restart, it continues after the last page.
    """

    def __init__(
        self, context: StageContext, rules: FileRules, message: StageMessage, starts: Starts, url: UrlSource
    ) -> None:
        self._context = context
        self._jobs = context.jobs
        self._rules = rules
        self._ref = message.ref
        self._lease = message.lease
        self._starts = starts
        self._url = url

    async def plan(self, checkpoint: Checkpoint, announcement: Announcement) -> Plan | None:
        """Return the plan of a generation, or None if the file cannot be shared because its server sends no ranges.

        Raises:
            SourceChanged: The file is no longer the generation's file.
            PermanentError: The file is broken, or differs from the announcement.
        """
        existing = await self._jobs.plan(self._ref, checkpoint.generation)
        if existing is not None:
            return existing
        if not await sends_ranges(self._rules, self._url, checkpoint.source):
            log.info("fanout_without_ranges")
            return None
        async with self._starts.plan(self._ref, self._lease):
            return await self._split(checkpoint, announcement)

    async def _split(self, checkpoint: Checkpoint, announcement: Announcement) -> Plan:
        began = time.monotonic()
        checks = FileChecks(self._rules, announcement)
        source, page = await self._last(checkpoint)
        begun = page.start.byte > 0
        splitter = Splitter(
            self._rules.csv,
            self._rules.csv_limits,
            at=page.start,
            next_chunk=page.first,
            header=(source.header or b"") if begun else None,
        )
        opened = self._rules.downloader.open(
            self._url, start=page.start.byte, etag=source.etag if begun else None, encoding="identity"
        )
        async with opened as download, aclosing(chunks_of(download, splitter)) as chunks:
            if download.info.etag != source.etag:
                raise SourceChanged("source_changed", "The file behind input_file_url was replaced meanwhile.")
            async for chunk in chunks:
                if not begun:
                    await self._record_source(checkpoint, splitter.header or b"", checks)
                    begun = True
                checks.chunk(chunk)
                page.ends.append(chunk.end)
                if len(page.ends) == PAGE_CHUNKS:
                    page = await self._record(checkpoint, page)
        plan = Plan(
            announcement=announcement.id,
            chunks=page.first + len(page.ends),
            records=page.end.record,
            at=self._context.clock(),
        )
        checks.totals(plan.records, failed=0)
        if page.ends:
            await self._record(checkpoint, page)
        await self._lease.ensure()
        seconds = round(time.monotonic() - began, 3)
        log.info("file_planned", chunks=plan.chunks, records=plan.records, seconds=seconds)
        return await self._jobs.record_plan(self._ref, checkpoint.generation, plan)

    async def _last(self, checkpoint: Checkpoint) -> tuple[Source, _Page]:
        """Return the source, and the page to fill next: the first page that no earlier run has recorded completely."""
        source = await self._jobs.source(self._ref, checkpoint.generation)
        page = _Page(0, Position())
        if source is None:
            return checkpoint.source, page
        for number in count():
            found = await self._jobs.plan_page(self._ref, checkpoint.generation, number)
            if found is None or len(found.ends) < PAGE_CHUNKS:
                break
            page = _Page((number + 1) * PAGE_CHUNKS, chunk_end(found, -1))
        return source, page

    async def _record_source(self, checkpoint: Checkpoint, header: bytes, checks: FileChecks) -> None:
        layout = await open_layout(self._rules, header)
        checks.size(checkpoint.source, layout)
        await self._lease.ensure()
        source = checkpoint.source.model_copy(update={"header": header or None})
        await self._jobs.record_source(self._ref, checkpoint.generation, source)

    async def _record(self, checkpoint: Checkpoint, page: _Page) -> _Page:
        """Record a page, and return the next one."""
        await self._lease.ensure()
        if await self._jobs.outcome(self._ref) is not None:
            raise OutcomeExists
        receipt = PlanPage(
            first=page.first,
            start=file_position(page.start),
            ends=tuple((end.byte, end.record, end.line) for end in page.ends),
        )
        await self._jobs.record_plan_page(self._ref, checkpoint.generation, page_of(page.first), receipt)
        return _Page(page.first + len(page.ends), page.end)


class _Page:
    """A page that is being filled."""

    def __init__(self, first: int, start: Position) -> None:
        self.first = first
        self.start = start
        self.ends: list[Position] = []

    @property
    def end(self) -> Position:
        """End of the page's last chunk."""
        return self.ends[-1] if self.ends else self.start


async def sends_ranges(rules: FileRules, url: UrlSource, source: Source) -> bool:
    """Ask for one byte of the file, and return whether its server sends ranges.

    Raises:
        SourceChanged: The file is no longer the one of the source.
    """
    async with rules.downloader.open(url, start=1, end=2, etag=source.etag, encoding="identity") as download:
        return download.info.ranged


def chunk_end(page: PlanPage, index: int) -> Position:
    """Return where a chunk of a page ends."""
    byte, record, line = page.ends[index]
    return Position(byte=byte, record=record, line=line)


def page_of(number: int) -> int:
    """Return the number of the page that holds a chunk."""
    return number // PAGE_CHUNKS


def bounds_of(page: PlanPage, number: int) -> tuple[Position, Position] | None:
    """Return where the chunk of this number begins and ends, or None if the page does not hold it."""
    index = number - page.first
    if not 0 <= index < len(page.ends):
        return None
    return chunk_end(page, index - 1) if index else position(page.start), chunk_end(page, index)

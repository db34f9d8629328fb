"""Ours: the PROCESS stage's work on one file, without a broker and without HTTP."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID

import structlog

from benchmarks.process import report
from pipeline.jobs.chunk_work import FileRules
from pipeline.jobs.chunks import FileWork
from pipeline.jobs.csv_engine import CsvLimits, CsvSettings, use_system_allocator
from pipeline.jobs.ecs import CallbackSettings, EcsPartner
from pipeline.jobs.fanout import SharedJobs
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.messages import StageMessage
from pipeline.jobs.part_encryption import PartCipher, PartKey
from pipeline.jobs.partners import JobAnnouncement
from pipeline.jobs.processors import ProcessorSettings, load
from pipeline.jobs.receipts import Announcement
from pipeline.jobs.settings import JobLimits, JobPolicies
from pipeline.jobs.stage import StageContext
from pipeline.jobs.starts import Starts
from pipeline.jobs.transfer import Download, SourceInfo, UrlSource
from pipeline.kafka.slots import SharedSlots
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import Metrics
from pipeline.outbound import NO_CIRCUIT, Pace
from pipeline.storage.local import LocalStore

JOB = UUID("cffde776-1d2a-4614-8023-a5148e411462")


class LocalFile:
    """A downloader and a download that read a local file in pieces of 1 MiB."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.info = SourceInfo('"local"', path.stat().st_size, "identity")

    @asynccontextmanager
    async def open(
        self,
        source: UrlSource,
        *,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
        encoding: Literal["identity", "gzip"] | None = None,
    ) -> AsyncIterator[Download]:
        """Open it from the beginning."""
        del source, start, end, etag, encoding
        yield self

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file."""
        with await asyncio.to_thread(self._path.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, 1 << 20):
                yield piece


class Always:
    """A lease that is never lost."""

    lost = False

    async def ensure(self) -> None:
        """Allow it."""


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


async def work(path: Path, folder: Path, records: int) -> float:
    """Do the job; return the seconds it took."""
    jobs = JobStore(LocalStore(folder), PartCipher([PartKey("bench", bytes(32))]))
    request = JobAnnouncement(
        job_guid=JOB,
        partner_reference_id="bench",
        merchant_guid=JOB,
        external_location_ids=(),
        record_count=records,
        input_file_url="https://bench.example/in",
        result_upload_url="https://bench.example/out",
        expires_at=utc_now() + timedelta(days=1),
        callback_url="https://bench.example/told",
    )
    await jobs.announce(
        "bench",
        Announcement(id="a", attempt=1, deadline=request.expires_at, stored_at=utc_now(), request=request),
        new_attempt_after_failure=False,
    )
    rules = FileRules(
        partner=EcsPartner(CallbackSettings(token_file=path)),
        csv=CsvSettings(),
        csv_limits=CsvLimits(),
        limits=JobLimits(chunks_in_flight=4, fanout_bytes=0),
        policies=JobPolicies(),
        processor=load(ProcessorSettings(name="validate")),
        downloader=LocalFile(path),
        chunk_slots=SharedSlots(4).share("bench"),
        circuit=NO_CIRCUIT,
        pace=Pace(),
    )
    publisher = MemoryPublisher()
    context = StageContext("bench", jobs, publisher, utc_now, Metrics())
    message = StageMessage(JobRef("bench", JOB), Always(), None)
    file = FileWork(context, rules, message, Starts(context), SharedJobs(concurrency=16, slots=64))
    begun = time.perf_counter()
    receipt = await file.run()
    seconds = time.perf_counter() - begun
    if receipt.records != records:
        raise SystemExit("the job was not done")
    return seconds


def main() -> None:
    """Run it once."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    use_system_allocator()
    source, target = map(Path, sys.argv[1:3])
    shutil.rmtree(target, ignore_errors=True)
    begun = time.process_time()
    seconds = asyncio.run(work(source, target, int(sys.argv[3])))
    report(seconds, time.process_time() - begun)


if __name__ == "__main__":
    main()

"""Many jobs and a large one on several workers, with an S3 store; workers join, leave, freeze and are killed.

::

    async with running_crowd(broker, server, tmp_path, Crowd(jobs=12, most=500, large=100_000)) as crowd_run:
        await crowd_run.drive()     # announces all, disturbs the workers, returns when ECS has every callback
        await crowd_run.check()     # one outcome per job, the result of a single worker, balanced books

``python -m tools.proof`` does it in its full size.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

from pydantic import JsonValue
from support.brokers import Broker
from support.flow import EVERYTHING, INTEGRATION, Flow, running_flow
from support.flow_checks import COMPLETED_STEPS, notified_body
from support.flow_process import Launch, launch_installed
from support.seaweedfs import SeaweedFS, bucket_of, store_table

from pipeline.audit.verify import verify
from pipeline.contracts import BatchCompleted, BatchProcessed, JobMessage, Topic, parse_job_key
from pipeline.jobs.csv_engine import CsvLimits, CsvSettings, run_stream
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.processors import ProcessorSettings, load
from pipeline.jobs.processors.testing import job_context
from pipeline.sandbox import CardFile, Job, JobRequest
from pipeline.storage import ObjectStore, open_store

M = TypeVar("M", bound=JobMessage)

_AT_ONCE: Final = 8
_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Crowd:
    """What is to be done.

    Attributes:
        jobs: Number of jobs beside the large one.
        most: Cards of the largest of them; their sizes spread from 1 to here, evenly in their logarithms.
        large: Cards of the large job.
        chunk_records: Records of a chunk.
        fanout_bytes: Size above which a file is shared.
        processor: Name of the processor.
        options: Of the processor; ``reference`` those of the run that makes the expected results.
        seconds: In which all must be done.
    """

    jobs: int
    most: int
    large: int
    chunk_records: int = 10_000
    fanout_bytes: int = 2_000_000
    processor: str = "validate"
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    reference: Mapping[str, JsonValue] = field(default_factory=dict)
    seconds: float = 3000.0

    def sizes(self) -> list[int]:
        """Return the cards of each job beside the large one; 1 and ``most`` are among them."""
        middle = random.Random(13)  # noqa: S311 - the same sizes each time
        between = [round(self.most ** middle.random()) for _ in range(self.jobs - 2)]
        return [1, *between, self.most]


class CrowdRun:
    """One run.

    Attributes:
        flow: Its store is a bucket.
        large: The large job.
        all: Every job, the large one included.
    """

    def __init__(self, flow: Flow, crowd: Crowd, store: ObjectStore) -> None:
        self.flow = flow
        self.store = store
        self.large: Job
        self.all: list[Job] = []
        self._crowd = crowd
        self._jobs = JobStore(store)

    async def drive(self) -> None:
        """Announce every job, disturb the workers, and return when each job's callback was accepted.

        Four workers run at a time, or five while one of them is frozen.
        """
        crowd, ecs = self._crowd, self.flow.sandbox.ecs
        gate = asyncio.Semaphore(_AT_ONCE)

        async def create(number: int, records: int) -> Job:
            cards = CardFile(records=records, seed=number, bad_share=0.01)
            async with gate:
                return await ecs.create(
                    JobRequest(
                        announce=False,
                        webhook_url=self.flow.webhook_url,
                        cards=cards,
                        expires_in_seconds=crowd.seconds,
                    )
                )

        async def announce(job: Job) -> None:
            async with gate:
                await ecs.announce(job.guid)

        sizes = [crowd.large, *crowd.sizes()]
        self.all = await asyncio.gather(*(create(number, records) for number, records in enumerate(sizes, start=1)))
        self.large = self.all[0]
        async with asyncio.timeout(crowd.seconds), asyncio.TaskGroup() as group:
            for job in self.all:
                group.create_task(announce(job))
            group.create_task(self._disturb())
        for job in self.all:
            await self.flow.notified(job, crowd.seconds)
        await self.flow.caught_up(crowd.seconds)

    async def _disturb(self) -> None:
        flow = self.flow
        await self._until_done(0.1)
        flow.processes["first"].kill()
        await flow.start("process", key="fifth")
        await self._until_done(0.25)
        frozen = flow.processes["second"]
        frozen.signal(signal.SIGSTOP)
        await flow.start("process", key="sixth")
        await self._until_done(0.45)
        frozen.signal(signal.SIGCONT)
        await flow.stop("third")
        await self._until_done(0.6)
        flow.processes["fourth"].kill()
        await flow.start("process", key="seventh")

    async def _until_done(self, share: float) -> None:
        """Wait until this share of the large job's chunks is done; its manifests go when it is confirmed."""
        chunks = -(-self._crowd.large // self._crowd.chunk_records)
        while await self.finished_chunks() < share * chunks and not self.large.called_back.is_set():  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.1)

    async def finished_chunks(self) -> int:
        """Return how many chunks of the large job have a manifest."""
        found = await self._jobs.finished_chunks(JobRef(INTEGRATION, self.large.guid))
        return max(map(len, found.values()), default=0)

    async def check(self) -> None:
        """Every job has one outcome and the result of a single worker, and the books balance."""
        assert len({job.guid for job in self.all}) == self._crowd.jobs + 1
        processed = await self._ends(Topic.BATCH_PROCESSED, BatchProcessed)
        completed = await self._ends(Topic.BATCH_COMPLETED, BatchCompleted)
        assert processed.keys() == completed.keys() == {job.guid for job in self.all}
        for job in self.all:
            assert job.ledger
            total, failed = job.ledger.records, job.ledger.bad_total
            decided, end = processed[job.guid], completed[job.guid]
            assert (decided.records, decided.records_ok, decided.records_failed) == (total, total - failed, failed)
            assert (end.outcome, end.told, end.records_processed, end.records_failed) == (
                "completed",
                "confirmed",
                total,
                failed,
            )
            body = notified_body(self.flow, job)
            assert (body["success"], body["records_processed"], body["records_failed"]) == (True, total, failed)
            outcome = await self._jobs.outcome(JobRef(INTEGRATION, job.guid))
            assert outcome is not None
            assert (outcome.outcome, outcome.ok, outcome.failed) == ("completed", total - failed, failed)
            assert await self._digest_at_ecs(job) == await self._digest_of_one_worker(job)
        await self._check_audit_log()
        left = [info.key async for info in self.store.list("jobs/") if "/parts/" in info.key]
        assert [key for key in left if "/started/" not in key] == []
        assert [info.key async for info in self.store.list("open/")] == []

    async def _ends(self, topic: Topic, model: type[M]) -> dict[UUID, M]:
        """Return what the topic says about each job; all records of a job are the same."""
        found: dict[UUID, set[bytes]] = {}
        for record in await self.flow.records(topic):
            named = parse_job_key(record.key)
            assert named
            found.setdefault(named[1], set()).add(record.value)
        assert {len(values) for values in found.values()} == {1}
        return {guid: model.model_validate_json(values.pop()) for guid, values in found.items()}

    async def _digest_at_ecs(self, job: Job) -> str:
        stored = self.flow.sandbox.store.disk.get(job.result_key)
        assert stored, "no result was uploaded"
        digest = hashlib.sha256()
        async for piece in _pieces(stored.path):
            digest.update(piece)
        return digest.hexdigest()

    async def _digest_of_one_worker(self, job: Job) -> str:
        """Return the hash of the result that one worker makes of a job's file, without a store and without others."""
        crowd, digest = self._crowd, hashlib.sha256()

        async def add(data: bytes) -> None:
            digest.update(data)

        source = self.flow.sandbox.store.disk.get(job.input_key)
        assert source
        options = {**crowd.options, **crowd.reference}
        async with load(ProcessorSettings(name=crowd.processor, options=options, concurrency=16)) as processor:
            await run_stream(
                _pieces(source.path),
                add,
                settings=CsvSettings(),
                limits=CsvLimits(chunk_records=crowd.chunk_records),
                processor=processor,
                context=job_context(integration=INTEGRATION, job_guid=job.guid),
            )
        return digest.hexdigest()

    async def _check_audit_log(self) -> None:
        """The chains verify, and hold each step of each job once."""
        report = await verify(self.store)
        assert report.ok, report
        steps: dict[str, Counter[str]] = {}
        async for info in self.store.list("audit/"):
            if not info.key.endswith(".jsonl"):
                continue
            for line in (await self.store.get(info.key)).splitlines():
                entry = json.loads(line)
                if entry["kind"] == "event":
                    event = entry["event"]
                    steps.setdefault(event["job_guid"], Counter())[event["action"]] += 1
        assert steps == {str(job.guid): Counter(COMPLETED_STEPS) for job in self.all}


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


@asynccontextmanager
async def running_crowd(
    broker: Broker, server: SeaweedFS, folder: Path, crowd: Crowd, *, launch: Launch = launch_installed
) -> AsyncIterator[CrowdRun]:
    """Run a flow with four workers of PROCESS and a bucket, while the context lasts."""
    settings = bucket_of(server, folder.name)
    limits = {"chunk_records": crowd.chunk_records, "fanout_bytes": crowd.fanout_bytes}
    store = open_store(settings)
    try:
        async with running_flow(
            broker,
            folder,
            start=(),
            processor=crowd.processor,
            options=crowd.options,
            integration={"limits": limits, "processor": {"concurrency": 16}},
            store=store_table(settings),
            launch=launch,
        ) as flow:
            for name in EVERYTHING:
                await flow.start(name, key="first" if name == "process" else None)
            for key in ("second", "third", "fourth"):
                await flow.start("process", key=key)
            yield CrowdRun(flow, crowd, store)
            await flow.stop()
    finally:
        await store.close()

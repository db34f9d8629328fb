"""A world for stages without network: a store in memory, a publisher that remembers, edges that do what a test says."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import SecretStr

from pipeline.contracts import OutgoingRecord, Record, RecordPosition, Topic, first_values
from pipeline.errors import LeaseLost, PipelineError, TransientError
from pipeline.jobs.chunk_work import FileRules
from pipeline.jobs.confirm import ConfirmRules, ConfirmStage
from pipeline.jobs.csv_engine import CsvLimits, CsvSettings
from pipeline.jobs.deadline_watch import DeadlineWatch
from pipeline.jobs.due_jobs import DueJobs
from pipeline.jobs.ecs import CallbackSettings, EcsPartner
from pipeline.jobs.fanout import ChunkStage, SharedJobs
from pipeline.jobs.handling import JobHandler
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.parking import Parking
from pipeline.jobs.part_encryption import PartCipher, PartKey
from pipeline.jobs.partners import Answer, Partner
from pipeline.jobs.process import ProcessStage
from pipeline.jobs.processors import LoadedProcessor, ProcessorSettings, load
from pipeline.jobs.settings import JobLimits, JobPolicies
from pipeline.jobs.stage import StageContext
from pipeline.jobs.starts import Starts
from pipeline.jobs.transfer import Download, Downloader, SourceChanged, SourceInfo, UrlSource
from pipeline.jobs.upload import UploadRules, UploadStage
from pipeline.kafka.slots import SharedSlots
from pipeline.observability import CheckedClock, Metrics
from pipeline.outbound import Circuits, Pace
from pipeline.retry import RetryPolicy
from pipeline.storage.testing import MemoryStore

JOB = UUID("cffde776-1d2a-4614-8023-a5148e411462")
MERCHANT = UUID("4933e450-d3c4-406f-9b9b-3afb812a5b7c")
BEGIN = datetime(2026, 1, 21, 12, 0, tzinfo=UTC)
CARDS = b"card_number,note\n9999990000000006,a\n9999990000000014,b\n9999990000000015,c\n"
"""Three records; the last fails the Luhn check."""
PART_KEY = PartKey("test", bytes(range(32)))
PART_CIPHER = PartCipher([PART_KEY])


Stage = Literal["process", "chunks", "upload", "confirm", "watch"]


class Clock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


class Lease:
    """A lease that a test can take away, at once or after a number of effects."""

    def __init__(self) -> None:
        self.left: int | None = None

    @property
    def lost(self) -> bool:
        return self.left is not None and self.left < 0

    async def ensure(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise LeaseLost("lease_lost", "taken by the test")


@dataclass
class Bus:
    """A publisher that remembers."""

    published: list[OutgoingRecord] = field(default_factory=list)
    fail: Callable[[OutgoingRecord], PipelineError | None] = lambda _: None

    async def publish(self, record: OutgoingRecord) -> RecordPosition:
        error = self.fail(record)
        if error is not None:
            raise error
        self.published.append(record)
        return RecordPosition(record.topic, 0, len(self.published) - 1)

    def on(self, topic: Topic) -> list[OutgoingRecord]:
        return [one for one in self.published if one.topic == topic]

    def audit(self) -> list[str]:
        """Actions in order, each event id once."""
        ids: dict[str, str] = {}
        for one in self.on(Topic.AUDIT_EVENTS):
            ids.setdefault(first_values(one.headers)["ce_id"], json.loads(one.value)["action"])
        return list(ids.values())


class Objects:
    """Input files by URL, and what became of downloads and uploads."""

    def __init__(self) -> None:
        self.inputs: dict[str, bytes] = {}
        self.put: list[tuple[str, bytes]] = []
        self.opened: list[tuple[str, int]] = []
        self.ranges: list[tuple[str, int]] = []
        self.fail_open: list[PipelineError] = []
        self.fail_after: list[tuple[int, PipelineError]] = []
        self.fail_put: list[PipelineError] = []
        self.etags = True
        self.by_range = True

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
        del encoding
        url = (await source()).url.get_secret_value()
        (self.opened if end is None else self.ranges).append((url, start))
        if self.fail_open:
            raise self.fail_open.pop(0)
        data = self.inputs[url]
        part = bool(start) or end is not None
        info = SourceInfo(self._etag(data), len(data), "identity", ranged=part and self.by_range)
        if part and info.etag != etag:
            raise SourceChanged("source_changed", "another file lies there")
        yield _Download(info, data[start:end], self.fail_after.pop(0) if self.fail_after else None)

    async def put_body(self, target: UrlSource, *, size: int, body: Callable[[], AsyncGenerator[bytes, None]]) -> str:
        url = (await target()).url.get_secret_value()
        data = b"".join([piece async for piece in body()])
        assert len(data) == size
        self.put.append((url, data))
        if self.fail_put:
            raise self.fail_put.pop(0)
        return self._etag(data)

    def _etag(self, data: bytes) -> str:
        return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"' if self.etags else ""


class _Uploads:
    def __init__(self, objects: Objects) -> None:
        self.put = objects.put_body


@dataclass
class _Download:
    info: SourceInfo
    data: bytes
    cut: tuple[int, PipelineError] | None

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.cut is None:
            yield self.data
            return
        yield self.data[: self.cut[0]]
        raise self.cut[1]


@dataclass
class Ecs:
    """An ECS that answers what a test says; accepted by default."""

    calls: list[tuple[str, str, bytes, str]] = field(default_factory=list)
    answers: list[Answer | PipelineError] = field(default_factory=list)
    hindrance: PipelineError | None = None

    async def ready(self) -> None:
        if self.hindrance is not None:
            raise self.hindrance

    async def notify(self, url: SecretStr, *, job_guid: str, body: bytes, request_id: str) -> Answer:
        self.calls.append((url.get_secret_value(), job_guid, body, request_id))
        answer = self.answers.pop(0) if self.answers else Answer("accepted", 200, "callback_accepted", "")
        if isinstance(answer, PipelineError):
            raise answer
        return answer


_AnyStage = ProcessStage | ChunkStage | UploadStage | ConfirmStage | DeadlineWatch


class World:
    """All stages over one store and one bus; a test calls them in whatever order it likes."""

    def __init__(
        self,
        *,
        limits: Mapping[str, object] | None = None,
        csv: Mapping[str, object] | None = None,
        csv_limits: Mapping[str, object] | None = None,
        policies: Mapping[str, object] | None = None,
        processor: LoadedProcessor | None = None,
        partner: Partner | None = None,
        fresh_seconds: float = 0.0,
        inline: bool = False,
    ) -> None:
        self.fresh_seconds = fresh_seconds
        self.clock = Clock()
        self.objects = Objects()
        self.memory = MemoryStore()
        self.memory.clock = self.clock
        self.jobs = JobStore(self.memory, PART_CIPHER)
        if not inline:
            self.jobs.inline_bytes = -1
        self.bus = Bus()
        self.ecs = Ecs()
        self.lease = Lease()
        self.metrics = Metrics()
        self.checked = CheckedClock(self.clock, self.metrics.clock_offset_seconds)
        self.offset = 0
        self.limits = JobLimits.model_validate(limits or {})
        self.policies = JobPolicies.model_validate(policies or {})
        self.csv = CsvSettings.model_validate(csv or {})
        self.csv_limits = CsvLimits.model_validate(csv_limits or {})
        self.partner = partner or EcsPartner(CallbackSettings(token_file=Path("not-read")))
        self.processor = processor or load(ProcessorSettings(name="validate", options={}))
        self.parking = Parking(self.jobs, self.clock, RetryPolicy(30, 900, jitter=lambda: 1.0), worker="here")
        self.owned = True
        self.downloader: Downloader = self.objects
        self.chunk_slots = SharedSlots(100)
        self.circuits = Circuits(failures_to_open=math.inf)
        self.restart()

    def restart(self, integrations: Sequence[str] = ("acme",)) -> None:
        """Make new stages, as a restarted process does: what the old ones had in memory is gone.

        Args:
            integrations: Names of the configured integrations.
        """
        files = FileRules(
            csv=self.csv,
            csv_limits=self.csv_limits,
            partner=self.partner,
            limits=self.limits,
            policies=self.policies,
            processor=self.processor,
            downloader=self.downloader,
            chunk_slots=self.chunk_slots.share("acme"),
            circuit=self.circuits.of("acme", "cards"),
            pace=Pace(),
        )
        uploads = UploadRules(
            partner=self.partner, limits=self.limits, policies=self.policies, uploader=_Uploads(self.objects)
        )
        confirms = ConfirmRules(
            partner=self.partner,
            limits=self.limits,
            policies=self.policies,
            notifier=self.ecs,
            retry=RetryPolicy(1, 60),
            circuit=self.circuits.of("acme", "callback"),
            ready=self.ecs.ready,
            hold=timedelta(days=15),
            keep_failed_parts=timedelta(days=7),
        )
        starts = Starts(self._context("process"))
        shared = SharedJobs(concurrency=16, slots=64)
        self.process = ProcessStage(self._context("process"), dict.fromkeys(integrations, files), starts, shared)
        self.chunks = ChunkStage(self._context("chunks"), dict.fromkeys(integrations, files), starts)
        self.upload = UploadStage(self._context("upload"), dict.fromkeys(integrations, uploads))
        self.confirm = ConfirmStage(self._context("confirm"), dict.fromkeys(integrations, confirms), self.parking)
        self.watch = DeadlineWatch(
            self._context("watch"), dict.fromkeys(integrations, files), interval=0.01, receipts_kept=timedelta(days=30)
        )
        self.due = DueJobs(self._context("watch"), self.parking, integrations, owns=lambda _: self.owned, interval=0.01)

    def handler(self, name: Stage) -> JobHandler:
        """Return what the consumer of a stage calls."""
        stage = getattr(self, name)
        return JobHandler(self._context(name), stage.handle, self.parking, arrive=getattr(stage, "arrive", None))

    async def handle(self, name: Stage, record: Record) -> Record | None:
        """Let a stage handle a record as its consumer does; return the record to try again, or None if it is over."""
        handler = self.handler(name)
        try:
            if handler.on_arrival:
                await handler.on_arrival(record)
            await handler.handle(record, self.lease)
        except TransientError:
            return self.again(record)
        return None

    async def handle_until_over(self, name: Stage, record: Record) -> None:
        """Let a stage handle a record, as often as its consumer does."""
        left: Record | None = record
        while left is not None:
            left = await self.handle(name, left)

    def returned(self, topic: Topic) -> list[Record]:
        """Return the copies of parked records that were published to their topic again, as its consumers get them."""
        return [
            replace(self.record(one.value), topic=topic, key=one.key, headers=one.headers)
            for one in self.bus.on(topic)
            if "retry_group" in first_values(one.headers)
        ]

    def _context(self, stage: str) -> StageContext:
        return StageContext(stage, self.jobs, self.bus, self.clock, self.metrics, self.checked, self.fresh_seconds)

    def contradict_clock(self, **ahead: float) -> None:
        """Let Kafka's time show that the clock is ahead by this much."""
        now = self.clock()
        self.checked.compare("kafka", now - timedelta(**ahead), began=now, ended=now)

    def request(self, **changes: object) -> dict[str, object]:
        return {
            "job_guid": str(JOB),
            "partner_reference_id": "acme-1",
            "merchant_guid": str(MERCHANT),
            "external_location_ids": ["46691"],
            "record_count": 3,
            "input_file_url": "https://files.example/in.csv?X-Amz-Signature=planted1",
            "result_upload_url": "https://files.example/out.csv?X-Amz-Signature=planted2",
            "expires_at": (BEGIN + timedelta(hours=1)).isoformat(),
            "callback_url": "https://ecs.example/callback",
        } | changes

    def announce(self, data: bytes = CARDS, **changes: object) -> Record:
        """Put the input file in place and return the announcement's record."""
        body = self.request(**changes)
        self.objects.inputs[str(body["input_file_url"])] = data
        return self.record(json.dumps(body).encode())

    def record(self, value: bytes) -> Record:
        """Return the record of an announcement."""
        self.offset += 1
        named = re.search(rb'"job_guid": "([0-9a-f-]{36})"', value)
        return Record(
            topic=Topic.BATCH_REQUESTED,
            partition=0,
            offset=self.offset,
            key=f"acme/{named[1].decode() if named else JOB}",
            value=value,
            headers=(
                ("ce_id", hashlib.sha256(value).hexdigest()[:32].encode()),
                ("pipeline_integration", b"acme"),
                ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ),
            timestamp_ms=0,
        )

    async def run(self, record: Record) -> None:
        """Let PROCESS, UPLOAD and CONFIRM do all that follows from an announcement."""
        await self.deliver(self.process, record)
        for topic, stage in (
            (Topic.BATCH_PROCESSED, self.upload),
            (Topic.BATCH_UPLOADED, self.confirm),
            (Topic.BATCH_FAILED, self.confirm),
        ):
            for record_in in self.records(topic):
                await self.deliver(stage, record_in)

    async def deliver(self, stage: _AnyStage, record: Record) -> None:
        if isinstance(stage, ProcessStage):
            await stage.arrive(record)
        await stage.handle(record, self.lease)

    def records(self, topic: Topic) -> list[Record]:
        """What a consumer of a topic would be given."""
        return [
            Record(topic, 0, offset, one.key, one.value, one.headers, 0)
            for offset, one in enumerate(self.bus.on(topic))
        ]

    def again(self, record: Record) -> Record:
        """Return the record as redelivered after a retry."""
        return replace(record, attempt=record.attempt + 1)

    @property
    def ref(self) -> JobRef:
        return JobRef("acme", JOB)

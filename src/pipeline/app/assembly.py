"""Makes the workers of a process from its settings. Each maker imports what its stage alone needs."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from pipeline.app.parts import Part, Service, Shared, Worker
from pipeline.app.ports import PORTS, Ports
from pipeline.contracts import AuditAction, AuditEvent, Record, Topic, TopicName, audit_record, parse_job_key
from pipeline.jobs.handling import JobHandler
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.outages import resume_after_outages
from pipeline.jobs.parking import Parking
from pipeline.jobs.part_encryption import PartCipher, open_part_cipher, read_part_key
from pipeline.jobs.stage import StageContext
from pipeline.jobs.switches import Switches
from pipeline.kafka import (
    DeadLetter,
    DeadLetters,
    GroupClient,
    GroupClientFactory,
    KeyedConsumer,
)
from pipeline.settings import JobIntegration, Settings

if TYPE_CHECKING:
    from pipeline.audit import Signer
    from pipeline.audit.settings import AuditSettings
    from pipeline.jobs.chunk_work import FileRules
    from pipeline.jobs.confirm import ConfirmRules
    from pipeline.jobs.transfer import Transfers
    from pipeline.kafka.slots import Share
    from pipeline.observability import Check


class ProcessContext(Shared):
    """The objects that all parts of a process share, with additions for parts that handle jobs."""

    __slots__ = ()

    def stage(self, name: str, cipher: PartCipher | None = None) -> StageContext:
        """Return the context of a stage. It needs a cipher to write and read parts."""
        jobs = JobStore(self.objects, cipher)
        return StageContext(name, jobs, self.publisher, self.clock, self.metrics, self.clock)

    def with_parts(self, name: str) -> StageContext:
        """Return the context of a stage that writes or reads parts.

        Raises:
            FatalError: The settings have jobs, but a key of the parts is missing or malformed.
        """
        settings = self.settings
        return self.stage(name, open_part_cipher(settings.parts) if settings.job_names else None)

    @property
    def switches(self) -> Switches:
        """New switches of paused integrations. Run their service."""
        return Switches(self.objects, self.ports.now, self.metrics)

    @property
    def parking(self) -> Parking:
        """The parking of jobs that cannot be done now."""
        return Parking(JobStore(self.objects), self.ports.now, self.settings.parking.retry.policy)

    async def resume(self) -> NoReturn:
        """Resume the jobs that wait for a host when it works again. Each stage that calls hosts runs this service."""
        await resume_after_outages(self.circuits, self.parking)


@asynccontextmanager
async def open_jobs(settings: Settings, ports: Ports = PORTS, *, with_parts: bool = False) -> AsyncIterator[JobStore]:
    """Open the configured job store, for commands that read jobs.

    Args:
        settings: Settings of the store, and of the keys of parts.
        ports: Opens the store.
        with_parts: Whether to read the key files too, which are needed to read the results in parts.

    Raises:
        FatalError: A key file is missing or malformed.
    """
    keys = [read_part_key(key) for key in settings.parts.keys] if with_parts else []
    objects = ports.store(settings.store)
    try:
        yield JobStore(objects, PartCipher(keys))
    finally:
        await objects.close()


async def make_process(shared: ProcessContext) -> Part:
    """Return the worker of PROCESS, with its processors opened."""
    from pipeline.jobs.csv_engine import use_system_allocator
    from pipeline.jobs.fanout import ChunkStage, SharedJobs
    from pipeline.jobs.process import ProcessStage
    from pipeline.jobs.rate_shares import RateShares
    from pipeline.jobs.starts import Starts
    from pipeline.kafka.slots import SharedSlots

    use_system_allocator()
    names = shared.settings.job_names
    slots = SharedSlots(shared.settings.process.chunk_slots, flows=len(names))
    rules = {
        name: await _file_rules(shared, one, slots.share(name))
        for name, one in shared.settings.job_integrations().items()
    }
    context = shared.with_parts("process")
    starts = Starts(context)
    large_files = SharedJobs(concurrency=shared.consumer.concurrency, slots=shared.consumer.slots)
    stage = ProcessStage(context, rules, starts, large_files)
    switches = shared.switches
    handler = JobHandler(context, stage.handle, shared.parking, arrive=stage.arrive, switches=switches)
    sharing = shared.with_parts("chunks")
    chunks = JobHandler(sharing, ChunkStage(sharing, rules, starts).handle, shared.parking, switches=switches)
    runners = [
        _consumer(shared, handler, "process", Topic.BATCH_REQUESTED),
        _consumer(shared, chunks, "chunks", Topic.BATCH_CHUNKS),
    ]
    paces = {name: one.pace for name, one in rules.items() if one.pace.limit is not None}
    rates = RateShares(shared.objects, paces, shared.ports.now)
    return Worker("process", runners, [shared.resume, switches.run, rates.run])


async def _file_rules(shared: ProcessContext, integration: JobIntegration, chunk_slots: Share) -> FileRules:
    from pipeline.jobs.chunk_work import FileRules
    from pipeline.jobs.processors import load
    from pipeline.outbound import Pace

    processor = load(integration.processor, shared.settings.network)
    shared.stack.push_async_callback(processor.close)
    await processor.open_or_wait()
    return FileRules(
        csv=integration.csv,
        csv_limits=integration.limits,
        partner=integration.partner,
        limits=integration.limits,
        policies=integration.policies,
        processor=processor,
        downloader=(await _transfers(shared, integration)).downloader,
        chunk_slots=chunk_slots,
        circuit=shared.circuits.of(integration.name, "cards"),
        pace=Pace(
            integration.processor.requests_per_second,
            shared=True,
            integration=integration.name,
            metrics=shared.metrics,
        ),
    )


async def make_upload(shared: ProcessContext) -> Part:
    """Return the worker of UPLOAD."""
    from pipeline.jobs.upload import UploadRules, UploadStage

    rules = {
        name: UploadRules(
            partner=one.partner,
            limits=one.limits,
            policies=one.policies,
            uploader=(await _transfers(shared, one)).uploader,
        )
        for name, one in shared.settings.job_integrations().items()
    }
    context = shared.with_parts("upload")
    switches = shared.switches
    handler = JobHandler(context, UploadStage(context, rules).handle, shared.parking, switches=switches)
    return Worker(
        "upload", [_consumer(shared, handler, "upload", Topic.BATCH_PROCESSED)], [shared.resume, switches.run]
    )


async def _transfers(shared: ProcessContext, integration: JobIntegration) -> Transfers:
    return await shared.stack.enter_async_context(
        shared.ports.transfers(
            shared.settings, integration, clock=shared.ports.now, metrics=shared.metrics, circuits=shared.circuits
        )
    )


async def make_confirm(shared: ProcessContext) -> Part:
    """Return the worker of CONFIRM, with the deadline watch and a watch of every callback token."""
    from pipeline.jobs.confirm import ConfirmRules, ConfirmStage
    from pipeline.jobs.deadline_watch import DeadlineWatch
    from pipeline.jobs.due_jobs import DueJobs

    settings = shared.settings
    rules: dict[str, ConfirmRules] = {}
    services: list[Service] = []
    alarms: dict[str, Check] = {}
    parking = shared.parking
    for name, one in settings.job_integrations().items():
        notifications = await shared.stack.enter_async_context(
            shared.ports.notifications(
                settings,
                one,
                clock=shared.clock,
                metrics=shared.metrics,
                remember=shared.remember,
                resume=partial(_resume_callbacks, parking, name),
            )
        )
        keep = timedelta(days=settings.retention.failed_parts_days)
        hold = timedelta(days=settings.retention.receipts_days - one.limits.max_expiry_days - 1)
        rules[name] = ConfirmRules(
            partner=one.partner,
            limits=one.limits,
            policies=one.policies,
            notifier=notifications.notifier,
            retry=notifications.retry,
            circuit=shared.circuits.of(name, "callback"),
            ready=notifications.ready,
            hold=hold,
            keep_failed_parts=keep,
        )
        services += notifications.services
        alarms |= {f"{alarm}-{name}": check for alarm, check in notifications.alarms.items()}
    context, watching = shared.stage("confirm"), shared.stage("watch")
    stage = ConfirmStage(context, rules, parking)
    watch = DeadlineWatch(
        watching,
        rules,
        interval=settings.watch.interval_seconds,
        receipts_kept=timedelta(days=settings.retention.receipts_days),
    )
    switches = shared.switches
    confirming = JobHandler(context, stage.handle, parking, switches=switches)
    filing = _consumer(
        shared, JobHandler(watching, watch.handle, parking, arrive=watch.arrive), "watch", Topic.BATCH_REQUESTED
    )
    due = DueJobs(
        watching,
        parking,
        rules,
        owns=lambda number: filing.holds(Topic.BATCH_REQUESTED, number),
        interval=settings.watch.interval_seconds,
    )
    runners = [_consumer(shared, confirming, "confirm", Topic.BATCH_UPLOADED, Topic.BATCH_FAILED), filing]
    return Worker("confirm", runners, [watch.run, due.run, shared.resume, switches.run, *services], alarms)


async def _resume_callbacks(parking: Parking, integration: str, code: str | None = None) -> int:
    return await parking.resume(integration, stage="confirm", code=code)


def audit_signer(settings: AuditSettings) -> Signer | None:
    """Return the signer of the audit log; None if no key is configured.

    Raises:
        FatalError: The key is not an Ed25519 key.
    """
    from pipeline.audit import Signer

    key = settings.signing_key
    return Signer(key.get_secret_value().encode()) if key else None


async def make_audit(shared: ProcessContext) -> Part:
    """Return the worker of AUDIT."""
    from pipeline.audit import Writing
    from pipeline.audit.home import HomePartitions
    from pipeline.audit.stage import AuditStage
    from pipeline.kafka import BatchConsumer, partition_of_key

    settings = shared.settings.audit
    writing = Writing(
        store=shared.objects,
        settings=settings,
        signer=audit_signer(settings),
        clock=shared.ports.now,
        nonce=partial(secrets.token_hex, 16),
    )
    dead_letters = DeadLetters(shared.publisher, group="audit", metrics=shared.metrics, clock=shared.ports.now)
    home = HomePartitions(
        shared.objects,
        shared.publisher,
        count=partial(shared.ports.partitions, Topic.AUDIT_EVENTS, shared.kafka),
        partition_of=partition_of_key,
    )
    stage = AuditStage(writing, dead_letters, shared.metrics, home)
    topics = (Topic.AUDIT_EVENTS, *shared.settings.audited_topics)
    member = BatchConsumer(
        stage,
        dead_letters=dead_letters,
        group="audit",
        topics=topics,
        kafka=shared.kafka,
        settings=shared.consumer,
        metrics=shared.metrics,
        connect=_connect(shared, "audit", *topics),
    )
    return Worker("audit", [member])


STAGE_MAKERS: Final[Mapping[str, Callable[[ProcessContext], Awaitable[Part]]]] = {
    "process": make_process,
    "upload": make_upload,
    "confirm": make_confirm,
    "audit": make_audit,
}


def _consumer(shared: ProcessContext, handler: JobHandler, group: str, *topics: Topic) -> KeyedConsumer:
    async def note(letter: DeadLetter) -> None:
        record = letter.record
        position = (record.topic, str(record.partition), str(record.offset))
        event = AuditEvent(
            id=AuditEvent.id_of(AuditAction.RECORD_DEAD_LETTERED, group, *position),
            action=AuditAction.RECORD_DEAD_LETTERED,
            at=letter.at,
            actor=group,
            detail={
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "code": letter.error.code,
            },
        )
        await shared.publisher.publish(audit_record(event))

    names = frozenset(shared.settings.job_names)

    def integration_of(record: Record) -> str:
        """Return the integration in the job's key; empty if it is not configured here."""
        job = parse_job_key(record.key)
        return job[0] if job and job[0] in names else ""

    return KeyedConsumer(
        handler.handle,
        on_arrival=handler.on_arrival,
        flow_of=integration_of,
        flows=len(names),
        dead_letters=DeadLetters(
            shared.publisher, group=group, metrics=shared.metrics, on_dead_letter=note, clock=shared.ports.now
        ),
        group=group,
        topics=topics,
        kafka=shared.kafka,
        settings=shared.consumer,
        metrics=shared.metrics,
        connect=_connect(shared, group, *topics),
    )


def _connect(shared: ProcessContext, group: str, *topics: TopicName) -> GroupClientFactory:
    async def connect() -> GroupClient:
        return await shared.ports.group(group, topics, shared.kafka, shared.consumer)

    return connect

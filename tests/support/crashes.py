"""Killing one process of a flow at a named point, and starting it again: what happens then, case by case.

A case is two starts and nearly all of it waiting; so several flows work off the cases side by side
(:func:`run_cases`), each case with a job of its own. On Apache Kafka nobody waits for the session of the killed process
to end: test_takeover.py and test_deaths.py do.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from support.brokers import Broker
from support.counting import seen
from support.crashing_pipeline import died_at
from support.event_crashes import TOPICS, EventKind, EventRun, add_weavr, drive_events
from support.flow import EVERYTHING, INTEGRATION, Flow, running_flow
from support.flow_process import FlowProcess
from support.offsets import Offsets, remove_members
from support.prefork import Prefork

from pipeline.contracts import OutgoingRecord, Topic, job_key
from pipeline.kafka import KafkaPublisher
from pipeline.sandbox import CardFile, Fault, Job

JobKind = Literal[
    "good",
    "failing",
    "shared",
    "paced",
    "retried",
    "parked",
    "unconfirmed",
    "overdue",
    "corrected",
    "invalid",
    "poison",
    "audit-poison",
]
"""``good``: completes. ``failing``: holds more records than announced. ``shared``: completes, and its file is so large
that its chunks are shared. ``paced``: completes, in a flow with a rate of cards. ``retried``: ECS answers the first
callback with 500. ``parked``: the input storage asks twice to wait for 11 s, so PROCESS parks the job. ``unconfirmed``:
ECS answers the first three callbacks with 500, so CONFIRM parks it. ``overdue``: its deadline passes before PROCESS
runs. ``corrected``: announced once more with another record count. ``invalid``: the announcement goes to quarantine.
``poison``: a record nobody can read precedes the job's, in its partition and under its key; or one among the audit
events."""
Kind = JobKind | EventKind

CARDS: Final = CardFile(records=60, bad_share=0.1)
CHUNK_RECORDS: Final = 15
SHARED_CARDS: Final = CardFile(records=150, bad_share=0.1)
FANOUT_BYTES: Final = 6000
"""More than the file of most jobs here, and less than the shared one."""
ANNOUNCED_OF_FAILING: Final = 40
CORRECTED_COUNT: Final = 61
POISON: Final = b"no JSON at all"
OVERDUE_SECONDS: Final = 34.0
"""From the announcement to the expiry; the deadline is 30 s before it."""
CARDS_A_SECOND: Final = 1000
_FAULTS: Final = {
    "retried": Fault(target="callback", kind="status", status=500),
    "parked": Fault(target="input", kind="status", status=503, retry_after="11", times=2),
    "unconfirmed": Fault(target="callback", kind="status", status=500, times=3),
}
GROUPS_OF: Final[Mapping[str, Sequence[str]]] = {
    "process": ("process", "chunks"),
    "upload": ("upload",),
    "confirm": ("confirm", "watch"),
    "audit": ("audit",),
}
"""Groups of each stage; its only process is their only member."""
_UNDISTURBED: Final[Sequence[JobKind]] = ("good", "failing", "shared")


@dataclass(frozen=True, slots=True)
class Case:
    """One crash.

    Attributes:
        point: One of ``support.effects.CRASH_POINTS``.
        stage: Which process dies.
        kind: The job, or the events, that lead there.
        nth: The process dies when it is there for the n-th time.
        absent: A process that does not run meanwhile: it could get there first.
        broker: ``apache`` or ``embedded``.
    """

    point: str
    stage: str
    kind: Kind = "good"
    nth: int = 1
    absent: str = ""
    broker: str = "apache"

    def __str__(self) -> str:
        """Name it for the test report."""
        times = f"-{self.nth}" if self.nth > 1 else ""
        kind = "" if self.kind == "good" else f"-{self.kind}"
        return f"{self.broker}-{self.stage}-{self.point}{times}{kind}"


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a job, disturbed or not; looked at when its flow had caught up."""

    flow: Flow
    job: Job

    def processed(self) -> dict[int, int]:
        """Return how often the processor was given each record."""
        return dict(seen(_notes(self.flow), self.job.guid))


Check = Callable[[Case, Run | EventRun, Run], Awaitable[None]]
"""Raises AssertionError where a disturbed run differs from the undisturbed one of a job (the last argument)."""


async def run_cases(
    broker: Broker, folder: Path, cases: Iterable[Case], *, flows: int, check: Check, prefork: Prefork
) -> dict[Case, BaseException | None]:
    """Run all cases on so many flows at once, and one more for a rate; return what went wrong with each."""
    plain, paced = deque[Case](), deque[Case]()
    for case in cases:
        (paced if case.kind == "paced" else plain).append(case)
    found: dict[Case, BaseException | None] = {}

    async def work_off(number: int, waiting: deque[Case]) -> None:
        base = folder / f"{broker.kind}-{number}"
        limits = {"chunk_records": CHUNK_RECORDS, "chunks_in_flight": 1, "fanout_bytes": FANOUT_BYTES}
        async with (
            running_flow(
                broker,
                base,
                start=(),
                topics=TOPICS,
                processor="support.counting:Counting",
                options={"file": str(_notes_in(base))},
                integration={
                    "limits": limits,
                    "callback": {"retry": {"first_seconds": 0.2}},
                    **({"processor": {"requests_per_second": CARDS_A_SECOND}} if waiting is paced else {}),
                },
                sandbox={"webhook_pauses_seconds": (0.5,) * 120},
                launch=prefork,
            ) as flow,
            Offsets(flow.kafka) as flow.offsets,
        ):
            add_weavr(flow)
            await asyncio.gather(*(flow.start(name) for name in EVERYTHING))
            undisturbed = {kind: await _finished(flow, await _drive(flow, kind)) for kind in _UNDISTURBED}
            while waiting:
                case = waiting.popleft()
                try:
                    run = await _crash(flow, case, prefork)
                    await check(case, run, undisturbed[case.kind if case.kind in ("failing", "shared") else "good"])
                except (AssertionError, TimeoutError) as error:
                    found[case] = error
                    await _restored(flow, case)
                else:
                    found[case] = None
            await flow.stop()

    queues = [*[plain] * min(flows, len(plain)), *[paced] * min(1, len(paced))]
    await asyncio.gather(*(work_off(number, queue) for number, queue in enumerate(queues)))
    return found


async def _crash(flow: Flow, case: Case, prefork: Prefork) -> Run | EventRun:
    others = [case.absent] if case.absent else []
    await flow.stop(case.stage, *others)
    if case.point.endswith(":store.audit-settings"):
        shutil.rmtree(flow.store / "audit-settings")  # as if the log began
    point = f"{case.point}#{case.nth}" if case.nth > 1 else case.point
    victim = await flow.start(case.stage, launch=prefork.crashing(point))
    # what is sent is not answered while its receiver is dead
    driving = asyncio.create_task(_driven(flow, case.kind))
    try:
        await assert_died(victim, point)
        if case.broker == "apache":
            await remove_members(flow.kafka, GROUPS_OF.get(case.stage, ()))
        await asyncio.gather(*(flow.start(name) for name in (case.stage, *others)))
        sent = await driving
    finally:
        driving.cancel()
        await asyncio.wait([driving])
    if isinstance(sent, Job):
        return await _finished(flow, sent)
    await flow.caught_up(groups=["audit"])
    return sent


async def assert_died(victim: FlowProcess, point: str) -> None:
    """Wait until a process has killed itself, and see that it did so at the point."""
    try:
        code = await victim.ended()
    except TimeoutError:
        raise AssertionError(f"{victim.name} was never at {point}:\n{victim.log[-3000:]}") from None
    assert code == -signal.SIGKILL, f"{victim.name} ended with {code}:\n{victim.log[-3000:]}"
    assert died_at(point) in victim.log


async def _driven(flow: Flow, kind: Kind) -> Job | EventRun:
    match kind:
        case "event" | "misfit" | "burst":
            return await drive_events(flow, kind)
        case _:
            return await _drive(flow, kind)


async def _finished(flow: Flow, job: Job) -> Run:
    if any(announcement.accepted for announcement in job.announcements):
        await flow.notified(job)
    await flow.caught_up()
    return Run(flow, job)


async def _restored(flow: Flow, case: Case) -> None:
    """Let the next case find healthy processes."""
    for stage in filter(None, (case.stage, case.absent)):
        flow.processes[stage].kill()
        await flow.start(stage)


async def _drive(flow: Flow, kind: JobKind) -> Job:
    guid = uuid.uuid4()
    match kind:
        case "good" | "shared" | "paced" | "corrected":
            job = await flow.send(job_guid=guid, cards=SHARED_CARDS if kind == "shared" else CARDS)
            if kind == "corrected":
                await flow.sandbox.ecs.announce(guid, override={"record_count": CORRECTED_COUNT})
            return job
        case "failing":
            return await flow.send(job_guid=guid, cards=CARDS, record_count=ANNOUNCED_OF_FAILING)
        case "retried" | "parked" | "unconfirmed" | "overdue":
            if kind in _FAULTS:
                flow.sandbox.faults.add(_FAULTS[kind].model_copy(update={"job": guid}))
            expires = {"expires_in_seconds": OVERDUE_SECONDS} if kind == "overdue" else {}
            return await flow.send(job_guid=guid, cards=CARDS, **expires)
        case "invalid":
            return await flow.send(job_guid=guid, cards=CARDS, override={"expires_at": "tomorrow"})
        case "poison":
            await _publish(flow, [OutgoingRecord(Topic.BATCH_REQUESTED, job_key(INTEGRATION, guid), POISON, ())])
            return await flow.send(job_guid=guid, cards=CARDS)
        case "audit-poison":
            await _publish(flow, [OutgoingRecord(Topic.AUDIT_EVENTS, job_key(INTEGRATION, guid), POISON, ())])
            return await flow.send(job_guid=guid, cards=CARDS)


async def _publish(flow: Flow, records: Sequence[OutgoingRecord]) -> None:
    async with KafkaPublisher(flow.kafka) as publisher:
        for record in records:
            await publisher.publish(record)


def _notes(flow: Flow) -> Path:
    return _notes_in(flow.folder)


def _notes_in(folder: Path) -> Path:
    return folder / "cards"

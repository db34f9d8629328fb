"""kill -9 right before and right after every effect; the process is started again; the job ends as if nothing had been.

The effects are enumerated in ``support.effects``. In each case one process of a running flow kills itself at its point
(``support.crashing_pipeline``; a point that is never reached fails). It is started again as usual, and what came of the
job is compared with an undisturbed run; or it is looked whether every event that Weavr sent is in its topic, under one
id. All points on Apache Kafka; one of each kind on the embedded broker, for machines without Java.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import pytest
import pytest_asyncio
from support.brokers import Broker
from support.crashes import CARDS, CHUNK_RECORDS, CORRECTED_COUNT, POISON, Case, Kind, Run, run_cases
from support.effects import CRASH_POINTS, EFFECTS
from support.event_crashes import EventRun, check_events
from support.flow_checks import (
    COMPLETED_STEPS,
    assert_audit_intact,
    assert_completed,
    assert_one_outcome,
    assert_steps,
    notified_body,
)
from support.members import until
from support.prefork import Prefork

from pipeline.contracts import Topic

FLOWS: Final = 6
EMBEDDED_FLOWS: Final = 3

FAILED_STEPS: Final = tuple(step for step in COMPLETED_STEPS if step not in {"job.processed", "result.uploaded"})


class Passage(NamedTuple):
    """Where an effect is passed; see :class:`support.crashes.Case`."""

    stage: str
    kind: Kind = "good"
    nth: int = 1
    absent: str = ""


_process, _upload, _confirm, _audit = (Passage(stage) for stage in ("process", "upload", "confirm", "audit"))

PASSAGES: Final[Mapping[str, Sequence[Passage]]] = {
    # the watch inside CONFIRM leaves announcements to PROCESS, if that is there, and files no job that has ended
    "store.job": [_process, Passage("confirm", absent="process")],
    "store.announcement": [Passage("process", absent="confirm"), Passage("confirm", absent="process")],
    "store.conflict": [Passage("process", "corrected"), Passage("confirm", "corrected", absent="process")],
    "store.started": [_process],
    "store.source": [_process],
    "store.start-ended": [Passage("process", "shared")],
    "store.chunk-started": [Passage("process", "shared", 2)],
    "store.plan-page": [Passage("process", "shared")],
    "store.plan": [Passage("process", "shared")],
    "store.part": [_process, Passage("process", "failing", 2)],
    "store.manifest": [_process, Passage("process", nth=3)],
    "store.processed": [_process],
    "store.outcome": [_upload, Passage("process", "failing")],
    "store.try": [_confirm, Passage("confirm", "retried", 2), Passage("confirm", "retried", 3)],
    "store.confirmed": [_confirm, Passage("confirm", "failing")],
    "store.waiting": [Passage("process", "parked"), Passage("confirm", "unconfirmed")],
    "store.due": [Passage("process", "parked"), Passage("confirm", "unconfirmed")],
    "store.open": [Passage("confirm", absent="process")],
    "store.decided": [Passage("confirm", "overdue", absent="process")],
    "store.purge": [Passage("confirm", "failing")],
    "store.ended": [_confirm],
    "store.rate": [Passage("process", "paced"), Passage("process", "paced", 2)],
    "store.segment": [_audit],
    "store.checkpoint": [_audit],
    "store.audit-settings": [_audit],
    "erase.announcement": [_confirm],
    "delete.parts": [_confirm],
    "delete.open": [_confirm, Passage("confirm", "overdue", absent="process")],
    "delete.waiting": [Passage("confirm", "parked")],
    "delete.due": [Passage("confirm", "parked")],
    "delete.rate": [Passage("process", "paced")],
    "delete.checkpoint": [_audit],
    "publish.card-batch.requested": [Passage("ingress"), Passage("confirm", "parked")],
    "publish.card-batch.quarantine": [Passage("ingress", "invalid")],
    "publish.card-batch.chunks": [Passage("process", "shared", 3)],
    "publish.card-batch.processed": [_process],
    "publish.card-batch.uploaded": [_upload, Passage("confirm", "unconfirmed")],
    "publish.card-batch.failed": [Passage("process", "failing")],
    "publish.card-batch.completed": [_confirm, Passage("confirm", "failing")],
    "publish.card-batch.dead-letter": [Passage("process", "poison")],
    "publish.events": [Passage("ingress", "event"), Passage("ingress", "burst", 3)],
    "publish.events.quarantine": [Passage("ingress", "misfit")],
    "publish.audit.events": [
        Passage("ingress", "invalid"),
        Passage("ingress", "misfit"),
        Passage("process", nth=2),
        _upload,
        _confirm,
    ],
    "publish.audit.dead-letter": [Passage("audit", "audit-poison")],
    "commit.process": [_process],
    "commit.chunks": [Passage("process", "shared")],
    "commit.upload": [_upload],
    "commit.confirm": [_confirm],
    "commit.watch": [_confirm],
    "commit.audit": [_audit],
    "put.result": [_upload],
    "post.callback": [_confirm],
}
"""Which process passes an effect, for what, at which time. Every effect of ``support.effects`` is here, or below."""

OF_COMMANDS: Final = {
    *("store.command", "store.dead-letter", "store.switch"),
    *("erase.outcome", "erase.try", "erase.confirmed", "erase.waiting"),
}
"""Effects of an operator's commands alone: test_commands.py and test_dead_letters.py of tests/unit/cli interrupt each
command at each of its."""

RARE: Final = {"store.changed", "delete.purge"}
"""No flow has to wait for another input file, or for days. Unit tests of jobs interrupt them: fanout/test_fanout.py and
test_deadline_watch.py."""

CASES: Final = [
    Case(point, *passage) for point in CRASH_POINTS for passage in PASSAGES.get(point.partition(":")[2], ())
]

UNRECORDED: Final = {
    "chunk": {"before:store.part", "after:store.part", "before:store.manifest"},
    "PUT": {"after:put.result", "before:store.outcome"},
    "POST": {"after:post.callback", "before:store.confirmed"},
}
"""Deaths between an effect and its receipt: it is done once more."""

BESIDE: Final = {
    f"{side}:commit.{group}" for side in ("before", "after") for group in ("process", "chunks", "upload", "confirm")
}
BESIDE_WATCH: Final = {
    f"{side}:{effect}"
    for side in ("before", "after")
    for effect in ("store.job", "store.announcement", "store.open", "commit.watch")
}
"""Deaths at what is done beside the handler, or by the watch beside CONFIRM: any effect may be in work just then."""

EMBEDDED: Final = [
    Case("after:publish.card-batch.requested", "ingress", broker="embedded"),
    Case("after:publish.events", "ingress", "event", broker="embedded"),
    Case("before:store.manifest", "process", nth=2, broker="embedded"),
    Case("after:put.result", "upload", broker="embedded"),
    Case("after:post.callback", "confirm", broker="embedded"),
    Case("before:commit.confirm", "confirm", broker="embedded"),
    Case("after:store.waiting", "process", "parked", broker="embedded"),
    Case("after:publish.card-batch.requested", "confirm", "parked", broker="embedded"),
    Case("after:store.segment", "audit", broker="embedded"),
]

Results = Mapping[Case, BaseException | None]


def test_every_effect_has_its_scenarios() -> None:
    """A new effect must be listed here, or this test fails."""
    elsewhere = OF_COMMANDS | RARE
    assert set(PASSAGES) | elsewhere == set(EFFECTS)
    assert not set(PASSAGES) & elsewhere
    assert {case.point for case in CASES} == {
        point for point in CRASH_POINTS if point.partition(":")[2] not in elsewhere
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prefork: Prefork
) -> Results:
    """Run all selected cases, side by side; each test then looks at its own."""
    params = [_params(item) for item in request.session.items if item.path == request.path]
    selected = [cast("Case", one["case"]) for one in params if "case" in one]
    folder = tmp_path_factory.mktemp("crashes")
    both = (("apache", "apache_kafka", FLOWS), ("embedded", "embedded_broker", EMBEDDED_FLOWS))
    runs = []
    found: dict[Case, BaseException | None] = {}
    for kind, fixture, flows in both:
        cases = [case for case in selected if case.broker == kind]
        try:
            broker = cast("Broker", request.getfixturevalue(fixture)) if cases else None
        except pytest.skip.Exception as reason:
            found |= dict.fromkeys(cases, reason)
            continue
        if broker:
            runs.append(run_cases(broker, folder, cases, flows=flows, check=check, prefork=prefork))
    for one in await asyncio.gather(*runs):
        found |= one
    return found


def _params(item: pytest.Item) -> Mapping[str, object]:
    found: Any = getattr(item, "callspec", None)
    return dict(found.params) if found else {}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", [*EMBEDDED, *CASES], ids=str)
async def test_kill_and_restart(case: Case, results: Results) -> None:
    """The process dies at the point; started again, the flow ends as an undisturbed one does."""
    error = results[case]
    if error is not None:
        raise error


async def check(case: Case, run: Run | EventRun, undisturbed: Run) -> None:
    """Compare a disturbed run with an undisturbed one."""
    await assert_audit_intact(run.flow)
    if isinstance(run, EventRun):
        await check_events(run, kept=case.point not in {"before:publish.events", "before:publish.events.quarantine"})
        return
    if case.kind == "invalid":
        await _check_quarantine(run)
        return
    if case.kind == "corrected":
        await _check_corrected(run, undisturbed)
        return
    if case.kind == "overdue":
        await _check_overdue(run)
        return
    flow, job = run.flow, run.job
    assert flow.result(job) == undisturbed.flow.result(undisturbed.job)
    assert notified_body(flow, job) == notified_body(undisturbed.flow, undisturbed.job)
    if case.kind == "failing":
        assert_steps(flow, job, FAILED_STEPS)
    else:
        assert_completed(flow, job)
    await assert_one_outcome(flow, job, "failed" if case.kind == "failing" else "completed")
    for topic in (Topic.BATCH_REQUESTED, Topic.BATCH_PROCESSED):
        records = [record for record in await flow.records(topic, job) if record.value != POISON]
        assert len({(record.value, dict(record.headers)["ce_id"]) for record in records}) <= 1
    _check_repeats(case, run, undisturbed)
    if case.kind in {"poison", "audit-poison"}:
        await _check_poison(case, run)


def _check_repeats(case: Case, run: Run, undisturbed: Run) -> None:
    """Only an effect whose receipt was not written yet is done twice, as docs/explanation/delivery.md says."""
    often = run.processed()
    assert often.keys() == undisturbed.processed().keys()
    assert max(often.values()) <= 2
    chunks = {(record - 1) // CHUNK_RECORDS for record, times in often.items() if times > 1}
    assert len(chunks) in _repeats(case, "process", "chunk")
    puts = run.flow.sandbox.store.traffic.round_trips(run.job.result_key, "PUT")
    assert puts - (case.kind != "failing") in _repeats(case, "upload", "PUT")
    callbacks = len(run.flow.callbacks(run.job))
    assert callbacks - {"retried": 2, "unconfirmed": 4}.get(case.kind, 1) in _repeats(case, "confirm", "POST")


def _repeats(case: Case, stage: str, effect: str) -> set[int]:
    """Return how often an effect of a stage may have been done once more; at most ``chunks_in_flight`` is one here."""
    if case.stage != stage:
        return {0}
    if case.point in BESIDE or case.kind == "shared" or (stage == "confirm" and case.point in BESIDE_WATCH):
        return {0, 1}
    return {1} if case.point in UNRECORDED[effect] else {0}


async def _check_quarantine(run: Run) -> None:
    """ECS got a 422 in the end, and what it sent is in quarantine under one id."""
    announcement = run.job.announcements[-1]
    assert announcement.attempts[-1].status == 422
    kept = [record for record in await run.flow.records(Topic.BATCH_QUARANTINE) if record.value == announcement.body]
    assert len({dict(record.headers)["ce_id"] for record in kept}) == 1
    digest = hashlib.sha256(announcement.body).hexdigest()
    events = [line["event"] for line in run.flow.audit_lines()]
    assert [event["action"] for event in events if event["detail"].get("body_sha256") == digest] == [
        "webhook.quarantined"
    ]
    assert run.flow.stored(run.job) == {}


async def _check_corrected(run: Run, undisturbed: Run) -> None:
    """The first announcement decided, the difference is kept, and each callback was the same."""
    flow, job = run.flow, run.job
    assert flow.result(job) == undisturbed.flow.result(undisturbed.job)
    assert notified_body(flow, job) == notified_body(undisturbed.flow, undisturbed.job)
    assert len({(one.body, one.request_id) for one in flow.callbacks(job)}) == 1
    await assert_one_outcome(flow, job, "completed")
    (conflict,) = [json.loads(data) for name, data in flow.stored(job).items() if name.startswith("conflicts/")]
    assert conflict["differences"] == [
        {"field": "record_count", "first": str(CARDS.records), "later": str(CORRECTED_COUNT)}
    ]
    assert [one["action"] for one in flow.audit_trail(job)].count("job.conflict") == 1


async def _check_overdue(run: Run) -> None:
    """The job failed, once; ECS was notified, and no marker is left.

    The watch files the job before it decides. If it dies in between, PROCESS may start sooner and decide the same.
    """
    flow, job = run.flow, run.job
    await assert_one_outcome(flow, job, "failed")
    outcome = json.loads(flow.stored(job)["outcome.json"])
    assert (outcome["reason"], outcome["decided_by"]) in (("deadline_passed", "watch"), ("deadline_passed", "process"))
    assert notified_body(flow, job)["success"] is False
    assert (flow.result(job), run.processed()) == (None, {})
    assert [one["action"] for one in flow.audit_trail(job)].count("outcome.decided") == 1
    await until(lambda: not flow.markers(job, "open", "decided"))


async def _check_poison(case: Case, run: Run) -> None:
    """Each group that met the unreadable record has stored it unchanged, and the next job was not delayed."""
    audit = case.kind == "audit-poison"
    topic = Topic.AUDIT_DEAD_LETTER if audit else Topic.BATCH_DEAD_LETTER
    letters = [dict(record.headers) | {"value": record.value} for record in await run.flow.records(topic, run.job)]
    assert {letter["value"] for letter in letters} == {POISON}
    assert {letter["dlq_group"] for letter in letters} == ({b"audit"} if audit else {b"process", b"watch"})
    positions = {(letter["dlq_partition"].decode(), letter["dlq_offset"].decode()) for letter in letters}
    assert len(positions) == 1
    if not audit:
        [position] = positions
        events = [line["event"] for line in run.flow.audit_lines()]
        recorded = [
            event
            for event in events
            if event["action"] == "record.dead_lettered" and position == _record_position(event)
        ]
        assert sorted(event["actor"] for event in recorded) == ["process", "watch"]


def _record_position(event: Mapping[str, Any]) -> tuple[str, str]:
    return str(event["detail"]["partition"]), str(event["detail"]["offset"])

"""Checks of a job once the flow has caught up, after any disturbance."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

from support.flow import INTEGRATION, Flow

from pipeline.audit.verify import verify
from pipeline.contracts import Topic
from pipeline.sandbox import Job, ResultRules, expected_counts, verify_result
from pipeline.storage import LocalSettings, open_store

COMPLETED_STEPS: Final = (
    "webhook.accepted",
    "job.announced",
    "job.started",
    "job.processed",
    "result.uploaded",
    "outcome.decided",
    "callback.confirmed",
)
"""Of a job that is done without a hitch, in the order of the walk."""

_CARD_DIGITS: Final = 12
"""Planted numbers shorter than this are no card numbers, and may stand anywhere by chance."""


def assert_completed(flow: Flow, job: Job, *, steps: tuple[str, ...] = COMPLETED_STEPS) -> None:
    """Result as planted, ECS notified once, every step in the audit log once, no card data left."""
    assert_notified_success(flow, job)
    assert_steps(flow, job, steps)
    assert_no_card_data(flow, job)


def assert_notified_success(flow: Flow, job: Job) -> None:
    """The result at ECS is as planted, and the callback has its counts."""
    ledger = job.ledger
    assert ledger
    stored = flow.sandbox.store.disk.get(job.result_key)
    assert stored, "no result was uploaded"
    assert verify_result(stored.path, ledger, ResultRules()) == []
    ok, failed = expected_counts(ledger)
    assert notified_body(flow, job) == {
        "success": True,
        "records_processed": ok + failed,
        "records_failed": failed,
        "error_message": None,
    }


def notified_body(flow: Flow, job: Job) -> dict[str, Any]:
    """Return the callback's body, in the seed's order of fields; every callback of the job has this body."""
    callbacks = flow.callbacks(job)
    assert callbacks, "ECS was never notified"
    assert len({(one.body, one.request_id) for one in callbacks}) == 1
    # one is accepted, and repeats of it are recognised; never is a second one news
    assert [one.reason for one in callbacks if not one.replayed and one.decided in range(200, 300)] == ["accepted"]
    first = callbacks[0]
    assert first.headers["content-type"] == "application/json"
    body: dict[str, Any] = json.loads(first.body)
    assert list(body) == ["success", "records_processed", "records_failed", "error_message"]
    return body


def assert_steps(flow: Flow, job: Job, steps: tuple[str, ...]) -> None:
    """The audit log holds each of these steps once, and no others; each names its job."""
    recorded = flow.audit_trail(job)
    assert Counter(event["action"] for event in recorded) == Counter(steps)
    assert {event["integration"] for event in recorded} == {INTEGRATION}


def assert_no_card_data(flow: Flow, job: Job) -> None:
    """No part of the job is left, and no planted number anywhere in the store but in other jobs' own folders."""
    assert [name for name in flow.stored(job) if name.startswith(("parts/", "attempts/"))] == []
    assert job.ledger
    numbers = [card.number.encode() for card in job.ledger.cards() if len(card.number) >= _CARD_DIGITS]
    others = flow.store / "jobs"
    own = others / INTEGRATION / str(job.guid)
    for path in flow.store.rglob("*"):
        if path.is_file() and (own in path.parents or others not in path.parents):
            data = path.read_bytes()
            assert not any(number in data for number in numbers), f"{path.relative_to(flow.store)} holds a card number"


async def assert_one_outcome(flow: Flow, job: Job, outcome: str) -> None:
    """Every record that carries the decision or the end of the job is the same record."""
    carried = await flow.records(Topic.BATCH_UPLOADED, job) + await flow.records(Topic.BATCH_FAILED, job)
    wanted = Topic.BATCH_UPLOADED if outcome == "completed" else Topic.BATCH_FAILED
    assert {record.topic for record in carried} == {wanted}
    assert len({(record.value, _event_id(record.headers)) for record in carried}) == 1
    ended = await flow.records(Topic.BATCH_COMPLETED, job)
    assert len({(record.value, _event_id(record.headers)) for record in ended}) == 1
    end = json.loads(ended[0].value)
    assert (end["outcome"], end["told"]) == (outcome, "confirmed")
    assert json.loads(flow.stored(job)["outcome.json"])["outcome"] == outcome


async def assert_audit_intact(flow: Flow) -> None:
    """The chains verify, and they hold no event id twice."""
    store = open_store(LocalSettings(kind="local", path=flow.store))
    try:
        report = await verify(store)
    finally:
        await store.close()
    assert report.ok, report
    ids = Counter(line["id"] for line in flow.audit_lines())
    assert [one for one, times in ids.items() if times > 1] == []


def _event_id(headers: tuple[tuple[str, bytes], ...]) -> bytes:
    return dict(headers)["ce_id"]

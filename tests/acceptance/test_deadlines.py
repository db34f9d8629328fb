"""A deadline in each stage, and URLs renewed in mid-job: no job ends in silence, and ECS hears of it in time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import JsonValue
from support.brokers import Broker
from support.flow import EVERYTHING, Flow, running_flow
from support.flow_checks import assert_completed, assert_one_outcome, notified_body
from support.gated import open_gate
from support.members import until
from support.prefork import Prefork

from pipeline.contracts import RETRY_GROUP_HEADER, Topic, first_values
from pipeline.sandbox import CardFile, Fault, Job

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK_SECONDS = 10.0
"""From the announcement to the deadline: enough to reach the stage that the deadline is to meet, on a slow machine."""
MARGIN_SECONDS = 40.0
"""From the deadline to the expiry: ECS must be notified of the failure within it."""
EXPIRES_SECONDS = WORK_SECONDS + MARGIN_SECONDS

HOLD_FROM = 101
LIMITS: dict[str, JsonValue] = {"deadline_margin_seconds": MARGIN_SECONDS, "chunk_records": 50}
SOON: dict[str, JsonValue] = {"read_ahead_bytes": 65_536, "idle_close_seconds": 0.3}


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gates")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flow(
    embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory, gates: Path, prefork: Prefork
) -> AsyncIterator[Flow]:
    """All stages, with a processor that stops at the third chunk until a job's gate is open."""
    async with running_flow(
        embedded_broker,
        tmp_path_factory.mktemp("flow"),
        processor="support.gated:Gated",
        options={"folder": str(gates), "hold_from": HOLD_FROM},
        tables={"transfer": SOON},
        integration={"limits": LIMITS},
        launch=prefork,
    ) as running:
        yield running
        await running.stop(*EVERYTHING)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def late(flow: Flow) -> Mapping[str, Job]:
    """Jobs that will come too late, all announced at once: what each test waits for happens side by side."""
    slow = UUID(int=1)
    flow.sandbox.faults.add(Fault(target="result", kind="status", status=503, code="SlowDown", job=slow, times=0))
    soon = round(EXPIRES_SECONDS)
    return {
        "held": await flow.send(cards=CardFile(records=300), expires_in_seconds=EXPIRES_SECONDS),
        "slow store": await flow.send(cards=CardFile(records=20), expires_in_seconds=EXPIRES_SECONDS, job_guid=slow),
        "short URLs": await flow.send(
            cards=CardFile(records=300), expires_in_seconds=3600, url_expires_in_seconds=soon
        ),
    }


def assert_notified_in_time(flow: Flow, job: Job) -> str:
    """ECS was notified of a failure before its URLs expired; returns the message."""
    body = notified_body(flow, job)
    assert body["success"] is False
    first = flow.callbacks(job)[0]
    assert first.at < job.announcements[-1].expires_at
    assert flow.result(job) is None
    message: str = body["error_message"]
    return message


def decided(flow: Flow, job: Job) -> tuple[str, str]:
    """Return why the job failed, and which stage said so."""
    outcome = json.loads(flow.stored(job)["outcome.json"])
    return outcome["reason"], outcome["decided_by"]


async def test_no_worker_at_all(embedded_broker: Broker, tmp_path: Path, prefork: Prefork) -> None:
    """PROCESS and UPLOAD do not run: the deadline watch in CONFIRM notifies ECS that the job failed."""
    limits = LIMITS | {"deadline_margin_seconds": EXPIRES_SECONDS - 1}
    running = running_flow(
        embedded_broker, tmp_path, start=("ingress", "confirm"), integration={"limits": limits}, launch=prefork
    )
    async with running as flow:
        job = await flow.send(expires_in_seconds=EXPIRES_SECONDS)
        await flow.notified(job)
        assert "expired" in assert_notified_in_time(flow, job)
        assert decided(flow, job) == ("deadline_passed", "watch")

        # a worker that comes too late finds the decision, touches no card and changes nothing
        await flow.caught_up(groups=("watch", "confirm"))
        before = flow.stored(job)
        await flow.start("process")
        await flow.caught_up(groups=("watch", "process", "confirm"))
        assert flow.stored(job) == before
        assert flow.sandbox.store.traffic.round_trips(job.input_key) == 0
        await assert_one_outcome(flow, job, "failed")
        await flow.stop()


async def test_in_mid_process(flow: Flow, late: Mapping[str, Job], gates: Path) -> None:
    """The processor hangs: the callback has the counts so far, and the worker is free for other jobs."""
    job = late["held"]
    await flow.notified(job)
    assert "expired" in assert_notified_in_time(flow, job)
    reason, by = decided(flow, job)
    assert reason == "deadline_passed"
    assert by in {"process", "watch"}
    body = notified_body(flow, job)
    assert (body["records_processed"], body["records_failed"]) == (HOLD_FROM - 1, 0)

    open_gate(gates, job.guid)  # too late
    other = await flow.send(cards=CardFile(seed=2, records=20))
    await flow.notified(other)
    await flow.caught_up()
    assert_completed(flow, other)
    assert await flow.records(Topic.BATCH_PROCESSED, job) == []
    assert len(flow.callbacks(job)) == 1


async def test_in_upload(flow: Flow, late: Mapping[str, Job]) -> None:
    """The object store answers SlowDown until the end: all cards are done, but the job fails the callback says why."""
    job = late["slow store"]
    await flow.notified(job)
    assert "expired" in assert_notified_in_time(flow, job)
    assert decided(flow, job)[0] == "deadline_passed"
    assert decided(flow, job)[1] in {"upload", "watch"}
    assert notified_body(flow, job)["records_processed"] == job.record_count
    records = await flow.records(Topic.BATCH_PROCESSED, job)
    # while it waits for the store, the record may come back as a copy
    assert len([one for one in records if RETRY_GROUP_HEADER not in first_values(one.headers)]) == 1
    assert flow.sandbox.store.traffic.requests["PUT", job.result_key, HTTPStatus.SERVICE_UNAVAILABLE] > 1
    await flow.caught_up()
    await assert_one_outcome(flow, job, "failed")


async def test_urls_that_expire_before_they_are_said_to(flow: Flow, late: Mapping[str, Job]) -> None:
    """The deadline is that of the URLs' own signatures where they end before ``expires_at``."""
    job = late["short URLs"]
    await flow.notified(job)
    assert "expired" in assert_notified_in_time(flow, job)
    assert flow.callbacks(job)[0].at.timestamp() < job.created_at.timestamp() + EXPIRES_SECONDS


async def test_expired_at_arrival(flow: Flow) -> None:
    """An announcement whose expiry is past is accepted, and ends in a failure callback without a single request."""
    job = await flow.send(cards=CardFile(records=20), expires_in_seconds=-10)
    assert job.announcements[0].accepted
    await flow.notified(job)
    await flow.caught_up()
    assert notified_body(flow, job)["success"] is False
    assert decided(flow, job)[0] == "deadline_passed"
    assert flow.sandbox.store.traffic.round_trips(job.input_key) == 0
    assert flow.sandbox.store.traffic.round_trips(job.result_key) == 0
    await assert_one_outcome(flow, job, "failed")


async def test_renewed_in_mid_download(flow: Flow, gates: Path) -> None:
    """Old URLs die while the file is being read: the download goes on by Range with the new one, the PUT uses the new.

    The worker holds at record 101 and lets go of the connection meanwhile, as a slow processor makes it do.
    """
    guid = UUID(int=2)
    flow.sandbox.faults.add(Fault(target="input", kind="rate", bytes_per_second=20_000, job=guid))
    cards = CardFile(seed=3, records=5000)
    job = await flow.send(cards=cards, expires_in_seconds=EXPIRES_SECONDS + 20, job_guid=guid)
    requests = flow.sandbox.store.traffic.requests
    await until(lambda: requests["GET", job.input_key, 0] == 1)  # the connection was let go of

    old = job.announcements[0]
    await flow.sandbox.ecs.announce(job.guid, expires_in_seconds=3600)
    await until(lambda: sum(name.startswith("announcements/") for name in flow.stored(job)) == 2)
    for url in old.urls:
        flow.sandbox.store.revoke(url)
    open_gate(gates, job.guid)

    await flow.notified(job)
    await flow.caught_up()
    assert_completed(
        flow,
        job,
        steps=(
            "webhook.accepted",
            "webhook.accepted",
            "job.announced",
            "job.renewed",
            "job.started",
            "job.processed",
            "result.uploaded",
            "outcome.decided",
            "callback.confirmed",
        ),
    )
    assert requests["GET", job.input_key, HTTPStatus.PARTIAL_CONTENT] >= 1
    assert requests["PUT", job.result_key, HTTPStatus.OK] == 1
    assert requests["PUT", job.result_key, HTTPStatus.FORBIDDEN] == 0
    assert flow.sandbox.store.traffic.rewritten[job.input_key] == 0

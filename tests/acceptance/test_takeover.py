"""Several workers of one stage: frozen, stopped, or simply sharing the work.

Apache Kafka only: the embedded broker allows one member per group.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from support.brokers import Broker
from support.counting import seen
from support.flow import Flow, running_flow
from support.flow_checks import (
    COMPLETED_STEPS,
    assert_audit_intact,
    assert_completed,
    assert_notified_success,
    assert_one_outcome,
)
from support.members import until
from support.prefork import Prefork

from pipeline.sandbox import CardFile, Job

CHUNKS = 10
CHUNK_RECORDS = 20
CARDS = CardFile(records=CHUNKS * CHUNK_RECORDS, bad_share=0.05)
CHUNKS_IN_FLIGHT = 2

StartFlow = Callable[..., AbstractAsyncContextManager[Flow]]


@pytest.fixture
def start_flow(apache_kafka: Broker, tmp_path: Path, prefork: Prefork) -> StartFlow:
    """A flow whose processor takes its time and notes every card."""

    def start(*, seconds: float, **changes: Any) -> AbstractAsyncContextManager[Flow]:
        return running_flow(
            apache_kafka,
            tmp_path,
            processor="support.counting:Counting",
            options={"file": str(tmp_path / "cards"), "seconds": seconds},
            integration={
                "limits": {"chunk_records": CHUNK_RECORDS, "chunks_in_flight": CHUNKS_IN_FLIGHT},
                "processor": {"concurrency": 4},
            },
            launch=prefork,
            **changes,
        )

    return start


async def test_a_frozen_worker_that_thaws_changes_nothing(start_flow: StartFlow) -> None:
    """SIGSTOP in mid-job; another worker takes over and finishes; SIGCONT: the first one finds its lease lost."""
    others = ("ingress", "upload", "audit")
    async with start_flow(seconds=0.02, start=(*others, "process")) as flow:
        frozen = flow.processes["process"]
        job = await flow.send(cards=CARDS)
        await until(lambda: _chunks(flow, job) >= 3)
        frozen.signal(signal.SIGSTOP)
        done = _chunks(flow, job)
        assert done < CHUNKS
        await flow.start("process", key="second")
        await flow.caught_up(groups=("process", "upload"))
        before = flow.stored(job)
        assert "outcome.json" in before
        assert any(name.startswith("parts/") for name in before)  # ECS is not notified yet: the parts are still there

        frozen.signal(signal.SIGCONT)
        await until(lambda: '"why": "heartbeat_stale"' in frozen.log)
        await until(lambda: frozen.log.count("partitions_assigned") == 2)  # it serves again, as a new member
        await flow.caught_up(groups=("process", "upload"))
        after = flow.stored(job)
        after.pop("started/1.ended.json", None)  # it may note that it lives, so that its start counts as no death
        assert after == before

        await flow.start("confirm")
        await flow.notified(job)
        await flow.caught_up()
        assert_completed(flow, job)
        assert len(flow.callbacks(job)) == 1
        assert flow.sandbox.store.traffic.round_trips(job.result_key, "PUT") == 1
        await assert_one_outcome(flow, job, "completed")
        await assert_audit_intact(flow)
        assert _chunks_done_twice(flow, job) <= CHUNKS_IN_FLIGHT
        await flow.stop()


async def test_a_worker_stopped_in_mid_job_hands_it_over(start_flow: StartFlow) -> None:
    """SIGTERM with less grace than the job needs: it stops in time, the next one does the rest."""
    grace = 0.5
    async with start_flow(seconds=0.05, tables={"consumer": {"stop_grace_seconds": grace}}) as flow:
        job = await flow.send(cards=CARDS)
        await until(lambda: _chunks(flow, job) >= 2)
        began = asyncio.get_running_loop().time()
        await flow.stop("process")
        assert asyncio.get_running_loop().time() - began < grace + 10.0
        done = _chunks(flow, job)
        assert 2 <= done < CHUNKS
        await flow.start("process")
        await flow.notified(job)
        await flow.caught_up()
        assert_completed(flow, job)
        await assert_one_outcome(flow, job, "completed")
        assert _chunks_done_twice(flow, job) <= CHUNKS_IN_FLIGHT
        await assert_audit_intact(flow)
        await flow.stop()


async def test_a_stopped_worker_finishes_what_fits_into_the_grace(start_flow: StartFlow) -> None:
    """SIGTERM with grace enough: the job in work is done by the very process, and no card twice."""
    async with start_flow(seconds=0.02) as flow:
        job = await flow.send(cards=CARDS)
        await until(lambda: _chunks(flow, job) >= 2)
        await flow.stop("process")
        await flow.notified(job)
        await flow.caught_up()
        assert_completed(flow, job)
        assert set(seen(flow.folder / "cards", job.guid).values()) == {1}
        await flow.stop()


async def test_two_hundred_jobs_on_two_workers(start_flow: StartFlow) -> None:
    """Each job is done once by one of them and confirmed once; both had their share."""
    async with start_flow(seconds=0.0) as flow:
        await flow.start("process", key="second")
        limit = asyncio.Semaphore(20)

        async def send(number: int) -> Job:
            async with limit:
                return await flow.send(cards=CardFile(seed=number, records=25, bad_share=0.1))

        jobs = await asyncio.gather(*(send(number) for number in range(200)))
        for job in jobs:
            await flow.notified(job, 120.0)
        await flow.caught_up()
        for job in jobs:
            assert_notified_success(flow, job)
            assert len(flow.callbacks(job)) == 1
        await assert_audit_intact(flow)
        steps = Counter((line["event"]["job_guid"], line["event"]["action"]) for line in flow.audit_lines())
        assert steps == Counter((str(job.guid), step) for job in jobs for step in COMPLETED_STEPS)
        cards = (flow.folder / "cards").read_text().splitlines()
        assert len(cards) == len(set(cards)) == sum(_reaching(job) for job in jobs)
        shares = [flow.processes[key].log.count('"event": "job_processed"') for key in ("process", "second")]
        assert sum(shares) == len(jobs)
        assert min(shares) >= len(jobs) / 10
        await flow.stop()


def _chunks(flow: Flow, job: Job) -> int:
    """Return how many chunks are finished."""
    return sum(name.startswith("parts/") and name.endswith(".json") for name in flow.stored(job)) - 1


def _chunks_done_twice(flow: Flow, job: Job) -> int:
    counts = seen(flow.folder / "cards", job.guid)
    assert len(counts) == _reaching(job)
    assert max(counts.values()) <= 2
    return len({(record - 1) // CHUNK_RECORDS for record, times in counts.items() if times > 1})


def _reaching(job: Job) -> int:
    """Return how many cards of a job reach the processor: those that are short of fields never do."""
    assert job.ledger
    return job.ledger.records - job.ledger.bad.get("missing", 0)

"""A job that kills its workers ends; those that died beside it do not. Real processes, two workers, Apache Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from support.brokers import Broker
from support.counting import seen
from support.deadly import DEADLY
from support.flow import Flow, running_flow
from support.flow_checks import assert_audit_intact, assert_notified_success, assert_one_outcome
from support.prefork import Prefork

from pipeline.jobs.starts import MOST_DEATHS
from pipeline.sandbox import CardFile

INNOCENT: Final = 20
RECORDS: Final = 20
CHUNK_RECORDS: Final = 5
CARDS: Final = CardFile(records=RECORDS)
WORKERS: Final = ("process", "second")


async def keep_running(flow: Flow, deaths: list[int | None]) -> None:
    """Start workers again when they end, as Kubernetes does."""
    while True:
        for key in WORKERS:
            if (code := flow.processes[key].code) is not None:
                deaths.append(code)
                flow.launch("process", key=key)
        await asyncio.sleep(0.1)


async def test_a_job_that_kills_its_workers_fails_and_those_beside_it_complete(
    apache_kafka: Broker, tmp_path: Path, prefork: Prefork
) -> None:
    """Three workers die, not more; each death repeats at most one chunk of each job beside it."""
    cards, deaths = tmp_path / "cards", list[int | None]()
    async with running_flow(
        apache_kafka,
        tmp_path,
        processor="support.deadly:Deadly",
        options={"file": str(cards), "seconds": 0.02},
        integration={"limits": {"chunk_records": CHUNK_RECORDS}, "processor": {"concurrency": 1}},
        launch=prefork,
    ) as flow:
        await flow.start("process", key="second")
        watching = asyncio.create_task(keep_running(flow, deaths))
        early = [await flow.send(cards=CARDS) for _ in range(INNOCENT // 2)]
        deadly = await flow.send(cards=CARDS, partner_reference_id=DEADLY)
        late = [await flow.send(cards=CARDS) for _ in range(INNOCENT // 2)]
        await flow.notified(deadly, 120.0)
        for job in (*early, *late):
            await flow.notified(job, 120.0)
        await flow.caught_up()
        watching.cancel()
        await asyncio.wait([watching])

        assert deaths == [9] * MOST_DEATHS
        assert deadly.success is False
        await assert_one_outcome(flow, deadly, "failed")
        assert b'"reason":"worker_crashed"' in flow.stored(deadly)["outcome.json"]
        for job in (*early, *late):
            assert_notified_success(flow, job)
            counts = seen(cards, job.guid)
            assert counts.keys() == set(range(1, RECORDS + 1))
            assert max(counts.values()) <= 1 + MOST_DEATHS
            assert counts.total() - RECORDS <= MOST_DEATHS * CHUNK_RECORDS
        assert max(seen(cards, deadly.guid).values()) <= MOST_DEATHS
        await assert_audit_intact(flow)
        await flow.stop()

"""One large job on several workers: one is killed, one freezes, one joins.

Apache Kafka only: the embedded broker allows one member per group.
"""

from __future__ import annotations

import signal
from pathlib import Path

from support.brokers import Broker
from support.counting import seen
from support.flow import Flow, running_flow
from support.flow_checks import assert_audit_intact, assert_completed, assert_one_outcome
from support.members import until
from support.prefork import Prefork

from pipeline.contracts import Topic, job_key
from pipeline.sandbox import CardFile, Job

CHUNK_RECORDS = 1000
CARDS = CardFile(records=200_000, bad_share=0.01)


async def test_a_large_job_survives_a_killed_a_frozen_and_a_new_worker(
    apache_kafka: Broker, tmp_path: Path, prefork: Prefork
) -> None:
    """The result is whole, the outcome is one, and only chunks that were in flight are given to the processor again."""
    notes = tmp_path / "cards"
    async with running_flow(
        apache_kafka,
        tmp_path,
        processor="support.counting:Counting",
        options={"file": str(notes)},
        integration={
            "limits": {"chunk_records": CHUNK_RECORDS, "fanout_bytes": 100_000},
            "processor": {"concurrency": 16},
        },
        launch=prefork,
    ) as flow:
        await flow.start("process", key="frozen")
        await flow.start("process", key="killed")
        job = await flow.send(cards=CARDS)
        await until(lambda: _chunks(flow, job) >= 20)
        flow.processes["killed"].kill()
        await until(lambda: _chunks(flow, job) >= 40)
        frozen = flow.processes["frozen"]
        frozen.signal(signal.SIGSTOP)
        await flow.start("process", key="new")
        await flow.notified(job)
        frozen.signal(signal.SIGCONT)
        await flow.caught_up()
        assert_completed(flow, job)
        assert len(flow.callbacks(job)) == 1
        await assert_one_outcome(flow, job, "completed")
        await assert_audit_intact(flow)
        keys = {record.key for record in await flow.records(Topic.BATCH_CHUNKS)}
        assert keys == {f"{job_key('acme', job.guid)}#{number}" for number in range(200)}
        counts = seen(notes, job.guid)
        assert job.ledger
        assert len(counts) == job.ledger.records - job.ledger.bad.get("missing", 0)
        twice = {(record - 1) // CHUNK_RECORDS for record, times in counts.items() if times > 1}
        # three changes of the group; each takes at most the one chunk that each of three workers has in flight
        assert len(twice) <= 9
        assert max(counts.values()) <= 3
        await flow.stop()


def _chunks(flow: Flow, job: Job) -> int:
    """Return how many chunks have a manifest."""
    parts = flow.store / "jobs" / "acme" / str(job.guid) / "parts"
    return len(list(parts.glob("*/[0-9]*.json")))

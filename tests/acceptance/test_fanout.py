"""One large job on several workers beside many others, with an S3 store: workers are killed, freeze, leave and join.

Apache Kafka only: the embedded broker allows one member per group. ``make proof`` runs it in its full size.
"""

from __future__ import annotations

from pathlib import Path

from support.brokers import Broker
from support.counting import seen
from support.crowd import Crowd, running_crowd
from support.prefork import Prefork
from support.seaweedfs import SeaweedFS

from pipeline.contracts import Topic, chunk_key
from pipeline.sandbox import Job

CHUNK_RECORDS = 1000
CHUNKS = 100


async def test_many_jobs_survive_killed_frozen_leaving_and_new_workers(
    apache_kafka: Broker, seaweedfs: SeaweedFS, tmp_path: Path, prefork: Prefork
) -> None:
    """Results are whole, outcomes are one, and only chunks that were in flight are given to the processor again."""
    notes = tmp_path / "cards"
    crowd = Crowd(
        jobs=12,
        most=500,
        large=CHUNKS * CHUNK_RECORDS,
        chunk_records=CHUNK_RECORDS,
        fanout_bytes=100_000,
        processor="support.counting:Counting",
        options={"file": str(notes)},
        reference={"file": str(tmp_path / "reference")},
        seconds=300.0,
    )
    async with running_crowd(apache_kafka, seaweedfs, tmp_path, crowd, launch=prefork) as run:
        await run.drive()
        await run.check()
        keys = {record.key for record in await run.flow.records(Topic.BATCH_CHUNKS)}
        assert keys == {chunk_key("acme", run.large.guid, number) for number in range(CHUNKS)}
        twice = {(job.guid, chunk) for job in run.all for chunk in _given_twice(notes, job)}
    # The group changes seven times, and each change may end the one chunk that each of four workers has in flight: that
    # of a worker that is gone, and those whose partitions go to another worker. On average it ends three of four,
    # because the group deals out all partitions again (docs/how-to/scale-out.md). No other chunk is given twice.
    assert len({chunk for guid, chunk in twice if guid == run.large.guid}) <= 28
    assert len(twice) <= 28 + crowd.jobs


def _given_twice(notes: Path, job: Job) -> set[int]:
    """Return the chunks of a job whose cards were given to the processor more than once."""
    counts = seen(notes, job.guid)
    assert job.ledger
    assert len(counts) == job.ledger.records - job.ledger.bad.get("missing", 0)
    assert max(counts.values()) <= 3
    return {(record - 1) // CHUNK_RECORDS for record, times in counts.items() if times > 1}

"""What one job costs: requests, records and store calls are counted, not guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

import aiohttp
import pytest
import pytest_asyncio
from support.brokers import Broker
from support.flow import STAGES, Flow, running_flow

from pipeline.contracts import Topic
from pipeline.sandbox import CardFile

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNK: Final = 200

PUBLISHED: Final = {
    Topic.BATCH_REQUESTED: 1,
    Topic.BATCH_PROCESSED: 1,
    Topic.BATCH_UPLOADED: 1,
    Topic.BATCH_COMPLETED: 1,
    Topic.AUDIT_EVENTS: 6,
}

CALLS: Final = {"process": 7, "upload": 6, "confirm": 12, "audit": 8}
"""Most calls of the job store for a job of one chunk: 6, 5 and 10 (docs/explanation/delivery.md says which), and those
of a slow machine: a look counts for a second. The watch is in CONFIRM. AUDIT writes one segment or several, as its
events come. Listings of folders are left out: workers look for paused integrations every few seconds, whatever the
jobs."""

SMALL_JOB: Final = 25
"""Most calls of PROCESS, UPLOAD and CONFIRM together for a job of 200 cards."""

TWENTY_CHUNKS: Final = 70
"""Most for a job of twenty chunks."""

CALLS_PER_CHUNK: Final = {"process": 1, "upload": 1, "confirm": 0}

LOOKS: Final = 4
"""A look counts for a second; a longer job looks again."""

_CALLS = re.compile(r'pipeline_store_op_seconds_count\{op="(\w+)",result="ok"\} ([0-9.e+]+)')


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flow(embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Flow]:
    """All processes; the deadline watch looks once a minute, so that what is counted is the jobs' alone."""
    async with running_flow(
        embedded_broker,
        tmp_path_factory.mktemp("flow"),
        tables={"watch": {"interval_seconds": 60.0}},
        integration={"limits": {"chunk_records": CHUNK}},
    ) as running:
        yield running
        await running.stop()


async def store_calls(flow: Flow) -> dict[str, Counter[str]]:
    """Return how often each stage has called the job store, by operation."""
    calls = {}
    async with aiohttp.ClientSession() as session:
        for stage in STAGES:
            url = (await flow.processes[stage].ready())["management_url"]
            async with session.get(f"{url}/metrics") as response:
                found = _CALLS.findall(await response.text())
            calls[stage] = Counter({op: int(float(count)) for op, count in found if op != "folders"})
    return calls


async def cost(flow: Flow, records: int) -> dict[str, Counter[str]]:
    """Do one job; return what it cost in store calls, after checking all that is the same for any job."""
    before = await store_calls(flow)
    job = await flow.send(cards=CardFile(records=records))
    await flow.notified(job)
    await flow.caught_up()
    after = await store_calls(flow)

    requests = {request: count for request, count in flow.sandbox.store.traffic.requests.items() if count}
    assert requests["GET", job.input_key, HTTPStatus.OK] == 1
    assert requests["PUT", job.result_key, HTTPStatus.OK] == 1
    assert [key for _, key, _ in requests if str(job.guid) in key] == [job.input_key, job.result_key]
    assert len(flow.callbacks(job)) == 1
    published = {topic: len(await flow.records(topic, job)) for topic in Topic}
    assert {topic: count for topic, count in published.items() if count} == PUBLISHED
    return {stage: after[stage] - before[stage] for stage in STAGES}


async def test_a_job_of_200_cards(flow: Flow) -> None:
    """One GET, one PUT, one POST, eleven records; what each stage asks of the job store stays within its bound."""
    await cost(flow, 1)  # what comes once: topics, connections
    one = await cost(flow, CHUNK)
    assert {stage: calls.total() for stage, calls in one.items() if calls.total() > CALLS[stage]} == {}
    assert sum(one[stage].total() for stage in CALLS_PER_CHUNK) <= SMALL_JOB, one


async def test_each_further_chunk(flow: Flow) -> None:
    """PROCESS writes the part with its manifest, UPLOAD reads it; CONFIRM deletes all by one call."""
    chunks = 20
    one, many = await cost(flow, CHUNK), await cost(flow, chunks * CHUNK)
    more = {stage: many[stage].total() - one[stage].total() for stage in CALLS_PER_CHUNK}
    bounds = {stage: (chunks - 1) * calls + LOOKS for stage, calls in CALLS_PER_CHUNK.items()}
    assert {stage: calls for stage, calls in more.items() if calls > bounds[stage]} == {}
    assert sum(many[stage].total() for stage in CALLS_PER_CHUNK) <= TWENTY_CHUNKS, many

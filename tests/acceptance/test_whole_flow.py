"""One job after another through the installed CLI's processes, on both brokers: what ECS gets is what was planted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.brokers import Broker
from support.flow import Flow, running_flow
from support.flow_checks import (
    COMPLETED_STEPS,
    assert_audit_intact,
    assert_completed,
    assert_no_card_data,
    assert_one_outcome,
    assert_steps,
    notified_body,
)

from pipeline.contracts import Topic
from pipeline.sandbox import CardFile

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", params=["embedded", "apache"])
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue("embedded_broker" if request.param == "embedded" else "apache_kafka")
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flow(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Flow]:
    """One flow for all tests of the module; its limits are small, so that a small file is many chunks."""
    folder = tmp_path_factory.mktemp(broker.kind)
    limits = {"chunk_records": 250, "chunks_in_flight": 2}
    async with running_flow(broker, folder, integration={"limits": limits}) as running:
        yield running
        await running.stop()


async def test_a_job_with_bad_cards(flow: Flow) -> None:
    """2,000 cards, some of them bad: result as planted, one callback, audit log whole, nothing left behind."""
    job = await flow.send(cards=CardFile(records=2000, bad_share=0.05, cvv=True))
    await flow.notified(job)
    await flow.caught_up()
    assert_completed(flow, job)
    assert len(flow.callbacks(job)) == 1
    await assert_one_outcome(flow, job, "completed")
    assert json.loads((await flow.records(Topic.BATCH_PROCESSED, job))[0].value)["parts"] == 8
    await assert_audit_intact(flow)
    code, said = await flow.cli("audit", "verify", "--json")
    assert (code, json.loads(said)["ok"]) == (0, True)


async def test_a_gzip_file(flow: Flow) -> None:
    """A compressed file makes the same result as the plain one."""
    spec = CardFile(records=1000, bad_share=0.05)
    plain = await flow.send(cards=spec)
    packed = await flow.send(cards=spec.model_copy(update={"gzip": True}))
    await flow.notified(plain)
    await flow.notified(packed)
    await flow.caught_up()
    assert_completed(flow, packed)
    assert flow.result(packed) == flow.result(plain)


async def test_a_file_with_a_header_only(flow: Flow) -> None:
    """Announced as empty, it completes: the result is a header."""
    job = await flow.send(cards=CardFile(records=0))
    await flow.notified(job)
    await flow.caught_up()
    assert_completed(flow, job)
    assert flow.result(job) == b"card_number,expiry,amount,holder,location_id,note,status,message\n"


async def test_a_job_that_fails(flow: Flow) -> None:
    """A file that is not CSV ends in one failure callback with the reason; nothing is uploaded."""
    job = await flow.send(content="html", record_count=200)
    await flow.notified(job)
    await flow.caught_up()
    body = notified_body(flow, job)
    assert (body["success"], body["records_processed"], body["records_failed"]) == (False, 0, 0)
    assert body["error_message"]
    assert len(body["error_message"]) <= 1200
    assert len(flow.callbacks(job)) == 1
    assert flow.result(job) is None
    await assert_one_outcome(flow, job, "failed")
    assert_steps(flow, job, tuple(step for step in COMPLETED_STEPS if step not in {"job.processed", "result.uploaded"}))


async def test_a_job_that_fails_half_way_keeps_its_parts_for_a_while_and_purges_them_on_request(flow: Flow) -> None:
    """More records than announced: the job fails, what was decided can be read, `job purge` erases the card data."""
    job = await flow.send(cards=CardFile(records=1000), record_count=600)
    await flow.notified(job)
    await flow.caught_up()
    assert notified_body(flow, job)["success"] is False
    assert flow.result(job) is None
    code, said = await flow.cli("job", "purge", str(job.guid), "--reason", "INC-7", "--yes")
    assert code == 0, said
    assert_no_card_data(flow, job)

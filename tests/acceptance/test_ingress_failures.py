"""The ingress when its broker is silent, gone or back, and when it is asked to stop: nothing accepted is ever lost."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from support.brokers import Broker, make_topics
from support.flow import INTEGRATION, JOB_TOPICS, Flow, running_flow
from support.flow_checks import assert_audit_intact
from support.flow_process import Launch
from support.members import until
from support.prefork import Prefork

from pipeline.contracts import Topic, first_values
from pipeline.kafka.admin import check_topics
from pipeline.sandbox import CardFile, JobRequest

DEADLINE_SECONDS = 2.0
SLACK_SECONDS = 4.0
"""What a slow machine may add to the deadline."""
QUICK = {
    "kafka": {"ack_timeout_seconds": 1.5, "request_timeout_seconds": 2.0},
    "ingress": {"port": 0, "deadline_seconds": DEADLINE_SECONDS},
}


@dataclass(frozen=True)
class Sent:
    """One request and its answer."""

    job: UUID
    body: bytes
    status: int
    headers: dict[str, str]
    seconds: float


class Ecs:
    """Posts announcements over connections of its own, once each, and remembers what became of them."""

    def __init__(self, flow: Flow, session: aiohttp.ClientSession) -> None:
        self.sent: list[Sent] = []
        self._flow = flow
        self._session = session

    async def post(self, again: Sent | None = None) -> Sent:
        """Announce a new job, or the same one again."""
        if again is None:
            job = await self._flow.sandbox.ecs.create(JobRequest(announce=False, cards=CardFile(records=1)))
            guid, body = job.guid, self._flow.sandbox.ecs.prepare(job).body
        else:
            guid, body = again.job, again.body
        secret = self._flow.sandbox.settings.webhook_secret.get_secret_value()
        headers = {"Content-Type": "application/json", "X-Webhook-Secret": secret}
        began = time.monotonic()
        async with self._session.post(self._flow.webhook_url, data=body, headers=headers) as response:
            await response.read()
            sent = Sent(guid, body, response.status, dict(response.headers), time.monotonic() - began)
        self.sent.append(sent)
        return sent

    async def accepted_at_last(self) -> Sent:
        """Post until one is accepted."""
        async with asyncio.timeout(90):
            while (sent := await self.post()).status != HTTPStatus.ACCEPTED:
                assert_refused_for_now(sent)
                await asyncio.sleep(0.2)
        return sent

    async def assert_nothing_accepted_is_lost(self) -> None:
        """Every accepted announcement is a record, as received; repeats of one have the same id."""
        records = await self._flow.records(Topic.BATCH_REQUESTED)
        values = {record.value for record in records}
        for sent in self.sent:
            if sent.status == HTTPStatus.ACCEPTED:
                assert sent.body in values
        for sent in self.sent:
            ids = {first_values(one.headers)["ce_id"] for one in records if one.key == f"{INTEGRATION}/{sent.job}"}
            assert len(ids) <= 1


def assert_refused_for_now(sent: Sent) -> None:
    assert sent.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert int(sent.headers["Retry-After"]) >= 1
    assert sent.headers["Content-Type"] == "application/problem+json"
    assert sent.seconds < DEADLINE_SECONDS + SLACK_SECONDS


@asynccontextmanager
async def running_ingress(
    broker: Broker, folder: Path, tables: dict[str, Any], launch: Launch
) -> AsyncIterator[tuple[Flow, Ecs]]:
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        running_flow(broker, folder, start=("ingress",), tables=tables, launch=launch) as flow,
        aiohttp.ClientSession(timeout=timeout) as session,
    ):
        yield flow, Ecs(flow, session)


async def probe(flow: Flow, path: str) -> tuple[int, str]:
    url = (await flow.processes["ingress"].ready())["management_url"]
    async with aiohttp.ClientSession() as session, session.get(f"{url}{path}") as response:
        return response.status, await response.text()


async def until_shown(flow: Flow, path: str, text: str) -> None:
    async with asyncio.timeout(30):
        while text not in (await probe(flow, path))[1]:  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", ["embedded", "apache"])
async def test_a_silent_broker(request: pytest.FixtureRequest, tmp_path: Path, kind: str, prefork: Prefork) -> None:
    """It takes connections and says nothing: 503 with Retry-After in time; back by itself when it speaks again."""
    broker: Broker = request.getfixturevalue("embedded_broker" if kind == "embedded" else "apache_kafka")
    async with running_ingress(broker, tmp_path, QUICK, prefork) as (flow, ecs):
        assert [(await ecs.post()).status for _ in range(3)] == [HTTPStatus.ACCEPTED] * 3
        broker.freeze()
        try:
            refused = await asyncio.gather(*(ecs.post() for _ in range(8)))
            assert (await probe(flow, "/healthz/live"))[0] == HTTPStatus.OK
        finally:
            broker.thaw()
        for sent in refused:
            assert_refused_for_now(sent)
        await ecs.accepted_at_last()
        repeated = await ecs.post(refused[0])
        assert repeated.status == HTTPStatus.ACCEPTED
        await ecs.assert_nothing_accepted_is_lost()
        assert await flow.processes["ingress"].stop() == 0


async def test_what_was_answered_503_and_landed_is_audited(
    apache_kafka: Broker, tmp_path: Path, prefork: Prefork
) -> None:
    """The broker has it and confirms it too late: ECS is asked to repeat it, and the audit log names it once."""
    async with running_ingress(apache_kafka, tmp_path, QUICK, prefork) as (flow, ecs):
        await ecs.accepted_at_last()
        apache_kafka.freeze()
        try:
            refused = await ecs.post()
        finally:
            apache_kafka.thaw()
        assert_refused_for_now(refused)
        async with asyncio.timeout(30):
            while refused.body not in await landed(flow):  # noqa: ASYNC110 - a test looks from outside
                await asyncio.sleep(0.2)
        audit = await flow.start("audit")
        await flow.caught_up(groups=["audit"])
        assert accepted_in(flow, refused) == 1
        await ecs.accepted_at_last()
        assert (await ecs.post(refused)).status == HTTPStatus.ACCEPTED
        await flow.caught_up(groups=["audit"])
        there = await landed(flow)
        assert [accepted_in(flow, sent) for sent in ecs.sent] == [int(sent.body in there) for sent in ecs.sent]
        await assert_audit_intact(flow)
        assert [await one.stop() for one in (flow.processes["ingress"], audit)] == [0, 0]


async def landed(flow: Flow) -> set[bytes]:
    """Return the announcements in their topic."""
    return {record.value for record in await flow.records(Topic.BATCH_REQUESTED)}


def accepted_in(flow: Flow, sent: Sent) -> int:
    """Return how often the audit log says that an announcement was accepted."""
    events = [line["event"] for line in flow.audit_lines() if line["event"]["job_guid"] == str(sent.job)]
    digest = hashlib.sha256(sent.body).hexdigest()
    return sum((one["action"], one["detail"]["body_sha256"]) == ("webhook.accepted", digest) for one in events)


async def test_a_broker_that_dies_and_comes_back(apache_kafka: Broker, tmp_path: Path, prefork: Prefork) -> None:
    """Connections are refused, then the same broker is there again: all of it under steady traffic.

    Readiness names the cause within ten seconds, and passes again by itself.
    """
    async with running_ingress(apache_kafka, tmp_path, QUICK, prefork) as (flow, ecs):
        await ecs.accepted_at_last()
        assert (await probe(flow, "/healthz/ready"))[0] == HTTPStatus.OK
        apache_kafka.stop()
        try:
            async with asyncio.timeout(10):
                while (await probe(flow, "/healthz/ready"))[0] == HTTPStatus.OK:  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(0.1)
            for _ in range(3):
                assert_refused_for_now(await ecs.post())
            await until_shown(flow, "/healthz/ready", f"{apache_kafka.bootstrap_servers} refuses the connection")
            assert (await probe(flow, "/healthz/live"))[0] == HTTPStatus.OK
        finally:
            apache_kafka.start()
        await ecs.accepted_at_last()
        await until_shown(flow, "/healthz/ready", '"kafka": {"ok": true, "message": "connected"}')
        assert [(await ecs.post()).status for _ in range(3)] == [HTTPStatus.ACCEPTED] * 3
        await ecs.assert_nothing_accepted_is_lost()
        assert await flow.processes["ingress"].stop() == 0


async def test_processes_that_start_before_their_topics(apache_kafka: Broker, tmp_path: Path, prefork: Prefork) -> None:
    """The broker would create topics on first use, but no process makes it do so; readiness names the command."""
    async with running_flow(apache_kafka, tmp_path, start=(), tables=QUICK, launch=prefork, topics=()) as flow:
        early = [flow.launch(name) for name in ("ingress", "process")]
        await until(lambda: all("kafka_topic_missing" in one.log or "topic_differs" in one.log for one in early), 60)
        await asyncio.sleep(2.0)
        assert [one.code for one in early] == [None, None]
        assert {one.rule for one in await check_topics(flow.kafka)} == {"missing"}
        await make_topics(flow.kafka, JOB_TOPICS)
        for one in early:
            await one.ready()
        assert (await probe(flow, "/healthz/ready"))[0] == HTTPStatus.OK
        assert await check_topics(flow.kafka, JOB_TOPICS) == []


async def test_no_broker_at_the_start(embedded_broker: Broker, tmp_path: Path, prefork: Prefork) -> None:
    """An ingress that starts before its broker keeps trying, and becomes ready when the broker is."""
    async with running_flow(embedded_broker, tmp_path, start=(), tables=QUICK, launch=prefork) as flow:
        embedded_broker.freeze()
        try:
            ingress = flow.launch("ingress")
            await until(lambda: "connection_failed" in ingress.log, 60)
            assert ingress.code is None
        finally:
            embedded_broker.thaw()
        await ingress.ready()
        assert (await probe(flow, "/healthz/ready"))[0] == HTTPStatus.OK


async def test_stop_in_mid_request(embedded_broker: Broker, tmp_path: Path, prefork: Prefork) -> None:
    """SIGTERM: not ready at once, yet served on; then no new connections, what is in work is answered; exit 0."""
    patient = {
        "kafka": {"ack_timeout_seconds": 30.0},
        "ingress": {"port": 0, "deadline_seconds": 30.0, "drain_seconds": 4.0},
    }
    async with running_ingress(embedded_broker, tmp_path, patient, prefork) as (flow, ecs):
        ingress = flow.processes["ingress"]
        await ecs.accepted_at_last()
        embedded_broker.freeze()
        try:
            early = asyncio.create_task(ecs.post())
            await until_shown(flow, "/metrics", "pipeline_sends_in_flight 1.0")
            ingress.signal(signal.SIGTERM)
            await until_shown(flow, "/healthz/ready", "not ready")
            late = asyncio.create_task(ecs.post())
            await until_shown(flow, "/metrics", "pipeline_sends_in_flight 2.0")
            async with asyncio.timeout(30):
                while await connects(flow.webhook_url):  # noqa: ASYNC110 - a test looks from outside
                    await asyncio.sleep(0.1)
        finally:
            embedded_broker.thaw()
        answers = await asyncio.gather(early, late)
        assert [answer.status for answer in answers] == [HTTPStatus.ACCEPTED] * 2
        assert [answer.headers["Connection"] for answer in answers] == ["close"] * 2
        assert await ingress.ended() == 0
        await ecs.assert_nothing_accepted_is_lost()


async def connects(url: str) -> bool:
    """Say whether anybody takes connections there."""
    host, _, port = url.split("/")[2].partition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True

"""Every kind of answer to a callback, through the whole flow: ECS accepts it once, or refuses it with an alarm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from support.brokers import Broker
from support.flow import EVERYTHING, Flow, running_flow
from support.flow_checks import assert_completed, assert_no_card_data, notified_body
from support.members import until
from support.prefork import Prefork

from pipeline.contracts import Topic
from pipeline.sandbox import CardFile, Fault, Job

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLBACKS: Mapping[str, Any] = {"timeout_seconds": 5, "retry": {"first_seconds": 0.2}}
"""Of the integration: answers are awaited for 5 s, and a first try is followed by a second almost at once."""

LATE = 20.0
"""Seconds until the URLs of one job expire; its callback is retried beyond that."""

Result = Literal["confirmed", "refused"]


@dataclass(frozen=True)
class Row:
    """One behaviour of ECS, and what must come of it.

    Attributes:
        faults: What the sandbox does wrong, to this job's callbacks only.
        requests: How many callbacks ECS gets, until it has accepted or refused for good.
        expires_in: Seconds until the job's URLs expire.
    """

    faults: tuple[Mapping[str, Any], ...]
    told: Result
    code: str
    requests: int = 1
    expires_in: float = 3600.0


def answer(kind: str, **more: Any) -> tuple[Mapping[str, Any], ...]:
    return ({"kind": "answer", "answer": kind, **more},)


def status(number: int, **more: Any) -> tuple[Mapping[str, Any], ...]:
    return ({"kind": "status", "status": number, **more},)


NOT_CONFIRMED = "callback_not_confirmed"
ACCEPTED = "callback_accepted"

ROWS: Mapping[str, Row] = {
    "as documented": Row((), "confirmed", ACCEPTED),
    "an unknown status": Row(answer("unknown_status"), "confirmed", ACCEPTED),
    "HTML": Row(answer("html"), "confirmed", ACCEPTED, 2),
    "an empty answer": Row(answer("empty"), "confirmed", ACCEPTED, 2),
    "broken JSON": Row(answer("not_json"), "confirmed", ACCEPTED, 2),
    "a maintenance page instead of ECS": Row(status(200) + answer("html"), "confirmed", ACCEPTED, 2),
    "204 instead of ECS": Row(status(204) + answer("empty"), "confirmed", ACCEPTED, 2),
    "errors in a 200, status as text": Row(answer("errors"), "refused", NOT_CONFIRMED),
    "errors in a 200, status as a number": Row(answer("errors", error_status=500), "refused", NOT_CONFIRMED),
    "another job's id": Row(answer("other_job"), "refused", NOT_CONFIRMED),
    "another type": Row(answer("other_type"), "refused", NOT_CONFIRMED),
    "400": Row(status(400), "refused", "callback_refused"),
    "401": Row(status(401), "confirmed", ACCEPTED, 2),
    "403": Row(status(403), "confirmed", ACCEPTED, 2),
    "404": Row(status(404), "refused", "callback_refused"),
    "409 out of the blue": Row(status(409), "refused", "callback_conflict"),
    "415": Row(status(415), "refused", "callback_refused"),
    "422": Row(status(422), "refused", "callback_refused"),
    "a redirect": Row(status(307, location="/elsewhere"), "confirmed", ACCEPTED, 2),
    "408": Row(status(408), "confirmed", ACCEPTED, 2),
    "425": Row(status(425), "confirmed", ACCEPTED, 2),
    "429 that asks to wait": Row(status(429, retry_after="3"), "confirmed", ACCEPTED, 2),
    "500 three times": Row(status(500, times=3), "confirmed", ACCEPTED, 4),
    "503": Row(status(503), "confirmed", ACCEPTED, 2),
    "a connection cut before the answer": Row(({"kind": "lost"},), "confirmed", ACCEPTED, 2),
    "no answer in time": Row(({"kind": "delay", "seconds": 8},), "confirmed", ACCEPTED, 2),
    "busy until after the expiry": Row(status(503, retry_after=f"{LATE:.0f}"), "confirmed", ACCEPTED, 2, LATE),
}

CARDS = 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flow(
    embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory, prefork: Prefork
) -> AsyncIterator[Flow]:
    async with running_flow(
        embedded_broker,
        tmp_path_factory.mktemp("flow"),
        integration={"callback": CALLBACKS, "limits": {"deadline_margin_seconds": 1}},
        launch=prefork,
    ) as running:
        yield running
        await running.stop(*EVERYTHING)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jobs(flow: Flow) -> Mapping[str, Job]:
    """One job per row, side by side: each row's faults are for its own job."""

    async def send(seed: int, row: Row) -> Job:
        guid = uuid4()
        for fault in row.faults:
            flow.sandbox.faults.add(Fault.model_validate({"target": "callback", "job": guid, **fault}))
        cards = CardFile(seed=seed, records=CARDS, bad_share=0.1)
        return await flow.send(cards=cards, job_guid=guid, expires_in_seconds=row.expires_in)

    # the one that expires soon goes first
    seeds = {name: seed for seed, name in enumerate(sorted(ROWS, key=lambda name: ROWS[name].expires_in), 1)}
    first, *others = seeds
    sent = {first: await send(seeds[first], ROWS[first])}
    rest = await asyncio.gather(*(send(seeds[name], ROWS[name]) for name in others))
    return sent | dict(zip(others, rest, strict=True))


async def end_of(flow: Flow, job: Job) -> dict[str, Any]:
    """Wait until ECS was notified of a job, or the job is parked; return which."""
    await until(lambda: not {"confirmed.json", "refused.json"}.isdisjoint(flow.stored(job)), 90)
    stored = flow.stored(job)
    end: dict[str, Any] = json.loads(stored.get("confirmed.json") or stored["refused.json"])
    return end


@pytest.mark.parametrize("name", ROWS)
async def test_row(flow: Flow, jobs: Mapping[str, Job], name: str) -> None:
    """ECS's answer decides whether it was notified; every request of the job is the same request."""
    row, job = ROWS[name], jobs[name]
    end = await end_of(flow, job)
    assert (end["told"], end["code"]) == (row.told, row.code)
    # ECS may note a request long after we gave up waiting for its answer
    await until(lambda: len(flow.callbacks(job)) == row.requests)
    requests = flow.callbacks(job)
    assert end["tries"] == row.requests
    assert len({(one.body, one.request_id) for one in requests}) == 1
    assert requests[0].headers["content-type"] == "application/json"
    assert requests[0].headers["accept"] == "application/vnd.api+json, application/json"
    assert requests[0].request_id
    # cards that failed are no failure of the job
    body = json.loads(requests[0].body)
    assert (body["success"], body["records_processed"], body["error_message"]) == (True, CARDS, None)
    assert flow.result(job) is not None
    if row.told == "refused":
        # the result is kept on both sides until someone has looked at it
        assert any(name.startswith("parts/") for name in flow.stored(job))


async def test_the_end_is_published_and_audited(flow: Flow, jobs: Mapping[str, Job]) -> None:
    """Other services and the audit log learn of both ends; a parked job stays open, a confirmed one leaves no cards."""
    await asyncio.gather(*(end_of(flow, job) for job in jobs.values()))
    await flow.caught_up()
    code, listed = await flow.cli("job", "list", "--json")
    assert code == 0
    open_jobs = {json.loads(line)["job_guid"] for line in listed.splitlines()}
    for name, row in ROWS.items():
        job = jobs[name]
        ends = {record.value for record in await flow.records(Topic.BATCH_COMPLETED, job)}
        assert [json.loads(end)["told"] for end in ends] == [row.told]
        assert [one["action"] for one in flow.audit_trail(job)][-1] == f"callback.{row.told}"
        assert (str(job.guid) in open_jobs) == (row.told == "refused")
        if row.told == "confirmed":
            assert_no_card_data(flow, job)


async def test_retry_after_is_honoured(flow: Flow, jobs: Mapping[str, Job]) -> None:
    """The second try comes when ECS asked for it, not before; here also after the URLs have expired."""
    for name, seconds in (("429 that asks to wait", 3.0), ("busy until after the expiry", LATE)):
        await end_of(flow, jobs[name])
        first, second = flow.callbacks(jobs[name])
        assert (second.at - first.at).total_seconds() >= seconds - 0.1
    assert (
        flow.callbacks(jobs["busy until after the expiry"])[1].at
        > jobs["busy until after the expiry"].announcements[0].expires_at
    )


async def test_a_redirect_is_not_followed(flow: Flow, jobs: Mapping[str, Job]) -> None:
    """The token and the body are not sent to the other host, and the log gives the reason."""
    await end_of(flow, jobs["a redirect"])
    log = flow.processes["confirm"].log
    posted = [json.loads(line) for line in log.splitlines() if '"callback_posted"' in line]
    first, second = [one for one in posted if one.get("job_guid") == str(jobs["a redirect"].guid)]
    assert (first["status"], first["code"], first["level"]) == (307, "callback_redirected", "warning")
    assert second["status"] == 200


async def test_a_409_after_a_lost_answer_confirms_the_notification(flow: Flow) -> None:
    """The first try was heard and its answer lost: the conflict of the second one says so."""
    guid = UUID(int=409)
    faults = flow.sandbox.faults
    # ECS hears at last, but the connection breaks; while it takes its time the test sets its next answer
    faults.add(Fault(target="callback", kind="delay", job=guid, seconds=2))
    faults.add(Fault(target="callback", kind="lost", job=guid))
    job = await flow.send(cards=CardFile(seed=409, records=CARDS), job_guid=guid)
    await until(lambda: all(one.get("job") != str(guid) for one in faults.waiting()))
    faults.add(Fault(target="callback", kind="status", status=409, job=guid))
    end = await end_of(flow, job)
    assert (end["told"], end["code"], end["tries"]) == ("confirmed", "callback_conflict", 2)
    await flow.caught_up()
    assert_no_card_data(flow, job)


async def test_a_failed_job_whose_callback_ecs_refused_is_notified_again_by_command(flow: Flow) -> None:
    """`job notify` sends the same body again once ECS is fixed; it refuses a job whose callback ECS accepted."""
    guid = UUID(int=500)
    flow.sandbox.faults.add(Fault(target="callback", kind="status", status=400, job=guid))
    job = await flow.send(content="html", job_guid=guid)
    assert (await end_of(flow, job))["told"] == "refused"
    await flow.caught_up()
    code, said = await flow.cli("job", "show", str(guid), "--json")
    assert (code, json.loads(said)["state"]) == (0, "refused")

    code, _ = await flow.cli("job", "notify", str(guid), "--reason", "INC-7", "--yes")
    assert code == 0
    await flow.notified(job)
    await flow.caught_up()
    body = notified_body(flow, job)
    assert body["success"] is False
    assert body["error_message"]
    assert len(flow.callbacks(job)) == 2


async def test_a_refused_job_is_confirmed_by_command(flow: Flow, jobs: Mapping[str, Job]) -> None:
    """After 404 and a word with ECS: `job notify`; then its card data goes as that of any confirmed job."""
    job = jobs["404"]
    await end_of(flow, job)
    await flow.caught_up()
    code, _ = await flow.cli("job", "notify", str(job.guid), "--reason", "INC-7", "--yes")
    assert code == 0
    await flow.notified(job)
    await flow.caught_up()
    code, said = await flow.cli("job", "show", str(job.guid), "--json")
    assert (code, json.loads(said)["state"]) == (0, "confirmed")
    assert_completed(flow, job, steps=(*_steps_of_refused(), "callback.repeated", "callback.confirmed"))
    code, said = await flow.cli("job", "notify", str(job.guid), "--reason", "INC-7", "--yes")
    assert (code, said) == (1, "")


def _steps_of_refused() -> tuple[str, ...]:
    return (
        "webhook.accepted",
        "job.announced",
        "job.started",
        "job.processed",
        "result.uploaded",
        "outcome.decided",
        "callback.refused",
    )

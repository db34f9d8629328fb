"""The originating webhook: its fields, its proof, its persistence."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.sandbox_world import Clock, Start

from pipeline.sandbox import HmacScheme, JobRequest, SharedSecretScheme

SECRET = "sandbox-webhook-secret-0123456789abcdef"


class Receiver:
    """An integrator's endpoint that gives the wanted answers and remembers the requests."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.came.append((dict(request.headers), await request.read()))
        return web.Response(status=self.answers.pop(0) if self.answers else 202, text="heard")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/webhooks/ecs/acme", receiver.handle)
    async with TestServer(application) as server:
        receiver.url = str(server.make_url("/webhooks/ecs/acme"))
        yield receiver


async def test_the_announcement_is_that_of_the_batch_page(start: Start, receiver: Receiver) -> None:
    """Every field of the seed, in its order; the count is the file's."""
    sandbox = await start(webhook_url=receiver.url)
    job = await sandbox.ecs.create(JobRequest.model_validate({"cards": {"records": 7}}))
    headers, body = receiver.came[0]
    document = json.loads(body)
    assert list(document) == [
        "job_guid",
        "partner_reference_id",
        "merchant_guid",
        "external_location_ids",
        "record_count",
        "input_file_url",
        "result_upload_url",
        "expires_at",
        "callback_url",
    ]
    assert document["job_guid"] == str(job.guid)
    assert document["record_count"] == 7
    assert document["external_location_ids"] == ["46691", "32049", "30730"]
    assert document["expires_at"] == "2026-01-21T23:43:59.000Z"
    assert document["callback_url"].endswith(f"/partner/batch-jobs/{job.guid}/result-uploaded")
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Webhook-Secret"] == SECRET
    assert sandbox.ecs.status(job) == "ANNOUNCED"


@pytest.mark.parametrize(
    ("scheme", "header", "expected"),
    [
        (SharedSecretScheme(header="X-Key", prefix="Secret "), "X-Key", lambda _body: f"Secret {SECRET}"),
        (
            HmacScheme(),
            "X-Webhook-Signature",
            lambda body: hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        ),
        (
            HmacScheme(header="X-Sig", prefix="v1=", hash="sha512", encoding="base64"),
            "X-Sig",
            lambda body: "v1=" + base64.b64encode(hmac.new(SECRET.encode(), body, hashlib.sha512).digest()).decode(),
        ),
        (
            HmacScheme(timestamp_header="X-Time", separator=":"),
            "X-Webhook-Signature",
            lambda body: hmac.new(SECRET.encode(), b"1769035439:" + body, hashlib.sha256).hexdigest(),
        ),
    ],
)
async def test_every_scheme_proves_where_it_comes_from(
    start: Start, receiver: Receiver, scheme: Any, header: str, expected: Any
) -> None:
    """Secret in a header, HMAC of the body, HMAC of timestamp and body."""
    sandbox = await start(webhook_url=receiver.url)
    await sandbox.ecs.create(JobRequest(scheme=scheme))
    headers, body = receiver.came[0]
    assert headers[header] == expected(body)
    if isinstance(scheme, HmacScheme):
        assert SECRET not in str(headers)
        assert headers.get("X-Time") == ("1769035439" if scheme.timestamp_header else None)


async def test_it_is_sent_again_until_it_is_taken(start: Start, receiver: Receiver) -> None:
    """Same bytes each time; every try is kept."""
    sandbox = await start(webhook_url=receiver.url, webhook_pauses_seconds=(0, 0, 0))
    receiver.answers = [503, 429, 202]
    job = await sandbox.ecs.create(JobRequest())
    assert [attempt.status for attempt in job.announcements[0].attempts] == [503, 429, 202]
    assert job.announcements[0].attempts[0].answer == "heard"
    assert job.announcements[0].accepted
    assert len({body for _, body in receiver.came}) == 1


async def test_a_refusal_or_the_end_of_patience_ends_it(start: Start, receiver: Receiver) -> None:
    """A 4xx is not repeated; a 5xx not for ever; no answer counts as a try."""
    sandbox = await start(webhook_url=receiver.url, webhook_pauses_seconds=(0, 0))
    receiver.answers = [422, 500, 500, 500]
    refused = await sandbox.ecs.create(JobRequest())
    failed = await sandbox.ecs.create(JobRequest())
    unheard = await sandbox.ecs.create(JobRequest(webhook_url="http://127.0.0.1:9/nobody"))
    assert [attempt.status for attempt in refused.announcements[0].attempts] == [422]
    assert [attempt.status for attempt in failed.announcements[0].attempts] == [500, 500, 500]
    assert [attempt.answer for attempt in unheard.announcements[0].attempts] == ["ClientConnectorError"] * 3
    assert {sandbox.ecs.status(job) for job in (refused, failed, unheard)} == {"NOT_ANNOUNCED"}


async def test_a_slow_integrator_is_not_waited_for(start: Start) -> None:
    """After the timeout the try counts as unanswered."""

    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    application = web.Application()
    application.router.add_post("/", slow)
    async with TestServer(application) as server:
        sandbox = await start(webhook_url=str(server.make_url("/")), webhook_timeout_seconds=0.03)
        began = time.monotonic()
        job = await sandbox.ecs.create(JobRequest())
    assert time.monotonic() - began < 5
    assert job.announcements[0].attempts[0].answer == "TimeoutError"


async def test_announcing_again_gives_fresh_urls_or_the_same_bytes(
    start: Start, receiver: Receiver, clock: Clock
) -> None:
    """Renewal and repetition are different things."""
    sandbox = await start(webhook_url=receiver.url)
    job = await sandbox.ecs.create(JobRequest())
    clock.move(10)
    await sandbox.ecs.announce(job.guid, repeat=True)
    await sandbox.ecs.announce(job.guid, expires_in_seconds=7200, override={"record_count": 1})
    first, again, renewed = (json.loads(body) for _, body in receiver.came)
    assert first == again
    assert renewed["job_guid"] == first["job_guid"]
    assert renewed["input_file_url"] != first["input_file_url"]
    assert renewed["expires_at"] == "2026-01-22T00:44:09.000Z"
    assert renewed["record_count"] == 1
    assert len(job.announcements) == 3


async def test_what_ecs_should_never_send_can_be_sent(start: Start, receiver: Receiver, clock: Clock) -> None:
    """Replaced and missing fields, an expiry in the past, URLs that expire before it is said."""
    sandbox = await start(webhook_url=receiver.url)
    await sandbox.ecs.create(
        JobRequest(
            override={"record_count": "seven"},
            omit=("merchant_guid",),
            expires_in_seconds=-5,
            url_expires_in_seconds=77,
            record_count=3,
        )
    )
    document = json.loads(receiver.came[0][1])
    assert document["record_count"] == "seven"
    assert "merchant_guid" not in document
    assert document["expires_at"] == "2026-01-21T22:43:54.000Z"
    assert "X-Amz-Expires=77" in document["input_file_url"]
    assert clock.now.second == 59


async def test_how_far_a_job_is(start: Start, receiver: Receiver, clock: Clock) -> None:
    """Before it is announced, and when its time is over."""
    sandbox = await start(webhook_url=receiver.url)
    job = await sandbox.ecs.create(JobRequest(announce=False, expires_in_seconds=60))
    assert sandbox.ecs.status(job) == "CREATED"
    await sandbox.ecs.announce(job.guid)
    assert sandbox.ecs.status(job) == "ANNOUNCED"
    clock.move(60)
    assert sandbox.ecs.status(job) == "EXPIRED"
    assert not await sandbox.ecs.wait_callback(job.guid, 0.01)

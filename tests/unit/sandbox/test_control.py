"""The control API, the ready line and the client of ``sandbox send-job``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import ValidationError
from support.sandbox_world import Start, prepare
from yarl import URL

from pipeline.errors import PermanentError, TransientError
from pipeline.sandbox import JobRequest, Ledger, Sandbox, SandboxSettings, send_job, serve

_NOBODY = "0f3f8a55-6f0e-4b5c-9d0b-6b1c2f5a7d10"
"""A job that was never made."""


async def call(
    http: aiohttp.ClientSession, sandbox: Sandbox, method: str, path: str, body: object = None
) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    async with http.request(method, f"{sandbox.control_url}{path}", data=data) as response:
        return response.status, await response.json()


async def test_the_overview_says_where_everything_is(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """For a person with curl; no secret in it."""
    status, view = await call(http, sandbox, "GET", "")
    assert status == 200
    assert view["token_url"] == f"{sandbox.url}/api/v1/auth/token"
    assert view["cards_url"] == f"{sandbox.url}/card-api/v1/cards"
    assert view["scheme"]["kind"] == "shared-secret"
    assert sandbox.settings.webhook_secret.get_secret_value() not in json.dumps(view)


async def test_a_job_from_creation_to_its_result(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """Created, listed, read, uploaded, confirmed: all visible from outside."""
    status, view = await call(
        http, sandbox, "POST", "/jobs", {"announce": False, "cards": {"records": 9, "bad_share": 0.5}}
    )
    guid = view["job_guid"]
    assert (status, view["status"], view["record_count"], view["success"]) == (201, "CREATED", 9, None)
    ledger = Ledger.model_validate(view["ledger"])
    assert ledger.records == 9
    stored = sandbox.store.disk.get(view["input"]["key"])
    assert stored is not None
    assert view["input"]["path"] == str(stored.path)
    assert view["input"]["size"] == stored.size == ledger.file_bytes
    assert view["result"]["path"] is None

    job = sandbox.ecs.jobs[next(iter(sandbox.ecs.jobs))]
    announcement = sandbox.ecs.prepare(job)
    job.announcements.append(announcement)
    for url, method in zip(announcement.urls, ("GET", "PUT"), strict=True):
        async with http.request(method, URL(url, encoded=True), data=None) as response:
            await response.read()
    _, view = await call(http, sandbox, "GET", f"/jobs/{guid}")
    assert view["status"] == "RESULT_UPLOADED"
    assert view["input"]["gets"] == view["result"]["puts"] == 1
    assert view["input"]["bytes_sent"] == ledger.file_bytes

    headers = {"Authorization": f"Bearer {sandbox.token()}", "X-Request-Id": "r-1"}
    body = {"success": True, "records_processed": 9, "records_failed": 4, "error_message": None}
    url = f"{sandbox.url}/api/reporting/v1/partner/batch-jobs/{guid}/result-uploaded"
    async with http.post(url, json=body, headers=headers) as response:
        assert response.status == 200
    _, view = await call(http, sandbox, "GET", f"/jobs/{guid}/wait?seconds=1")
    assert (view["status"], view["success"], view["callbacks"]) == ("RESULT_RECEIVED", True, 1)
    assert json.loads(view["callback"]["body"]) == body
    _, callbacks = await call(http, sandbox, "GET", f"/jobs/{guid}/callbacks")
    assert callbacks == (await call(http, sandbox, "GET", "/callbacks"))[1]
    assert callbacks[0]["request_id"] == "r-1"
    assert len((await call(http, sandbox, "GET", "/jobs"))[1]) == 1
    _, requests = await call(http, sandbox, "GET", "/requests")
    assert [(row["method"], row["status"], row["count"]) for row in requests["requests"]] == [
        ("GET", 200, 1),
        ("PUT", 200, 1),
    ]
    assert requests["rewritten"] == {}


async def test_the_result_file_can_be_fetched(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """A script without access to the sandbox's disk gets it over HTTP."""
    job = await prepare(sandbox)
    async with http.get(f"{sandbox.control_url}/jobs/{job.job.guid}/result") as response:
        assert response.status == 404
    async with http.put(job.result_url, data=b"a,b\n") as response:
        assert response.status == 200
    async with http.get(f"{sandbox.control_url}/jobs/{job.job.guid}/result") as response:
        assert await response.read() == b"a,b\n"


async def test_a_job_is_changed_expired_and_announced_again(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The HTTP API can do the same as the Python API."""
    _, view = await call(
        http, sandbox, "POST", "/jobs", {"webhook_url": "http://127.0.0.1:9/", "cards": {"records": 3}}
    )
    path = f"/jobs/{view['job_guid']}"
    assert view["status"] == "NOT_ANNOUNCED"
    _, again = await call(http, sandbox, "POST", f"{path}/announce", {"expires_in_seconds": 5})
    assert again["accepted"] is False
    assert "body" not in again
    _, announcements = await call(http, sandbox, "GET", f"{path}/announcements")
    url = json.loads(announcements[1]["body"])["input_file_url"]
    assert "X-Amz-Expires=5" in url
    _, changed = await call(http, sandbox, "POST", f"{path}/change")
    assert changed["ledger"]["spec"]["seed"] == 2
    _, changed = await call(http, sandbox, "POST", f"{path}/change", {"records": 4})
    assert changed["ledger"]["records"] == 4
    await call(http, sandbox, "POST", f"{path}/expire")
    async with http.get(URL(url, encoded=True)) as response:
        assert response.status == 403


async def test_faults_and_counts_over_http(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """Add, list, clear; what the card API did."""
    fault = {"target": "input", "kind": "cut", "after_bytes": 5, "times": 3}
    status, waiting = await call(http, sandbox, "POST", "/faults", fault)
    assert (status, waiting) == (201, [fault | {"left": 3}])
    assert (await call(http, sandbox, "GET", "/faults"))[1] == waiting
    assert (await call(http, sandbox, "DELETE", "/faults"))[1] == []
    assert sandbox.faults.waiting() == []
    assert (await call(http, sandbox, "GET", "/cards"))[1]["loaded"] == 0


async def test_tokens_are_minted_right_or_wrong(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """For an integrator who tries out rotation and expiry."""
    _, good = await call(http, sandbox, "POST", "/tokens")
    _, bad = await call(http, sandbox, "POST", "/tokens", {"lifetime_seconds": -1, "claims": {"aud": None}})
    job = await prepare(sandbox)
    for token, expected in ((bad["token"], 401), (good["token"], 422)):
        headers = {"Authorization": f"Bearer {token}"}
        async with http.post(job.callback_url, json={}, headers=headers) as response:
            assert response.status == expected


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "problem"),
    [
        ("POST", "/jobs", {"card": 1}, 400, "not valid"),
        ("POST", "/jobs", {}, 400, "no webhook URL"),
        ("POST", "/faults", {"target": "moon", "kind": "cut"}, 400, "not valid"),
        ("GET", f"/jobs/{_NOBODY}", None, 404, "not found"),
        ("GET", "/jobs/one", None, 400, "badly formed"),
        ("POST", f"/jobs/{_NOBODY}/announce", {}, 404, "not found"),
    ],
)
async def test_mistakes_are_explained(  # noqa: PLR0917 - pytest passes keywords
    sandbox: Sandbox, http: aiohttp.ClientSession, method: str, path: str, body: object, status: int, problem: str
) -> None:
    """400 or 404 with what is wrong."""
    answered, view = await call(http, sandbox, method, path, body)
    assert answered == status
    assert problem in view["error"]


async def test_announcing_without_an_address_is_refused(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """A job that was created quietly cannot be announced to nobody."""
    job = await prepare(sandbox)
    status, view = await call(http, sandbox, "POST", f"/jobs/{job.job.guid}/announce", {})
    assert (status, "no webhook URL" in view["error"]) == (400, True)


async def test_it_hands_out_its_public_name(start: Start) -> None:
    """Behind another name, the URLs carry that name; a slash at its end does not matter."""
    sandbox = await start(public_url="http://sandbox.example:8090/")
    job = await prepare(sandbox)
    assert str(job.input_url).startswith("http://sandbox.example:8090/ecs-card-batches/")
    assert sandbox.cards_url == "http://sandbox.example:8090/card-api/v1/cards"


async def test_serve_runs_until_it_is_stopped(tmp_path: Path) -> None:
    """It says once where it is, and is gone afterwards."""
    stop, ready = asyncio.Event(), asyncio.Queue[Mapping[str, object]]()
    settings = SandboxSettings(data_dir=tmp_path, port=0)
    running = asyncio.create_task(serve(settings, stop=stop, on_ready=ready.put_nowait))
    line = await ready.get()
    assert line["ready"] == "sandbox"
    assert line["control_url"] == f"{line['url']}/control"
    view = await send_job(str(line["control_url"]), JobRequest(announce=False))
    assert view["record_count"] == 200
    stop.set()
    await running
    assert ready.empty()
    with pytest.raises(TransientError, match="is it running"):
        await send_job(str(line["control_url"]), JobRequest())


class TestSendJob:
    """The client side."""

    async def test_it_waits_for_the_callback(self, sandbox: Sandbox) -> None:
        """Until it came, or the time is over."""

        async def call_back() -> None:
            while not sandbox.ecs.jobs:  # noqa: ASYNC110 - the job is created by the other side
                await asyncio.sleep(0.005)
            job = next(iter(sandbox.ecs.jobs.values()))
            job.success = False
            job.called_back.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(call_back())
            view = await send_job(sandbox.control_url, JobRequest(announce=False), wait_seconds=5)
        assert view["success"] is False
        view = await send_job(sandbox.control_url, JobRequest(announce=False), wait_seconds=0.03)
        assert view["success"] is None

    async def test_a_refusal_names_the_field(self, sandbox: Sandbox) -> None:
        """As the sandbox says it."""
        with pytest.raises(PermanentError, match="no webhook URL"):
            await send_job(sandbox.control_url, JobRequest())
        request = JobRequest.model_construct(expires_in_seconds="soon", announce=False)  # type: ignore[arg-type]
        with pytest.warns(UserWarning, match="serializer"), pytest.raises(PermanentError, match="expires_in_seconds"):
            await send_job(sandbox.control_url, request)

    async def test_something_else_than_a_sandbox_is_noticed(self, sandbox: Sandbox) -> None:
        """A server that speaks no JSON."""
        with pytest.raises(PermanentError, match="not an answer of a sandbox"):
            await send_job(f"{sandbox.url}/elsewhere", JobRequest())


def test_a_bucket_must_not_hide_another_part(tmp_path: Path) -> None:
    """Its name is a path of the same server."""
    for bucket in ("control", "UPPER", "a/b"):
        with pytest.raises(ValidationError, match="no bucket name"):
            SandboxSettings.model_validate({"data_dir": tmp_path, "object_store": {"bucket": bucket}})


async def test_odd_inputs_have_no_ledger(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """HTML, XML, nothing, another encoding, a quote that never ends."""
    begins = {"html": b"<!DOCTYPE html>", "xml": b"<?xml", "empty": b"", "utf16": b"\xff\xfe", "open_quote": b"card_n"}
    for content, beginning in begins.items():
        job = await prepare(sandbox, content=content)
        async with http.get(job.input_url) as response:
            body = await response.read()
        assert body.startswith(beginning)
        assert job.job.ledger is None
    assert body.count(b'"') % 2 == 1
    assert job.job.record_count == 0


async def test_ipv6_addresses_are_written_in_brackets(start: Start, http: aiohttp.ClientSession) -> None:
    """Where the machine has IPv6."""
    try:
        sandbox = await start(host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    job = await prepare(sandbox)
    assert sandbox.url.startswith("http://[::1]:")
    async with http.get(job.input_url) as response:
        assert response.status == 200

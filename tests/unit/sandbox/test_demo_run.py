"""The demo's own run, with a small stand-in for the pipeline."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from pipeline.app import Ready
from pipeline.audit.segments import GENESIS, Entry, SegmentPosition, build
from pipeline.contracts import AuditAction, AuditEvent
from pipeline.errors import FatalError
from pipeline.sandbox import CardFile
from pipeline.sandbox.demo import PLAN, DemoFailed, EventsOutcome, run_demo, running
from pipeline.sandbox.demo.books import Row
from pipeline.settings import Settings
from pipeline.storage import LocalSettings

SMALL = CardFile(records=20, cvv=True)


class SmallPipeline:
    """Takes webhooks and does the jobs at once, in the simplest way."""

    def __init__(self, settings: Settings) -> None:
        assert isinstance(settings.store, LocalSettings)
        self.store = settings.store.path
        self.settings = settings
        self.entries: list[Entry] = []
        self.work: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def webhook(self, request: web.Request) -> web.Response:
        integration = request.match_info["name"]
        secret = self.settings.ecs[integration].webhook_secrets()[0].value.get_secret_value()
        assert request.headers["X-Webhook-Secret"] == secret
        await self.work.put((integration, await request.read()))
        return web.Response(status=202)

    async def run(self) -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                integration, body = await self.work.get()
                await self.do(http, integration, json.loads(body))

    async def do(self, http: aiohttp.ClientSession, integration: str, job: dict[str, str]) -> None:
        plan = next(plan for plan in PLAN if plan.integration == integration)
        async with http.get(URL(job["input_file_url"], encoded=True)) as response:
            text = await response.text()
        body: dict[str, object] = {"success": False, "records_processed": 0, "error_message": "an HTML page"}
        if plan.success:
            result, failed = await self.result(http, integration, text)
            async with http.put(URL(job["result_upload_url"], encoded=True), data=result.encode()) as response:
                assert response.status == 200
            body = {"success": True, "records_processed": 20, "records_failed": failed, "error_message": None}
        token_file = self.settings.ecs[integration].callback.token_file
        assert token_file is not None
        headers = {"Authorization": f"Bearer {token_file.read_text()}", "X-Request-Id": job["job_guid"]}
        async with http.post(job["callback_url"], json=body, headers=headers) as response:
            assert response.status == 200
        for step in plan.steps:
            event = AuditEvent(
                id=f"{job['job_guid']}-{step}",
                action=AuditAction(step),
                at=datetime.now(UTC),
                actor="test",
                job_guid=UUID(job["job_guid"]),
            )
            self.entries.append(Entry(len(self.entries), event, event.model_dump(mode="json"), 1))
        if len(self.entries) == sum(len(plan.steps) for plan in PLAN):
            self.write_log()

    async def result(self, http: aiohttp.ClientSession, integration: str, text: str) -> tuple[str, int]:
        out, failed = io.StringIO(), 0
        header, *rows = csv.reader(io.StringIO(text))
        writer = csv.writer(out)
        writer.writerow([*header[:5], header[6], "status", "message"])
        options = self.settings.ecs[integration].processor.options
        for number, row in enumerate(rows):
            status = "ok"
            if options:
                token = Path(str(options["token_file"])).read_text()  # noqa: ASYNC240 - a small file
                headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": str(number)}
                async with http.post(str(options["url"]), json={"card_number": row[0]}, headers=headers) as response:
                    status = "ok" if response.status == 201 else "failed"
            failed += status == "failed"
            writer.writerow([*row[:5], row[6], status, "declined" if status == "failed" else ""])
        return out.getvalue(), failed

    def write_log(self) -> None:
        position = SegmentPosition("audit.events", 0, 0, 0)
        built = build(position, self.entries, previous=GENESIS, total=0, writer="w", at=datetime.now(UTC))
        path = self.store / position.key
        path.parent.mkdir(parents=True)
        path.write_bytes(built.data)


async def small_dev(settings: Settings, *, on_ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
    pipeline = SmallPipeline(settings)
    application = web.Application()
    application.router.add_post("/webhooks/ecs/{name}", pipeline.webhook)
    async with TestServer(application) as server:
        working = asyncio.create_task(pipeline.run())
        on_ready(Ready("dev", str(server.make_url("/")).rstrip("/"), "", "broker:1"))
        await stop.wait()
        working.cancel()
        await asyncio.wait([working])


EVENTS = EventsOutcome((), Row("total", 0, 0, 0, 0, 0, 0), {}, 1.0, ("a finding of the second act",))


async def small_events(
    url: str, bootstrap_servers: str, key_files: tuple[Path, Path], watch: Callable[[float], None]
) -> EventsOutcome:
    assert url.startswith("http://127.0.0.1:")
    assert bootstrap_servers in {"broker:1", ""}
    assert [file.stat().st_mode & 0o777 for file in key_files] == [0o600, 0o600]
    watch(1.0)
    return EVENTS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Small jobs, a pipeline of a hundred lines, no logging of its own."""
    plan = [replace(plan, cards=SMALL) for plan in PLAN]
    monkeypatch.setattr(running, "PLAN", plan)
    monkeypatch.setattr(running, "run_dev", small_dev)
    monkeypatch.setattr(running, "run_events", small_events)
    monkeypatch.setattr(running, "configure_logging", lambda *_: None)
    monkeypatch.setattr(running, "_POLL_SECONDS", 0.01)
    return monkeypatch


async def test_three_jobs_run_and_are_verified(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each from webhook to callback; the watch sees them begin and end."""
    del small
    seen: list[list[float]] = []
    shares: list[float] = []
    result = await run_demo(tmp_path, lambda jobs: seen.append([done for _, _, done in jobs]), shares.append)
    outcomes = result.jobs
    assert (result.findings, result.events, shares) == ((), EVENTS, [1.0])
    assert result.all_findings() == ["a finding of the second act"]
    assert [one.findings for one in outcomes] == [(), (), ()]
    assert [(one.cards, one.ok + one.failed) for one in outcomes] == [(20, 20), (20, 20), (0, 0)]
    assert all(one.seconds is not None and one.answer == "200 RESULT_RECEIVED" for one in outcomes)
    assert outcomes[2].result_bytes is None
    assert seen[0] == [0, 0, 0]
    assert seen[-1] == [1, 1, 1]
    assert all(0 <= share <= 1 for shares in seen for share in shares)


async def test_a_pipeline_that_does_nothing_is_convicted(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Webhooks are taken, and that is all: after the time allowed every job is accused."""

    async def idle(settings: Settings, *, on_ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
        pipeline = SmallPipeline(settings)
        application = web.Application()
        application.router.add_post("/webhooks/ecs/{name}", pipeline.webhook)
        async with TestServer(application) as server:
            on_ready(Ready("dev", str(server.make_url("/")).rstrip("/"), ""))
            await stop.wait()

    small.setattr(running, "run_dev", idle)
    small.setattr(running, "_JOB_SECONDS", 0.05)
    small.setattr(running, "_AUDIT_SECONDS", 0.02)
    outcomes = (await run_demo(tmp_path, lambda _jobs: None, lambda _share: None)).jobs
    assert all(one.findings for one in outcomes)
    assert {one.answer for one in outcomes} == {"no callback came"}


@pytest.mark.parametrize("url", [None, ""])
async def test_a_pipeline_that_does_not_start_ends_the_demo(
    small: pytest.MonkeyPatch, tmp_path: Path, url: str | None
) -> None:
    """Not ready in time, or ready without an ingress."""

    async def late(_settings: Settings, *, on_ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
        if url is None:
            on_ready(Ready("dev", None, ""))
        await stop.wait()

    small.setattr(running, "run_dev", late)
    small.setattr(running, "_START_SECONDS", 0.02)
    with pytest.RaisesGroup(DemoFailed):
        await run_demo(tmp_path, lambda _jobs: None, lambda _share: None)


async def test_a_pipeline_that_dies_ends_the_demo(small: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before it is ready, or while jobs run: at once, with its error."""

    async def dies(_settings: Settings, *, on_ready: Callable[[Ready], None], stop: asyncio.Event) -> None:
        del on_ready, stop
        raise FatalError("no_broker", "the broker is gone")

    small.setattr(running, "run_dev", dies)
    with pytest.RaisesGroup(FatalError):
        await run_demo(tmp_path, lambda _jobs: None, lambda _share: None)

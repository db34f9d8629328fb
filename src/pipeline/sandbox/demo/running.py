"""Run the demo: sandbox and pipeline in one process, three jobs, ten thousand events, and the verification."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pipeline.app import Ready, run_dev
from pipeline.observability import Redaction, configure_logging
from pipeline.sandbox.demo.checking import check_job, counts
from pipeline.sandbox.demo.events import EventsOutcome, WatchEvents, run_events
from pipeline.sandbox.demo.plan import PLAN, WEAVR, DemoJob
from pipeline.sandbox.jobs import Job, JobRequest
from pipeline.sandbox.server import Sandbox
from pipeline.sandbox.settings import SandboxSettings
from pipeline.sandbox.snippets import cards_options, parts_snippet, settings_snippet, weavr_snippet
from pipeline.sandbox.verify import read_audit_log
from pipeline.settings import Settings, load_settings

_START_SECONDS: Final = 30.0
_JOB_SECONDS: Final = 120.0
_AUDIT_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1

_GENERAL: Final = """\
# Written by the demo; the next run replaces this folder.
[store]
kind = "local"
path = "store"

[ingress]
port = 0
drain_seconds = 0

[management]
port = 0

"""


class DemoFailed(Exception):
    """The demo could not run to its end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one job.

    Attributes:
        ok: Number of cards that are ok.
        failed: Number of cards that failed.
        result_bytes: Size of the uploaded result; None if there is none.
        seconds: Time from the webhook to the accepted callback.
        callback: The body of the accepted callback; None if ECS accepted none.
        answer: The answer of ECS.
        findings: Differences from the expected result.
    """

    job: str
    integration: str
    job_guid: str
    cards: int
    ok: int
    failed: int
    result_bytes: int | None
    seconds: float | None
    callback: str | None
    answer: str
    findings: tuple[str, ...]


Watch = Callable[[Sequence[tuple[DemoJob, Job | None, float]]], None]
"""Shows the progress of each job. It takes the plan, the job once it exists, and the share that is done (0 to 1)."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The result of both parts.

    Attributes:
        jobs: The results of the jobs; empty if the first part did not end.
        events: The result of the events; None if the second part did not end.
        findings: Problems that belong to neither part.
    """

    jobs: tuple[Outcome, ...] = ()
    events: EventsOutcome | None = None
    findings: tuple[str, ...] = ()

    def all_findings(self) -> list[str]:
        """Return all differences from the expected result."""
        of_jobs = [finding for one in self.jobs for finding in one.findings]
        return [*self.findings, *of_jobs, *(self.events.findings if self.events else ())]


async def run_demo(folder: Path, watch: Watch, watch_events: WatchEvents) -> DemoResult:
    """Run all jobs, then all events, in an empty folder.

    Raises:
        DemoFailed: The pipeline did not start, or it ended early.
    """
    async with Sandbox(SandboxSettings(data_dir=folder / "sandbox", port=0)) as sandbox:
        settings, key_files = _settings(sandbox, folder)
        async with _pipeline(settings) as (url, bootstrap_servers):
            jobs = await _run_jobs(sandbox, url, watch)
            await _await_audit(folder / "store", jobs)
            events = await run_events(url, bootstrap_servers, key_files, watch_events)
        steps, findings = await asyncio.to_thread(read_audit_log, folder / "store")
        outcomes = [
            await asyncio.to_thread(_outcome, sandbox, plan, job, steps.get(str(job.guid), []))
            for plan, job in zip(PLAN, jobs, strict=True)
        ]
        return DemoResult(tuple(outcomes), events, tuple(map(str, findings)))


def _settings(sandbox: Sandbox, folder: Path) -> tuple[Settings, tuple[Path, Path]]:
    """Write the settings. Return them and the files of Weavr's keys."""
    text = f"{_GENERAL}{parts_snippet(folder / 'secrets')}\n"
    for plan in PLAN:
        options: dict[str, JsonValue] = {}
        if plan.processor == "http":
            options = cards_options(sandbox, plan.integration, folder=folder / "secrets")
        snippet = settings_snippet(
            sandbox, plan.integration, folder=folder / "secrets", processor=plan.processor, options=options
        )
        text += snippet.toml + "\n"
    weavr = weavr_snippet(WEAVR, folder=folder / "secrets")
    file = folder / "pipeline.toml"
    file.write_text(text + weavr.toml, encoding="utf-8")
    logging = {name: value for name, value in os.environ.items() if name.startswith("PIPELINE_LOGGING")}
    return load_settings(file, logging), (weavr.key_file, weavr.next_key_file)


@asynccontextmanager
async def _pipeline(settings: Settings) -> AsyncIterator[tuple[str, str]]:
    """Run the whole pipeline. Once every stage has started, yield the ingress's URL and the broker's address."""
    configure_logging(settings.logging, Redaction(settings.secrets()))
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run_dev(settings, on_ready=ready.set_result, stop=stop))
        try:
            await asyncio.wait([ready], timeout=_START_SECONDS)
            if not ready.done() or (url := ready.result().url) is None:
                raise DemoFailed(f"the pipeline was not ready within {_START_SECONDS:.0f} seconds")
            yield url, ready.result().bootstrap_servers or ""
        finally:
            stop.set()


async def _run_jobs(sandbox: Sandbox, url: str, watch: Watch) -> list[Job]:
    jobs: dict[str, Job] = {}

    async def run(plan: DemoJob) -> None:
        request = JobRequest(
            cards=plan.cards, content=plan.content, webhook_url=f"{url}/webhooks/ecs/{plan.integration}", announce=False
        )
        job = jobs[plan.integration] = await sandbox.ecs.create(request)
        await sandbox.ecs.announce(job.guid)
        await sandbox.ecs.wait_callback(job.guid, _JOB_SECONDS)

    def show() -> None:
        known = ((plan, jobs.get(plan.integration)) for plan in PLAN)
        watch([(plan, job, _done(sandbox, plan, job)) for plan, job in known])

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(run(plan)) for plan in PLAN]
        while not all(task.done() for task in running):
            show()
            await asyncio.wait(running, timeout=_POLL_SECONDS)
    show()
    return [jobs[plan.integration] for plan in PLAN]


def _done(sandbox: Sandbox, plan: DemoJob, job: Job | None) -> float:
    """Return the share of a job that is done, as seen from outside."""
    if job is None:
        return 0.0
    if job.success is not None:
        return 1.0
    stored, traffic = sandbox.store.disk.get(job.input_key), sandbox.store.traffic
    size = max(1, stored.size if stored else 1)
    read, written = traffic.sent[job.input_key] / size, traffic.received[job.result_key] / size
    if plan.processor == "http":
        counted = sandbox.card_api.counts
        read = (counted.loaded + counted.declined) / max(1, job.record_count)
    return min(0.99, 0.8 * min(read, 1.0) + 0.2 * min(written, 1.0))


async def _await_audit(store: Path, jobs: Sequence[Job]) -> None:
    """Wait until the audit log has caught up, but only some seconds: a missing step becomes a finding."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _AUDIT_SECONDS
    while loop.time() < end:
        steps, _ = await asyncio.to_thread(read_audit_log, store)
        if all(set(plan.steps) <= set(steps.get(str(job.guid), ())) for plan, job in zip(PLAN, jobs, strict=True)):
            return
        await asyncio.sleep(_POLL_SECONDS)


def _outcome(sandbox: Sandbox, plan: DemoJob, job: Job, steps: Sequence[str]) -> Outcome:
    ok, failed = counts(plan, job)
    stored = sandbox.store.disk.get(job.result_key)
    accepted = [record for record in sandbox.ecs.desk.of_job(job.guid) if record.reason == "accepted"]
    sent = job.announcements[0].attempts[0].at if job.announcements else job.created_at
    return Outcome(
        job=plan.title,
        integration=plan.integration,
        job_guid=str(job.guid),
        cards=ok + failed,
        ok=ok,
        failed=failed,
        result_bytes=stored.size if stored else None,
        seconds=(accepted[0].at - sent).total_seconds() if accepted else None,
        callback=accepted[0].body.decode() if accepted else None,
        answer=f"{accepted[0].answered} RESULT_RECEIVED" if accepted else "no callback came",
        findings=tuple(check_job(sandbox, plan, job, expected=(ok, failed), steps=steps)),
    )

"""Jobs that cannot be done now wait, hold up nobody, and go on by themselves or by one command: real processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID

from support.brokers import Broker
from support.flow import INTEGRATION, STAGES, Flow, Tables, running_flow
from support.flow_checks import assert_audit_intact
from support.members import until
from support.neighbours import OTHER
from support.prefork import Prefork

from pipeline.sandbox import CardFile, Job, JobRequest, Sandbox, SandboxSettings, settings_snippet
from pipeline.sandbox.faults import Fault

CARDS = CardFile(records=3)
SOON: Tables = {"parking": {"retry": {"first_seconds": 1.0, "max_seconds": 4.0}}}


async def shown(flow: Flow, job: UUID) -> dict[str, Any]:
    """Return what ``job show`` says of a job, named by its GUID alone."""
    code, said, problem = await flow.command("job", "show", str(job), "--json")
    assert code == 0, problem
    found: dict[str, Any] = json.loads(said)
    return found


async def test_a_new_integration_rolled_out_to_the_ingress_first(
    apache_kafka: Broker, tmp_path: Path, prefork: Prefork
) -> None:
    """The workers do not know it yet: its jobs wait, the others go on, and after the rollout all are done."""
    async with (
        Sandbox(SandboxSettings(data_dir=tmp_path / "new", port=0)) as new,
        running_flow(apache_kafka, tmp_path, start=(), launch=prefork, tables=SOON) as flow,
    ):
        before, after = flow.config, tmp_path / "rolled-out.toml"
        after.write_text(before.read_text() + settings_snippet(new, OTHER, folder=tmp_path / "new-secrets").toml)
        flow.config = after
        await flow.start("ingress")
        flow.config = before
        await asyncio.gather(*(flow.start(name) for name in STAGES), flow.start("process", key="second"))

        url = f"{flow.webhook_url.rpartition('/')[0]}/{OTHER}"
        early = [await new.ecs.create(JobRequest(webhook_url=url, cards=CARDS)) for _ in range(5)]
        known = [await flow.send(cards=CARDS) for _ in range(10)]
        for job in known:
            await flow.notified(job, 20.0)
        folders = [flow.store / "jobs" / OTHER / str(job.guid) / "waiting" for job in early]
        await until(lambda: all(folder.is_dir() for folder in folders))
        waiting = await shown(flow, early[0].guid)
        assert (waiting["state"], waiting["waiting"]["code"]) == ("waiting", "integration_unknown")
        assert not any(job.called_back.is_set() for job in early)

        flow.config = after
        for key, name in (("process", "process"), ("second", "process"), *((one, one) for one in STAGES[1:])):
            await flow.stop(key)
            await flow.start(name, key=key)
        for job in early:
            assert await new.ecs.wait_callback(job.guid, 60.0)
            assert job.success
        assert (await shown(flow, early[0].guid))["state"] == "confirmed"
        await assert_audit_intact(flow)


MANY = 1000


async def test_one_command_resumes_a_thousand_jobs(apache_kafka: Broker, tmp_path: Path, prefork: Prefork) -> None:
    """The storage asks for half an hour; one command tries all jobs now, and each is done once."""
    async with running_flow(apache_kafka, tmp_path, launch=prefork) as flow:
        await flow.start("process", key="second")
        late = Fault(target="input", kind="status", status=404, retry_after="1800", times=0)
        flow.sandbox.faults.add(late)
        gate = asyncio.Semaphore(16)

        async def announce() -> Job:
            async with gate:
                return await flow.send(cards=CardFile(records=1))

        jobs = await asyncio.gather(*(announce() for _ in range(MANY)))
        await until(lambda: parked(flow) == MANY, 240.0)
        flow.sandbox.faults.clear()
        order = ("job", "retry", "--all-waiting", "--integration", INTEGRATION, "--reason", "the files are there")
        assert await resumed(flow, *order, "--dry-run") == MANY
        assert parked(flow) == MANY
        assert await resumed(flow, *order, "--yes") == MANY
        for job in jobs:
            await flow.notified(job, 300.0)
            assert job.success
        await flow.caught_up()
        assert parked(flow) == 0
        assert {len(flow.callbacks(job)) for job in jobs} == {1}
        await assert_audit_intact(flow)


def parked(flow: Flow) -> int:
    """Return how many jobs wait."""
    return sum(path.is_file() for path in (flow.store / "due").rglob("*"))


async def resumed(flow: Flow, *arguments: str) -> int:
    """Run a command; return how many waits it ends."""
    code, said, problem = await flow.command(*arguments, "--json")
    assert code == 0, problem
    count: int = json.loads(said)["resumed"]
    return count

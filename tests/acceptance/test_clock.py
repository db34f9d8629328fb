"""A process whose clock is ten minutes ahead: it says so, and ends no job because of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from support.brokers import Broker
from support.flow import Flow, running_flow
from support.flow_checks import assert_one_outcome, notified_body
from support.members import until
from support.shifted_clock import launch_ahead

from pipeline.sandbox import CardFile

pytestmark = pytest.mark.asyncio(loop_scope="module")

AHEAD = 600.0
"""Seconds."""
LEFT = 270.0
"""Seconds until the URLs expire: over by the wrong clock, plenty by the right one."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flow(apache_kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Flow]:
    folder = tmp_path_factory.mktemp("flow")
    tables = {"watch": {"interval_seconds": 0.5}}
    async with running_flow(apache_kafka, folder, start=("ingress", "upload", "audit"), tables=tables) as running:
        yield running
        await running.stop()


def lines(flow: Flow, name: str, event: str) -> list[dict[str, Any]]:
    """Return the log lines of one event that a process has written."""
    found = [json.loads(line) for line in flow.processes[name].log.splitlines() if f'"{event}"' in line]
    return [line for line in found if line["event"] == event]


async def clock_of(flow: Flow, name: str) -> tuple[int, dict[str, Any]]:
    """Return the status of a process' readiness, and what it says of its clock."""
    url = (await flow.processes[name].ready())["management_url"]
    async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz/ready") as response:
        return response.status, (await response.json())["checks"]["clock"]


def _wrong_clocks(flow: Flow) -> int:
    return sum(line["code"] == "clock_wrong" for line in lines(flow, "process", "work_retried"))


async def test_a_confirm_process_whose_clock_is_ahead_fails_no_job(flow: Flow) -> None:
    """By the watch's wrong clock, the deadline of an unprocessed job is over. The job later completes as usual."""
    await flow.start("confirm", launch=launch_ahead(AHEAD))
    job = await flow.send(cards=CardFile(records=20), expires_in_seconds=LEFT)
    await until(lambda: len(lines(flow, "confirm", "watch_job_postponed")) >= 3, 60)
    assert {line["code"] for line in lines(flow, "confirm", "watch_job_postponed")} == {"clock_wrong"}
    assert "outcome.json" not in flow.stored(job)
    status, clock = await clock_of(flow, "confirm")
    assert (status, clock["ok"]) == (HTTPStatus.SERVICE_UNAVAILABLE, False)
    assert "600 s ahead of kafka" in clock["message"]
    (alarm,) = lines(flow, "confirm", "clock_compared")
    assert alarm["level"] == "error"

    await flow.start("process")
    await flow.notified(job)
    await assert_one_outcome(flow, job, "completed")
    assert notified_body(flow, job)["success"] is True
    await flow.stop("confirm", "process")


async def test_a_process_stage_whose_clock_is_ahead_fails_no_job(flow: Flow) -> None:
    """It tries again and again; a process with a right clock takes over and does the job."""
    await flow.start("confirm")
    await flow.start("process", launch=launch_ahead(AHEAD))
    job = await flow.send(cards=CardFile(records=20), expires_in_seconds=LEFT)
    await until(lambda: _wrong_clocks(flow) >= 2, 60)
    assert not {"outcome.json", "waiting"} & {name.partition("/")[0] for name in flow.stored(job)}
    await flow.stop("process")
    await flow.start("process")
    await flow.notified(job)
    await assert_one_outcome(flow, job, "completed")

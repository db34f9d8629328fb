"""Callback tokens that are wrong, expired, replaced in mid-run, or fetched by OAuth: three integrations, one flow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import jwt
import pytest
import pytest_asyncio
from support.brokers import Broker
from support.flow import EVERYTHING, INTEGRATION, Flow, running_flow
from support.members import until
from support.prefork import Prefork

from pipeline.sandbox import CardFile, Fault, Job, JobRequest, settings_snippet

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXPIRED = "expired"
OAUTH = "oauth"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def flow(
    embedded_broker: Broker, tmp_path_factory: pytest.TempPathFactory, prefork: Prefork
) -> AsyncIterator[Flow]:
    """``acme`` begins with a token of a stranger, ``expired`` with one of yesterday; ``oauth`` has a client."""
    folder = tmp_path_factory.mktemp("flow")
    async with running_flow(embedded_broker, folder, start=(), launch=prefork) as running:
        blocks = [
            settings_snippet(running.sandbox, name, folder=folder / "secrets", oauth=name == OAUTH).toml
            for name in (EXPIRED, OAUTH)
        ]
        with running.config.open("a") as config:
            config.writelines(blocks)
        replace_token(running, INTEGRATION, wrong_token(running))
        replace_token(running, EXPIRED, running.sandbox.token(lifetime=timedelta(days=-1)))
        await asyncio.gather(*(running.start(name) for name in EVERYTHING))
        yield running
        await running.stop()


def wrong_token(flow: Flow) -> str:
    """Return a token like ECS's in everything but the key it is signed with."""
    claims = jwt.decode(flow.sandbox.token(), options={"verify_signature": False})
    return jwt.encode(claims, "the platform secret of somebody else, of 32 bytes", algorithm="HS256")


def replace_token(flow: Flow, integration: str, token: str) -> None:
    """Replace the token file in one step, as a secret rotation does."""
    fresh = flow.folder / "fresh-token"
    fresh.write_text(token + "\n")
    fresh.chmod(0o600)
    fresh.replace(flow.folder / "secrets" / f"{integration}-token")


async def send(flow: Flow, integration: str, **request: Any) -> Job:
    url = flow.webhook_url.removesuffix(INTEGRATION) + integration
    cards = CardFile(records=20)
    job = await flow.sandbox.ecs.create(JobRequest(webhook_url=url, cards=cards, **request))
    assert job.announcements[0].accepted
    return job


def folder_of(flow: Flow, integration: str, job: Job) -> Path:
    return flow.store / "jobs" / integration / str(job.guid)


def confirm_log(flow: Flow) -> list[str]:
    return flow.processes["confirm"].log.splitlines()


async def health(flow: Flow, name: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Return what a process says of its readiness: the status, its checks and its alarms."""
    url = (await flow.processes[name].ready())["management_url"]
    async with aiohttp.ClientSession() as session, session.get(f"{url}/healthz/ready") as response:
        body = await response.json()
        return response.status, body["checks"], body.get("alarms", {})


async def test_an_expired_token_is_an_alarm_and_takes_no_pod_away(flow: Flow) -> None:
    """CONFIRM stays ready for the other integrations, names the token, and shows when which token ends."""
    status, checks, alarms = await health(flow, "confirm")
    assert status == HTTPStatus.OK
    assert all(check["ok"] for check in checks.values())
    assert [name for name, alarm in alarms.items() if not alarm["ok"]] == [f"token-{EXPIRED}"]
    said = alarms[f"token-{EXPIRED}"]["message"]
    assert "expired at" in said
    assert "ask eCard Systems for a new one" in said
    assert "expires at" in alarms[f"token-{OAUTH}"]["message"]

    status, _, alarms = await health(flow, "ingress")
    assert status == HTTPStatus.OK
    assert list(alarms) == ["clock"]

    url = (await flow.processes["confirm"].ready())["management_url"]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/healthz/live") as response:
            assert response.status == HTTPStatus.OK
        async with session.get(f"{url}/metrics") as response:
            lines = (await response.text()).splitlines()
    left = {line.split('"')[1]: float(line.split()[-1]) for line in lines if "token_seconds_left{" in line}
    assert left[EXPIRED] < 0 < left[OAUTH]
    usable = {line.split('"')[1]: float(line.split()[-1]) for line in lines if "token_usable{" in line}
    assert (usable[EXPIRED], usable[OAUTH]) == (0, 1)


async def test_by_oauth(flow: Flow) -> None:
    """The token comes from ECS's endpoint, in its JSON:API form."""
    job = await send(flow, OAUTH)
    await flow.notified(job)
    await until((folder_of(flow, OAUTH, job) / "confirmed.json").exists)
    assert job.success


@pytest.mark.parametrize("integration", [INTEGRATION, EXPIRED])
async def test_a_token_that_is_not_accepted(flow: Flow, integration: str) -> None:
    """The callback waits with an alarm, result and parts are kept; after the rotation it goes on by itself.

    A token that is known to be expired is not even sent.
    """
    job = await send(flow, integration)
    folder = folder_of(flow, integration, job)
    event = "callback_held" if integration == EXPIRED else "callback_token_rejected"
    await until(lambda: any(str(job.guid) in line and f'"{event}"' in line for line in confirm_log(flow)), 60)
    assert flow.result(job) is not None
    assert any((folder / "parts").rglob("00000000.json"))
    tries = len(flow.callbacks(job))
    assert (tries > 0) == (integration != EXPIRED)

    replace_token(flow, integration, flow.sandbox.token())
    await flow.notified(job)
    await until(lambda: not (folder / "parts").exists())
    assert not (folder / "refused.json").exists()
    *refused, last = flow.callbacks(job)
    assert ({one.decided for one in refused}, last.decided) == ({401} if refused else set(), 200)
    assert len({(one.body, one.request_id) for one in flow.callbacks(job)}) == 1


async def test_rotated_in_mid_run(flow: Flow) -> None:
    """A token that dies while it is being used: the new one is read from the file and sent at once, in the same try."""
    replace_token(flow, INTEGRATION, flow.sandbox.token())
    guid = UUID(int=401)
    flow.sandbox.faults.add(Fault(target="callback", kind="delay", job=guid, seconds=2))
    flow.sandbox.faults.add(Fault(target="callback", kind="status", status=401, job=guid))
    job = await send(flow, INTEGRATION, job_guid=guid)
    # the request with the old token is under way: now it is replaced
    await until(lambda: all(one.get("job") != str(guid) for one in flow.sandbox.faults.waiting()), 60)
    replace_token(flow, INTEGRATION, flow.sandbox.token(lifetime=timedelta(days=30)))
    await flow.notified(job)
    confirmed = folder_of(flow, INTEGRATION, job) / "confirmed.json"
    await until(confirmed.exists)
    assert json.loads(confirmed.read_text())["tries"] == 1
    assert [one.answered for one in flow.callbacks(job)] == [401, 200]


async def test_the_alarm_ends_by_itself(flow: Flow) -> None:
    """The replaced token is found within a minute, without a restart."""
    replace_token(flow, EXPIRED, flow.sandbox.token())
    async with asyncio.timeout(90):
        while not (await health(flow, "confirm"))[2][f"token-{EXPIRED}"]["ok"]:  # noqa: ASYNC110 - as seen from outside
            await asyncio.sleep(0.5)

"""``pipeline ingress --processes 2`` as an operator runs it: connections are spread, and all ends as one."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import signal
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
import pytest
from support.brokers import Broker
from support.flow_process import FlowProcess
from support.members import until

SETTINGS: Final = """\
[kafka]
bootstrap_servers = "{broker}"

[store]
kind = "local"
path = "store"

[ingress]
port = 0
drain_seconds = 0

[management]
port = 0

[webhooks.code]
preset = "github"
secrets = [{{ file = "secret" }}]
"""
BODY: Final = b'{"action":"opened"}'
HEADERS: Final = {
    "Content-Type": "application/json",
    "X-GitHub-Event": "issues",
    "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "X-Hub-Signature-256": "sha256=" + hmac.new(b"the-secret-of-code", BODY, hashlib.sha256).hexdigest(),
}
HELD: Final = 24


@pytest.fixture
def config(tmp_path: Path, embedded_broker: Broker) -> Path:
    """The settings file of an ingress with one source."""
    (tmp_path / "secret").write_text("the-secret-of-code")
    (tmp_path / "secret").chmod(0o600)
    path = tmp_path / "pipeline.toml"
    path.write_text(SETTINGS.format(broker=embedded_broker.bootstrap_servers))
    return path


class Senders:
    """Senders with a connection each, which they keep."""

    def __init__(self, url: str, count: int) -> None:
        self._url = f"{url}/webhooks/sources/code"
        self._sessions = [aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) for _ in range(count)]

    async def send(self) -> list[int | None]:
        """Send one webhook each; return the statuses, None where the connection broke."""
        return [await self._one(session) for session in self._sessions]

    async def _one(self, session: aiohttp.ClientSession) -> int | None:
        try:
            async with session.post(self._url, data=BODY, headers=HEADERS) as response:
                return response.status
        except aiohttp.ClientConnectionError:
            return None

    async def close(self) -> None:
        for session in self._sessions:
            await session.close()


def held_by(pid: int) -> int:
    """Return how many connections of senders a process has."""
    return sum(one.status == psutil.CONN_ESTABLISHED and one.raddr[0] == "127.0.0.1" for one in _inet(pid))


def _inet(pid: int) -> list[Any]:
    process = psutil.Process(pid)
    ports = {one.laddr[1] for one in process.net_connections("tcp4") if one.status == psutil.CONN_LISTEN}
    return [one for one in process.net_connections("tcp4") if one.laddr[1] in ports]


async def test_two_processes_are_one_ingress(tmp_path: Path, config: Path) -> None:
    """Connections are spread; a killed process costs its own and is replaced; all end when the supervisor is killed."""
    ingress = FlowProcess("ingress", ["--config", str(config), "ingress", "--processes", "2"], tmp_path / "ingress")
    try:
        said = await ingress.ready(120)
        pids = {child.pid for child in psutil.Process(ingress.pid).children()}
        assert len(pids) == 2
        senders = Senders(said["url"], HELD)
        try:
            assert await senders.send() == [200] * HELD
            shares = {pid: held_by(pid) for pid in pids}
            assert sum(shares.values()) == HELD
            assert min(shares.values()) > 0
            victim, other = sorted(pids)
            os.kill(victim, signal.SIGKILL)
            await until(lambda: not psutil.pid_exists(victim), 5)
            statuses = await senders.send()
            assert {200} <= set(statuses) <= {200, None}
            assert held_by(other) >= shares[other]
            async with aiohttp.ClientSession() as client:
                await _until_all_ready(client, said["management_url"])
                async with client.get(f"{said['management_url']}/metrics") as answer:
                    assert "pipeline_ingress_process_ends_total 1.0" in await answer.text()
            now = {child.pid for child in psutil.Process(ingress.pid).children()}
            assert len(now) == 2
            assert now - pids
            assert ingress.output.count("\n") == 1
            assert '"process": 2' in ingress.log
        finally:
            await senders.close()
        ingress.kill()
        await until(lambda: not any(psutil.pid_exists(pid) for pid in now), 30)
        assert "process_crashed" not in ingress.log
    finally:
        ingress.kill()


async def _until_all_ready(client: aiohttp.ClientSession, url: str) -> None:
    async def ready() -> bool:
        async with client.get(f"{url}/healthz/ready") as answer:
            body = await answer.json()
            return answer.status == 200 and all(one["ok"] for one in body["alarms"].values())

    for _ in range(1200):
        if await ready():
            return
        await asyncio.sleep(0.05)
    pytest.fail("the killed process was not replaced")


async def test_a_stop_ends_all(tmp_path: Path, config: Path) -> None:
    """In a terminal, every process of the group gets the signal; this must not count as a second signal."""
    ingress = FlowProcess("ingress", ["--config", str(config), "ingress", "--processes", "2"], tmp_path / "ingress")
    try:
        await ingress.ready(120)
        pids = [child.pid for child in psutil.Process(ingress.pid).children()]
        for pid in (*pids, ingress.pid):
            os.kill(pid, signal.SIGINT)
        assert await ingress.ended() == 0
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert ingress.log.count("ingress_stopped") == 2
    finally:
        ingress.kill()

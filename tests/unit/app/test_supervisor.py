"""The supervisor of several ingress processes, with small processes that talk to it as those of the ingress do."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
import pytest
from structlog.testing import capture_logs
from support.members import until

from pipeline.app import Ready, Supervision, Supervisor
from pipeline.app.supervisor import Times
from pipeline.errors import FatalError
from pipeline.retry import RetryPolicy
from pipeline.settings import Settings

PROCESS: Final = """
import json, os, signal, socket, sys, threading, time
number, channel, port, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
orders = socket.socket(fileno=channel)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

def mode():
    path = f"{folder}/{number}"
    return open(path).read() if os.path.exists(path) else ""

def say(message):
    orders.sendall(json.dumps(message).encode() + b"\\n")

def report():
    while True:
        if mode() == "silent":
            time.sleep(60)
        ok = mode() != "unready"
        check = {"ok": ok, "message": "connected" if ok else "refused"}
        say({"checks": {"ingress": {"ok": True, "message": "serving"}, "kafka": check}, "alarms": {}})
        time.sleep(0.02)

def serve():
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=[connection], daemon=True).start()

def answer(connection):
    while connection.recv(1):
        connection.sendall(str(number).encode())

if mode().startswith("exit"):
    sys.exit(int(mode().removeprefix("exit")))
listener.bind(("127.0.0.1", port))
listener.listen(64)
for work in (report, serve):
    threading.Thread(target=work, daemon=True).start()
for line in orders.makefile():
    if line == "metrics\\n":
        samples = [["requests_total", {"by": "all"}, 5.0], ["requests_created", {"by": "all"}, float(number)]]
        say({"metrics": [["requests", "Requests", "counter", samples]]})
    if line == "stop\\n" and mode() != "stubborn":
        os._exit(0)
os._exit(1)
"""

TIMES: Final = Times(restart=RetryPolicy(0.05, 0.2), healthy=60.0, silence=0.5, start=10.0, answer=2.0, kill=0.3)


@dataclass
class Group:
    """A supervisor that runs in this process.

    Attributes:
        modes: Folder in which a file of the number of a process says how it behaves.
    """

    supervisor: Supervisor
    modes: Path
    client: aiohttp.ClientSession
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Queue[Ready] = field(default_factory=asyncio.Queue)
    said: Ready | None = None

    @property
    def port(self) -> int:
        assert self.said is not None
        assert self.said.url is not None
        return int(self.said.url.rpartition(":")[2])

    async def health(self) -> tuple[int, dict[str, Any]]:
        """Return status and answer of the readiness probe."""
        assert self.said is not None
        async with self.client.get(f"{self.said.management_url}/healthz/ready") as response:
            return response.status, await response.json()

    async def until_health(self, holds: Callable[[int, dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds(*await self.health()):  # noqa: ASYNC110 - it is asked over HTTP
                await asyncio.sleep(0.02)

    async def metrics(self) -> str:
        assert self.said is not None
        async with self.client.get(f"{self.said.management_url}/metrics") as response:
            return await response.text()

    async def pid(self, number: int) -> int:
        """Return the process id that the alarm of a process names."""
        message = (await self.health())[1]["alarms"][f"process-{number}"]["message"]
        return int(message.removeprefix("pid ").partition(":")[0])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "127.0.0.1:1"},
            "store": {"kind": "local", "path": tmp_path / "store"},
            "ingress": {"port": 0, "drain_seconds": 0, "read_timeout_seconds": 0.1, "deadline_seconds": 0.1},
            "management": {"port": 0},
        }
    )


def refuse(_: Ready) -> None:
    pytest.fail("no process can start")


def supervisor(settings: Settings, folder: Path, count: int = 2) -> Supervisor:
    def command(given: Supervision) -> list[str]:
        numbers = map(str, (given.number, given.channel, given.port))
        if (folder / f"{given.number}-gone").exists():
            return [str(folder / "no-such-program"), *numbers]
        return [sys.executable, "-S", "-c", PROCESS, *numbers, str(folder)]

    return Supervisor(settings, count, command, TIMES)


@asynccontextmanager
async def running(settings: Settings, folder: Path, count: int = 2) -> AsyncIterator[Group]:
    """Run a supervisor until all its processes are ready, and stop it at the end."""
    async with aiohttp.ClientSession() as client:
        group = Group(supervisor(settings, folder, count), folder, client)
        task = asyncio.create_task(group.supervisor.run(group.ready.put_nowait, group.stop))
        try:
            async with asyncio.timeout(20):
                group.said = await group.ready.get()
            yield group
        finally:
            group.stop.set()
            assert await task == 0


class Connection:
    """A connection of a sender."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self) -> int | None:
        """Return the number of the process that answers, or None if the connection is broken."""
        try:
            self._writer.write(b"?")
            return int(await self._reader.readexactly(1))
        except (OSError, asyncio.IncompleteReadError):
            return None

    def close(self) -> None:
        self._writer.close()


async def connections(group: Group, count: int) -> list[Connection]:
    return [Connection(*await asyncio.open_connection("127.0.0.1", group.port)) for _ in range(count)]


async def test_a_killed_process_costs_its_own_connections_and_is_replaced(settings: Settings, tmp_path: Path) -> None:
    """Meanwhile the whole is ready: the others take all new connections."""
    async with running(settings, tmp_path) as group:
        held = await connections(group, 40)
        numbers = [await one.ask() for one in held]
        assert set(numbers) == {1, 2}
        victim = await group.pid(1)
        with capture_logs() as logs:
            os.kill(victim, signal.SIGKILL)
            await group.until_health(lambda _, body: not body["alarms"]["process-1"]["ok"])
            assert [await one.ask() for one in held] == [None if number == 1 else 2 for number in numbers]
            await group.until_health(lambda _, body: body["alarms"]["process-1"]["ok"])
        assert await group.pid(1) != victim
        (ended,) = [line for line in logs if line["event"] == "ingress_process_ended"]
        assert (ended["process"], ended["pid"], ended["exit_code"]) == (1, victim, -signal.SIGKILL)
        fresh = await connections(group, 40)
        assert {await one.ask() for one in fresh} == {1, 2}
        for one in (*held, *fresh):
            one.close()
        assert group.ready.empty()


async def test_it_is_ready_while_a_process_serves_and_none_takes_connections_in_vain(
    settings: Settings, tmp_path: Path
) -> None:
    async with running(settings, tmp_path) as group:
        assert (await group.health())[0] == 200
        (tmp_path / "2").write_text("unready")
        await group.until_health(lambda status, _: status == 503)
        body = (await group.health())[1]
        assert body["checks"]["ingress"]["message"] == (
            "1 of 2 processes are ready; not ready although they accept connections: 2"
        )
        assert body["alarms"]["process-2"]["message"].endswith(": kafka: refused")
        os.kill(await group.pid(2), signal.SIGKILL)
        (tmp_path / "2").unlink()
        await group.until_health(lambda status, body: status == 200 and body["alarms"]["process-2"]["ok"])


async def test_the_whole_ends_once_no_process_is_left_that_can_start(settings: Settings, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as client, asyncio.timeout(20):
        group = Group(supervisor(settings, tmp_path, 1), tmp_path, client)
        task = asyncio.create_task(group.supervisor.run(group.ready.put_nowait, group.stop))
        group.said = await group.ready.get()
        (tmp_path / "1").write_text("exit2")
        os.kill(await group.pid(1), signal.SIGKILL)
        assert await task == 2


@pytest.mark.parametrize("code", [2, 4])
async def test_a_process_that_cannot_start_ends_the_whole_with_its_code(
    settings: Settings, tmp_path: Path, code: int
) -> None:
    """Wrong settings would be as wrong the next time."""
    for number in ("1", "2"):
        (tmp_path / number).write_text(f"exit{code}")
    async with asyncio.timeout(20):
        assert await supervisor(settings, tmp_path).run(refuse, asyncio.Event()) == code


async def test_one_that_cannot_start_again_is_tried_with_pauses_while_another_serves(
    settings: Settings, tmp_path: Path
) -> None:
    async with running(settings, tmp_path) as group:
        (tmp_path / "2").write_text("exit2")
        with capture_logs() as logs:
            os.kill(await group.pid(2), signal.SIGKILL)
            await until(lambda: sum(line["event"] == "ingress_process_ended" for line in logs) >= 4, 20)
        ends = [line for line in logs if line["event"] == "ingress_process_ended"]
        assert [line["quick_ends"] for line in ends[:4]] == [1, 2, 3, 4]
        assert [line["restart_in"] > 0 for line in ends[:4]] == [False, True, True, True]
        status, body = await group.health()
        assert (status, body["alarms"]["process-2"]["ok"]) == (200, False)
        (tmp_path / "2").unlink()
        await group.until_health(lambda _, body: body["alarms"]["process-2"]["ok"])


async def test_one_that_the_system_does_not_start_is_tried_with_pauses_while_another_serves(
    settings: Settings, tmp_path: Path
) -> None:
    """As when memory is short, which is often why a process ended."""
    async with running(settings, tmp_path) as group:
        (tmp_path / "2-gone").touch()
        with capture_logs() as logs:
            os.kill(await group.pid(2), signal.SIGKILL)
            await until(lambda: sum(line["event"] == "ingress_process_not_started" for line in logs) >= 2, 20)
            files = psutil.Process().num_fds()
            await until(lambda: sum(line["event"] == "ingress_process_not_started" for line in logs) >= 5, 20)
            assert psutil.Process().num_fds() <= files
        failures = [line for line in logs if line["event"] == "ingress_process_not_started"]
        assert [line["quick_ends"] for line in failures[:4]] == [2, 3, 4, 5]
        assert all(line["restart_in"] > 0 for line in failures)
        assert failures[0]["why"] == "No such file or directory"
        status, body = await group.health()
        assert (status, body["alarms"]["process-2"]["ok"]) == (200, False)
        (tmp_path / "2-gone").unlink()
        await group.until_health(lambda _, body: body["alarms"]["process-2"]["ok"])


async def test_the_whole_ends_if_the_system_starts_no_process(settings: Settings, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}-gone").touch()
    async with asyncio.timeout(20):
        with pytest.raises(FatalError, match="Cannot start a process: No such file or directory"):
            await supervisor(settings, tmp_path).run(refuse, asyncio.Event())


async def test_a_silent_process_is_killed_and_replaced(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as group:
        hangs = await group.pid(1)
        with capture_logs() as logs:
            (tmp_path / "1").write_text("silent")
            await until(lambda: any(line["event"] == "ingress_process_hangs" for line in logs), 20)
            (tmp_path / "1").unlink()
        await group.until_health(lambda _, body: not body["alarms"]["process-1"]["message"].startswith(f"pid {hangs}:"))
        await group.until_health(lambda _, body: body["alarms"]["process-1"]["ok"])
        assert await group.pid(1) != hangs


async def test_the_metrics_are_those_of_all_and_never_go_back(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as group:
        before = await group.metrics()
        assert 'requests_total{by="all"} 10.0' in before
        assert 'pipeline_ingress_processes{state="ready"} 2.0' in before
        assert "pipeline_ingress_process_ends_total 0.0" in before
        os.kill(await group.pid(1), signal.SIGKILL)
        await group.until_health(lambda _, body: not body["alarms"]["process-1"]["ok"])
        await group.until_health(lambda _, body: body["alarms"]["process-1"]["ok"])
        await asyncio.sleep(1.0)  # the text is made once a second
        after = await group.metrics()
        assert 'requests_total{by="all"} 15.0' in after
        assert "pipeline_ingress_process_ends_total 1.0" in after


async def test_a_stop_ends_all_and_kills_what_does_not_end(settings: Settings, tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with running(settings, tmp_path) as group:
            pids = [await group.pid(number) for number in (1, 2)]
            (tmp_path / "2").write_text("stubborn")
            group.stop.set()
            await until(lambda: not psutil.pid_exists(pids[0]), 10)
    assert [psutil.pid_exists(pid) for pid in pids] == [False, False]
    (killed,) = [line for line in logs if line["event"] == "ingress_processes_killed"]
    assert killed["processes"] == 1


async def test_an_address_that_another_program_has_is_refused(settings: Settings, tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    taken = settings.model_copy(update={"ingress": settings.ingress.model_copy(update={"port": port})})
    with pytest.raises(FatalError, match=f"Cannot listen on 127.0.0.1:{port}"):
        await supervisor(taken, tmp_path).run(refuse, asyncio.Event())
    server.close()
    await server.wait_closed()

"""A process from start to stop, without a cluster: nothing here waits for a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import structlog
from pydantic import SecretStr
from support.logging_state import logging_restored

from pipeline.app import PORTS, STAGES, Ports, Ready, open_jobs, run_ingress, run_stage, running
from pipeline.app.assembly import STAGE_MAKERS, ProcessContext
from pipeline.app.ingress import make_ingress
from pipeline.app.parts import Worker
from pipeline.errors import FatalError, TransientError
from pipeline.jobs.part_encryption import new_part_key
from pipeline.jobs.settings import PartSettings
from pipeline.kafka import KafkaPublisher, WorkerSettings
from pipeline.observability import CheckedClock, Metrics
from pipeline.observability.management import ManagementServer
from pipeline.settings import ConfigError, Settings
from pipeline.storage import ObjectStore, StoreSettings
from pipeline.storage.testing import MemoryStore

__all__ = ["logging_restored"]

pytestmark = pytest.mark.usefixtures("logging_restored")

GROUPS = {"process": 2, "upload": 1, "confirm": 2, "audit": 1}
"""Members of groups in each stage: PROCESS has the chunks of shared files beside itself, CONFIRM the deadline watch."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("webhook", "token"):
        (tmp_path / name).write_text(f"the-{name}-secret")
    (tmp_path / "part-key").write_text(new_part_key())
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "127.0.0.1:1", "request_timeout_seconds": 0.1},
            "store": {"kind": "local", "path": tmp_path / "store"},
            "ingress": {"port": 0, "drain_seconds": 0},
            "management": {"port": 0},
            "parts": {"keys": [{"id": "1", "file": tmp_path / "part-key"}]},
            "ecs": {
                "acme": {
                    "partner_guid": "4933e450-d3c4-406f-9b9b-3afb812a5b7c",
                    "webhook": {"scheme": "shared-secret", "secrets": [{"file": tmp_path / "webhook"}]},
                    "callback": {"token_file": tmp_path / "token"},
                }
            },
        }
    )


def refuse(_: Ready) -> None:
    pytest.fail("nothing is ready without a broker")


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[str]:
    """Where management servers listen: a process itself tells it only when it is ready."""
    bound: asyncio.Queue[str] = asyncio.Queue()

    class Announcing(ManagementServer):
        async def __aenter__(self) -> Self:
            await super().__aenter__()
            bound.put_nowait(self.url)
            return self

    monkeypatch.setattr(running, "ManagementServer", Announcing)
    return bound


NOBODY_THERE = "127.0.0.1:1 refuses the connection: no broker listens there."


async def checks_without_broker(
    run: Callable[[asyncio.Event], Coroutine[Any, Any, None]], addresses: asyncio.Queue[str], *names: str
) -> dict[str, dict[str, Any]]:
    """Run a process until these checks name the cause, and stop it; return its checks of readiness and its alarms."""
    stop = asyncio.Event()
    checks: dict[str, dict[str, Any]] = {}
    async with asyncio.timeout(30), asyncio.TaskGroup() as group, aiohttp.ClientSession() as client:
        group.create_task(run(stop))
        url = await addresses.get()
        while not all("127.0.0.1" in checks.get(name, {}).get("message", "") for name in names):
            async with client.get(f"{url}/healthz/ready") as answer:
                body = await answer.json()
                checks = body["checks"] | body.get("alarms", {})
                assert (answer.status, checks["start"]["ok"]) == (503, False)
            await asyncio.sleep(0.05)
        async with client.get(f"{url}/healthz/live") as answer:
            assert answer.status == 200
        stop.set()
    return checks


@asynccontextmanager
async def surroundings(settings: Settings) -> AsyncIterator[ProcessContext]:
    """What the parts of a process share, with a publisher that was never started and a store in memory."""
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        publisher = KafkaPublisher(settings.cluster, metrics=metrics)
        remembered: list[SecretStr] = []
        yield ProcessContext(
            settings,
            settings.cluster,
            settings.consumer.for_consumer(),
            publisher,
            MemoryStore(),
            metrics,
            remembered.append,
            stack,
            CheckedClock(PORTS.now, metrics.clock_offset_seconds),
        )


async def test_the_ingress_answers_probes_before_its_broker_is_there_and_can_be_stopped(
    settings: Settings, addresses: asyncio.Queue[str]
) -> None:
    checks = await checks_without_broker(
        lambda stop: run_ingress(settings, on_ready=refuse, stop=stop), addresses, "kafka"
    )
    assert checks["kafka"] == {"ok": False, "message": f"broker_unavailable: The producer: {NOBODY_THERE}"}


@pytest.mark.parametrize("name", ["upload", "confirm"])
async def test_a_stage_answers_probes_before_its_broker_is_there_and_can_be_stopped(
    settings: Settings, addresses: asyncio.Queue[str], name: str
) -> None:
    groups = ["confirm", "watch"] if name == "confirm" else [name]
    checks = await checks_without_broker(
        lambda stop: run_stage(name, settings, on_ready=refuse, stop=stop), addresses, "kafka", f"{name}-group"
    )
    assert not checks[f"{name}-group"]["ok"]
    for group in groups:
        assert f"Group card-pipeline.{group}: {NOBODY_THERE}" in checks[f"{name}-group"]["message"]
    assert ("token-acme" in checks) == (name == "confirm")


async def test_without_a_cluster_nothing_is_begun(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="kafka: is missing"):
        await run_ingress(settings.model_copy(update={"kafka": None}), on_ready=refuse, stop=asyncio.Event())


async def test_every_stage_is_made_of_its_members(settings: Settings) -> None:
    assert set(STAGES) == set(GROUPS)
    async with surroundings(settings) as around:
        for name in STAGES:
            part = await STAGE_MAKERS[name](around)
            assert isinstance(part, Worker)
            assert (part.name, len(part.runners)) == (name, GROUPS[name])
        ingress = make_ingress(around)
        assert set(ingress.checks) == {"ingress"}


async def test_commands_open_the_configured_store(settings: Settings, tmp_path: Path) -> None:
    async with open_jobs(settings) as jobs:
        assert await jobs.objects.create("jobs/x", b"1")
    assert [path.name for path in (tmp_path / "store" / "jobs").iterdir()] == ["x"]


class AwayStore(MemoryStore):
    """A store that does not answer the first times."""

    def __init__(self, away: int) -> None:
        super().__init__()
        self.away = away

    async def check(self) -> None:
        if self.away:
            self.away -= 1
            raise TransientError("store_unavailable", "no answer from 127.0.0.1")


class AwayPorts(Ports):
    """The store never answers."""

    def store(self, settings: StoreSettings) -> ObjectStore:
        del settings
        return AwayStore(10**9)


async def test_a_store_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_STORE_RETRY_SECONDS", 0.01)
    store = AwayStore(2)
    with structlog.testing.capture_logs() as logs:
        await asyncio.wait_for(running._await_store(store, asyncio.Event()), 5)
    assert store.away == 0
    assert [line["event"] for line in logs] == ["store_awaited"] * 2


async def test_a_process_that_waits_for_its_store_is_alive_and_not_ready(
    settings: Settings, addresses: asyncio.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarting it would not bring the store back, however long it is unavailable."""
    impatient = settings.consumer.for_consumer().model_copy(update={"liveness_timeout_seconds": 0.001})
    monkeypatch.setattr(WorkerSettings, "for_consumer", lambda _: impatient)
    checks = await checks_without_broker(
        lambda stop: run_stage("upload", settings, on_ready=refuse, stop=stop, ports=AwayPorts()), addresses, "store"
    )
    assert not checks["upload-group"]["ok"]
    assert checks["store"] == {"ok": False, "message": "store_unavailable: no answer from 127.0.0.1"}


async def test_a_stop_ends_the_wait_for_the_store() -> None:
    stop = asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(running._await_store(AwayStore(10**9), stop))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        stop.set()


@pytest.mark.parametrize("stage", ["process", "upload"])
async def test_a_stage_of_parts_does_not_start_without_their_key(stage: str, settings: Settings) -> None:
    """Nothing is stored in clear by mistake; the message names the file, or how to make a key."""
    (key,) = settings.parts.keys
    key.file.write_text("too short")
    with pytest.raises(FatalError, match=rf"secret_unreadable.*{key.file}.*32 random bytes in base64"):
        await run_stage(stage, settings, on_ready=refuse, stop=asyncio.Event())
    without = settings.model_copy(update={"parts": PartSettings()})
    with pytest.raises(FatalError, match=r"part_keys_missing.*openssl rand -base64 32"):
        await run_stage(stage, without, on_ready=refuse, stop=asyncio.Event())


@pytest.mark.parametrize("stage", STAGES)
async def test_a_stage_does_not_start_with_a_folder_that_other_hosts_may_not_have(
    stage: str, settings: Settings
) -> None:
    kafka = settings.cluster.model_copy(update={"bootstrap_servers": "kafka-0:9092"})
    with pytest.raises(FatalError, match=r"store_not_shared: .*store\.path: .*kafka-0:9092.*shared = true"):
        await run_stage(stage, settings.model_copy(update={"kafka": kafka}), on_ready=refuse, stop=asyncio.Event())

"""Servers: what is run, and the line that says it is ready."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.command_line import Run

from pipeline.app import PORTS, Ports, Ready
from pipeline.errors import FatalError
from pipeline.settings import Settings

OnReady = Callable[[Ready], None]


@pytest.fixture(autouse=True)
def garbage_collector() -> Iterator[None]:
    """Give the tests after it the collector of before."""
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


@pytest.mark.parametrize("name", ["dev", "ingress"])
def test_a_server_prints_one_line_and_ends_with_0_on_sigterm(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    del home

    async def server(settings: Settings, *, on_ready: OnReady, stop: asyncio.Event, ports: Ports) -> None:
        assert (set(settings.ecs), ports) == ({"acme"}, PORTS)
        on_ready(Ready(name, "http://127.0.0.1:1", "http://127.0.0.1:2"))
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 5)

    monkeypatch.setattr(f"pipeline.cli.serve.run_{name}", server)
    result = run(name)
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"ready": name, "url": "http://127.0.0.1:1", "management_url": "http://127.0.0.1:2"}
    ]


def test_a_ready_ingress_keeps_what_it_was_made_of_out_of_the_garbage_collection(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home
    frozen: list[int] = []

    async def server(settings: Settings, *, on_ready: OnReady, stop: asyncio.Event, ports: Ports) -> None:
        del settings, stop, ports
        frozen.append(gc.get_freeze_count())
        on_ready(Ready("ingress", "http://127.0.0.1:1", "http://127.0.0.1:2"))
        frozen.append(gc.get_freeze_count())

    monkeypatch.setattr("pipeline.cli.serve.run_ingress", server)
    run("ingress")
    assert frozen[1] > frozen[0]
    assert gc.isenabled()
    assert gc.get_threshold()[0] == 10_000


@pytest.mark.parametrize("name", ["process", "upload", "confirm", "audit"])
def test_a_stage_is_run_by_its_name_without_webhook_secrets(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (home / "webhook").unlink()
    asked: list[str] = []

    async def run_stage(
        stage: str, settings: Settings, *, on_ready: OnReady, stop: asyncio.Event, ports: Ports
    ) -> None:
        del settings, stop, ports
        asked.append(stage)
        on_ready(Ready(stage, None, "http://127.0.0.1:2"))

    monkeypatch.setattr("pipeline.cli.serve.run_stage", run_stage)
    result = run("work", name)
    assert (result.exit_code, asked) == (0, [name])
    assert json.loads(result.stdout) == {"ready": name, "url": None, "management_url": "http://127.0.0.1:2"}


def test_the_ingress_needs_its_webhook_secrets(home: Path, run: Run) -> None:
    (home / "webhook").unlink()
    result = run("ingress")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: config_invalid: ecs.acme.webhook.secrets.0.file: no file exists ")


def test_a_server_that_cannot_work_ends_with_its_error(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    del home

    async def server(settings: Settings, *, on_ready: OnReady, stop: asyncio.Event, ports: Ports) -> None:
        del settings, on_ready, stop, ports
        raise FatalError("ingress_address", "Cannot listen on 127.0.0.1:80 (ingress.host, ingress.port)")

    monkeypatch.setattr("pipeline.cli.serve.run_ingress", server)
    result = run("ingress")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == ("error: ingress_address: Cannot listen on 127.0.0.1:80 (ingress.host, ingress.port)\n")


def test_a_warning_about_settings_is_a_log_line(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "webhook").chmod(0o644)

    async def server(settings: Settings, *, on_ready: OnReady, stop: asyncio.Event, ports: Ports) -> None:
        """End at once."""

    monkeypatch.setattr("pipeline.cli.serve.run_ingress", server)
    line = json.loads(run("ingress").stderr)
    assert (line["event"], line["level"]) == ("settings_doubtful", "warning")
    assert logging.getLogger("pipeline").level == logging.INFO

"""`pipeline sandbox`."""

from __future__ import annotations

import _thread
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from support.command_line import Run

from pipeline.cli import sandbox as commands
from pipeline.sandbox import JobRequest
from pipeline.settings import load_settings

VIEW: dict[str, Any] = {
    "job_guid": "cffde776-1d2a-4614-8023-a5148e411462",
    "status": "RESULT_RECEIVED",
    "success": True,
    "record_count": 200,
    "callbacks": 1,
    "announcements": [{"accepted": True}],
}


def stop_when(ready: Callable[[], bool]) -> None:
    """Send this process a SIGTERM once it listens to it and something is true; give up after a while."""

    def wait() -> None:
        for _ in range(1000):
            if ready() and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.01)
        _thread.interrupt_main()

    threading.Thread(target=wait, daemon=True).start()


def test_serve_writes_settings_that_load(empty: Path, run: Run) -> None:
    stop_when((empty / "try" / "pipeline.toml").exists)
    result = run(
        "sandbox", "serve", "--port", "0", "--write-settings", "try", "--scheme", "hmac", "--integration", "me"
    )
    assert result.exit_code == 0, result.stderr
    ready = json.loads(result.stdout)
    assert ready == {
        "ready": "sandbox",
        "url": ready["url"],
        "control_url": f"{ready['url']}/control",
        "settings": "try/pipeline.toml",
    }
    settings = load_settings(empty / "try" / "pipeline.toml", {})
    assert settings.ecs["me"].webhook.scheme == "hmac"
    assert settings.logging.format == "console"  # somebody sits before it
    assert len(settings.ecs["me"].webhook_secrets()) == 1
    assert len(settings.weavr["me"].webhook_secrets()) == 2


def test_serve_does_not_overwrite_settings(empty: Path, run: Run) -> None:
    (empty / "try").mkdir()
    (empty / "try" / "pipeline.toml").write_text("mine")
    result = run("sandbox", "serve", "--port", "0", "--write-settings", "try", "--data-dir", "objects")
    assert result.exit_code == 2
    assert result.stderr == "error: settings_exist: try/pipeline.toml already exists, and is never overwritten\n"
    assert (empty / "try" / "pipeline.toml").read_text() == "mine"


def test_serve_says_that_the_port_is_taken(empty: Path, run: Run) -> None:
    del empty
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("sandbox", "serve", "--port", port, "--data-dir", "objects")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: sandbox_failed: cannot listen on 127.0.0.1:{port} or write its files (")


@pytest.mark.parametrize(
    ("changes", "waits", "code"),
    [
        ({}, True, 0),
        ({"success": None}, False, 0),
        ({"success": None}, True, 4),
        ({"success": False}, True, 1),
        ({"announcements": [{"accepted": False}], "success": None}, False, 1),
    ],
)
def test_send_job_ends_with_what_became_of_it(
    empty: Path, run: Run, monkeypatch: pytest.MonkeyPatch, *, changes: dict[str, Any], waits: bool, code: int
) -> None:
    del empty
    asked: list[tuple[str, JobRequest, float]] = []

    async def send_job(control_url: str, request: JobRequest, *, wait_seconds: float) -> dict[str, Any]:
        asked.append((control_url, request, wait_seconds))
        return VIEW | changes

    monkeypatch.setattr(commands, "send_job", send_job)
    options = ("--control-url", "http://127.0.0.1:9/control", "--records", "7", "--gzip", "--bad-share", "0.5")
    result = run("sandbox", "send-job", *options, *(("--wait", "3") if waits else ()), "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout) == VIEW | changes
    ((url, request, seconds),) = asked
    assert (url, request.cards.records, request.cards.gzip, seconds) == (
        "http://127.0.0.1:9/control",
        7,
        True,
        3 if waits else 0,
    )
    assert "job_guid      cffde776" in run("sandbox", "send-job").stdout


def test_send_job_without_a_sandbox_is_exit_4(empty: Path, run: Run) -> None:
    del empty
    result = run("sandbox", "send-job", "--control-url", "http://127.0.0.1:1/control")
    assert result.exit_code == 4
    assert result.stderr.startswith("error: sandbox_unreachable: ")


def test_the_broker_says_where_it_is_and_ends_with_its_parents_pipe() -> None:
    """A process of its own: the library writes to the real standard streams."""
    with subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli import main; main()", "sandbox", "broker", "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        ready = json.loads(process.stdout.readline())
        assert set(ready) == {"ready", "bootstrap_servers"}
        assert ready["ready"] == "broker"
        host, port = ready["bootstrap_servers"].split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        process.stdin.write("what is not the end is read over")
        process.stdin.close()
        assert process.wait(20) == 0


async def test_input_that_is_not_the_end_does_not_stop_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        stop = asyncio.Event()
        os.write(writing, b"x")
        watching = asyncio.create_task(asyncio.to_thread(commands._stop_at_eof, asyncio.get_running_loop(), stop))
        await asyncio.sleep(0.01)
        assert not stop.is_set()
        os.close(writing)
        await watching
        await asyncio.wait_for(stop.wait(), 5)


def test_the_broker_ends_at_once_where_its_input_is_nothing() -> None:
    """Neither a file nor /dev/null can be polled by the event loop."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "sandbox", "broker", "--until-eof"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_broker_stops_on_sigterm(empty: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broker:
        bootstrap_servers = "127.0.0.1:1"

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to stop."""

    monkeypatch.setattr(commands, "EmbeddedBroker", Broker)
    del empty
    stop_when(lambda: True)
    result = run("sandbox", "broker")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ready": "broker", "bootstrap_servers": "127.0.0.1:1"}

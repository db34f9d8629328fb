"""The tutorial's commands, in its order, as a reader types them; only the ports are other ones."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from support.paths import ROOT

PAGE: Final = (ROOT / "docs" / "tutorial" / "index.md").read_text("utf-8")
COMMANDS: Final = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line
]
FILES: Final = dict(re.findall(r"Write `([\w.]+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))
SHOWN: Final = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
OLD, NEW = 'name = "validate"\n', re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]


def free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Reader:
    """Types the commands in one folder.

    Attributes:
        folder: Where the reader works.
        port: Of the ingress, instead of 8080.
        servers: What runs in the other terminals.
        ready: What each server printed when it was ready, by its name.
    """

    folder: Path
    port: int
    servers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    ready: dict[str, dict[str, str]] = field(default_factory=dict)

    def argv(self, command: str) -> list[str]:
        """Return the words of a command, with this machine's Python and ports."""
        command = command.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        words = [word for word in shlex.split(command) if word != "PYTHONPATH=."]
        words = [self.ready["dev"]["bootstrap_servers"] if word == "BOOTSTRAP_SERVERS" else word for word in words]
        if words[1:3] == ["sandbox", "serve"]:
            words += ["--port", "0"]
        if words[1:3] == ["sandbox", "send-job"]:
            words += ["--control-url", self.ready["sandbox"]["control_url"]]
        return [str(Path(sys.executable).with_name(words[0])), *words[1:]]

    @property
    def env(self) -> dict[str, str]:
        own = {"PYTHONPATH": ".", "PIPELINE_INGRESS__PORT": str(self.port), "PIPELINE_MANAGEMENT__PORT": "0"}
        return os.environ | own

    def start(self, command: str) -> None:
        """Start a server in a terminal of its own; wait until it is ready."""
        with (self.folder / "servers.log").open("a") as log:
            server = subprocess.Popen(
                self.argv(command), cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=log
            )
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, (self.folder / "servers.log").read_text()
        said = json.loads(line)
        self.servers[said["ready"]] = server
        self.ready[said["ready"]] = said

    def stop(self, name: str) -> int:
        """Stop a server as Ctrl+C does; return its exit code."""
        server = self.servers.pop(name)
        server.send_signal(signal.SIGINT)
        with server:
            return server.wait(timeout=60)

    def run(self, command: str) -> str:
        """Run a command until it ends well; return what it printed."""
        done = subprocess.run(
            self.argv(command), cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    found = Reader(tmp_path, free_port())
    try:
        yield found
    finally:
        for name in list(found.servers):
            found.stop(name)


def test_the_tutorial_works_as_it_is_written(reader: Reader) -> None:
    sandbox, dev, job, send_events, subscribe, cards_run, own_job = COMMANDS
    for name, text in FILES.items():
        (reader.folder / name).write_text(text)
    reader.start(sandbox)
    reader.start(dev)
    assert SHOWN[0] in reader.run(job)
    reader.run(send_events)
    assert re.fullmatch(r"(card/\d+ (approved|declined)\n)+", reader.run(subscribe))
    assert re.fullmatch(r"card/\d+ approved\n", SHOWN[1])

    settings = reader.folder / "acme" / "pipeline.toml"
    assert settings.read_text().count(OLD) == 1
    settings.write_text(settings.read_text().replace(OLD, NEW))
    summary = json.loads(reader.run(cards_run))
    assert (summary["ok"], summary["failed"]) == (1, 1)
    assert "the card does not begin with 4" in (reader.folder / "result.csv").read_text()
    assert reader.stop("dev") == 0
    reader.start(dev)
    callback = json.loads(reader.run(own_job).rpartition("callback")[2])
    assert callback["success"]
    assert callback["records_failed"] > 0

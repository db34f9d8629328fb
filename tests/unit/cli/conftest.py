"""The command line in a folder of its own, with one integration."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.command_line import Run
from support.job_world import PART_KEY
from support.logging_state import logging_restored

from pipeline.app import PORTS, Ports
from pipeline.cli.root import cli

__all__ = ["logging_restored"]

SETTINGS = """\
[kafka]
bootstrap_servers = "127.0.0.1:1"
request_timeout_seconds = 0.1

[parts]
keys = [{ id = "test", file = "part-key" }]

[ecs.acme]
partner_guid = "4933e450-d3c4-406f-9b9b-3afb812a5b7c"

[ecs.acme.webhook]
scheme = "shared-secret"
secrets = [{ file = "webhook" }]

[ecs.acme.callback]
token_file = "token"

[ecs.acme.hosts]
input = ["files.example.com"]
result = ["files.example.com"]
callback = ["api.example.com"]
"""


@pytest.fixture(autouse=True)
def _logging(logging_restored: None) -> None:
    """Commands configure logging."""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no variable of ours."""
    for name in os.environ:
        if name.startswith("PIPELINE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def home(empty: Path) -> Path:
    """A working directory with settings that are right."""
    (empty / "pipeline.toml").write_text(SETTINGS)
    for name in ("webhook", "token"):
        (empty / name).write_text(f"the-{name}-secret\n")
        (empty / name).chmod(0o600)
    (empty / "part-key").write_text(base64.b64encode(PART_KEY.value).decode())
    (empty / "part-key").chmod(0o600)
    return empty


@pytest.fixture
def ports() -> Ports:
    """What commands reach the outside world through; a module may have its own."""
    return PORTS


@pytest.fixture
def run(ports: Ports) -> Run:
    """Run the CLI in this process."""

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, input=stdin, prog_name="pipeline", obj=ports)

    return invoke

"""``pip install card-pipeline``, as another team does it: the subscriber runs, and nothing of the server is there."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Timer
from typing import Final

import pytest
from support.brokers import Broker
from support.environments import copy_installed, create, install, pinned, site_packages, variables
from support.paths import ROOT

from pipeline.cli.start import SERVER_PACKAGES
from pipeline.contracts import OutgoingRecord
from pipeline.contracts.weavr import BY_TYPE
from pipeline.kafka import KafkaPublisher, KafkaSettings
from pipeline.sandbox.weavr.bodies import body_of
from pipeline.subscriber.testing import event_of

KIND: Final = BY_TYPE["weavr.managed_cards.authorisations"]


@pytest.fixture(scope="module")
def alone(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the pinned requirements of a subscriber, and the wheel: pip finds nothing missing."""
    folder = create(tmp_path_factory.mktemp("subscriber"))
    copy_installed(folder, pinned("subscriber.txt"))
    install(folder, built[1])
    return folder


def run(environment: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment, with no variable that leads back to the project."""
    program = str(environment / "bin" / command[0])
    return subprocess.run(
        [program, *command[1:]], cwd=cwd, env=variables(), capture_output=True, text=True, timeout=120, check=False
    )


def test_no_package_of_the_server_is_there(alone: Path, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print(*filter(find_spec, {SERVER_PACKAGES!r}))"
    assert run(alone, tmp_path, "python", "-c", code).stdout.split() == []


async def test_the_example_handles_an_event_and_stops_in_order(
    alone: Path, embedded_broker: Broker, tmp_path: Path
) -> None:
    body = body_of(KIND.path, Random(3), entity="445566")  # noqa: S311 - the same each time
    event = event_of(KIND.type, json.dumps(body).encode())
    kafka = KafkaSettings(bootstrap_servers=embedded_broker.bootstrap_servers)
    async with KafkaPublisher(kafka) as publisher:
        await publisher.publish(OutgoingRecord(event.topic, event.key, event.raw, event.headers))
    with example(alone, kafka, tmp_path) as process:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0
        assert process.stdout.read() == "", "stdout is the program's own"
    assert line.split()[:2] in (["card/445566", "approved"], ["card/445566", "declined:"])


@contextmanager
def example(environment: Path, kafka: KafkaSettings, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Run ``examples/subscriber.py`` by the environment's Python."""
    program = [environment / "bin" / "python", ROOT / "examples" / "subscriber.py"]
    options = ["--bootstrap", kafka.bootstrap_servers, "--group", "alone"]
    with subprocess.Popen([*program, *options], cwd=cwd, env=variables(), stdout=subprocess.PIPE, text=True) as process:
        timer = Timer(60, process.kill)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.kill()


def test_the_models_and_the_test_helpers_are_there(alone: Path, tmp_path: Path) -> None:
    code = "import pipeline.contracts.weavr, pipeline.subscriber.testing; print(pipeline.__file__)"
    assert run(alone, tmp_path, "python", "-c", code).stdout.startswith(str(site_packages(alone)))


@pytest.mark.parametrize("arguments", [("--help",), ("dev",), ()])
def test_the_command_says_in_one_line_what_to_install(alone: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(alone, tmp_path, "pipeline", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        'error: server_missing: The pipeline command needs the extra "server": pip install "card-pipeline[server]" ('
    )

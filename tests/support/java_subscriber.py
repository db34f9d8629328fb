"""The Java subscriber of ``examples/``, built once for what it is made of, and run as a process."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.paths import ROOT

_ROOT = ROOT
_PROJECT = _ROOT / "examples" / "java-subscriber"
_CACHE = Path.home() / ".cache" / "card-pipeline"


@pytest.fixture(scope="session")
def java_subscriber() -> Path:
    """The folder that it is built in."""
    folder = _CACHE / f"java-subscriber-{_digest()}"
    if not shutil.which("java") or not (folder.is_dir() or shutil.which("mvn")):
        pytest.skip("needs a JDK of Java 17 and Maven (apt install openjdk-17-jdk-headless maven)")
    if not folder.is_dir():
        _build(folder)
    return folder


class JavaSubscriber:
    """A running one.

    Args:
        process: Its stdout is read here.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self._lines = process.stdout

    def handled(self, most: int | None = None) -> list[str]:
        """Return the ids of the events that it handled since the last call; all until it ends, or so many."""
        found: list[str] = []
        while most is None or len(found) < most:
            line = self._lines.readline()
            if not line.endswith("\n"):
                break  # it ended, maybe within a line
            found.append(str(json.loads(line)["id"]))
        return found

    def kill(self) -> list[str]:
        """Kill it with SIGKILL; return the ids of handled events that the test had not read yet."""
        self._process.kill()
        return self.handled()

    def wait(self) -> int:
        """Return its exit code."""
        return self._process.wait()


@contextmanager
def running(built: Path, *, bootstrap: str, group: str, topic: str, idle: int) -> Iterator[JavaSubscriber]:
    """Run it; kill it at the end, if it still runs."""
    command = [
        "java",
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-cp",
        f"{built}/classes:{built}/libs/*",
        "example.subscriber.Main",
    ]
    options = ["--bootstrap", bootstrap, "--group", group, "--topic", topic, "--max-idle-seconds", str(idle)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            yield JavaSubscriber(process)
        finally:
            process.kill()


def _digest() -> str:
    """Return a hash of its inputs: its own sources, and the schemas."""
    schemas = _ROOT / "schemas"
    own = (path for path in _PROJECT.rglob("*") if path.suffix in {".java", ".xml"} and "target" not in path.parts)
    digest = hashlib.sha256()
    for path in sorted([*own, *schemas.glob("events/*.json"), schemas / "index.json"]):
        digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _build(folder: Path) -> None:
    _CACHE.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=_CACHE))
    command = ["mvn", "-B", "-q", "-f", str(_PROJECT / "pom.xml"), f"-Dtarget={fresh}", "package"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    try:
        fresh.rename(folder)
    except OSError:  # another test run was faster
        shutil.rmtree(fresh)

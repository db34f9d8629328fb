"""Brokers for tests: the embedded one as a process of its own, and Apache Kafka where Java and Maven are there.

``PIPELINE_TEST_KAFKA=host:port`` uses a running Apache Kafka instead; tests that stop or freeze it are skipped then.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final

import pytest

from pipeline.contracts import TopicSpec
from pipeline.kafka import KafkaSettings
from pipeline.kafka.admin import create_topics

VERSION = "4.3.1"
_POM = Path(__file__).parent / "kafka" / "pom.xml"
_CACHE = Path.home() / ".cache" / "card-pipeline" / f"kafka-{VERSION}"
_UP_WITHIN = 240.0
"""A killed broker reads its logs again: a minute and a half with the topics of all tests, on a busy machine."""


def _stopped(task: Path) -> bool:
    """Return whether a thread is stopped or has ended."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] in {"T", "t", "Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return True


_TOPICS_SECONDS: Final = 60.0
"""A broker flushes each partition of a new topic to the disk; several tests ask for hundreds at the same time."""


async def make_topics(kafka: KafkaSettings, specs: Sequence[TopicSpec]) -> None:
    """Create the topics of a test."""
    await create_topics(kafka.model_copy(update={"request_timeout_seconds": _TOPICS_SECONDS}), specs)


class Broker:
    """A broker that a test may freeze, stop and start again; or one that is only lent (``process`` is None)."""

    def __init__(self, kind: str, bootstrap_servers: str) -> None:
        self.kind = kind
        self.bootstrap_servers = bootstrap_servers
        self.process: subprocess.Popen[bytes] | None = None

    def freeze(self) -> None:
        """Let it hang: connections stay open, nothing is answered. It hangs when this returns."""
        process = self._own()
        process.send_signal(signal.SIGSTOP)
        while any(not _stopped(task) for task in Path(f"/proc/{process.pid}/task").iterdir()):
            time.sleep(0.01)  # the system stops one thread after another

    def thaw(self) -> None:
        """Let it go on."""
        self._own().send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill it; connections are refused afterwards."""
        process = self._own()
        process.kill()
        process.wait()

    def start(self) -> None:
        """Start it again, with its records, on the same port."""
        raise NotImplementedError

    def _own(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            pytest.skip("the broker of PIPELINE_TEST_KAFKA is not ours to stop; unset it to have one started")
        return self.process


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[Broker]:
    """The embedded broker, for the whole session."""
    with running_embedded_broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[Broker]:
    """Apache Kafka, for the whole session (up in about 5 s, 400 MB; its jars are fetched once, 45 MB)."""
    lent = os.environ.get("PIPELINE_TEST_KAFKA")
    if lent:
        yield Broker("apache", lent)
        return
    skip_without_java()
    with running_apache_kafka() as broker:
        yield broker


def skip_without_java() -> None:
    """Skip the test where Apache Kafka cannot be started."""
    if not can_start_kafka():
        pytest.skip(
            "needs Java 17 and Maven (apt install openjdk-17-jre-headless maven), or PIPELINE_TEST_KAFKA=host:port"
        )


def can_start_kafka() -> bool:
    """Return whether there is what starting Apache Kafka needs."""
    return bool(shutil.which("java") and (_CACHE.is_dir() or shutil.which("mvn")))


@contextmanager
def running_embedded_broker() -> Iterator[Broker]:
    """Run the embedded broker as a process that ends with this one at the latest."""
    command = [sys.executable, "-m", "pipeline.kafka.embedded_process", "--until-eof"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        broker = Broker("embedded", json.loads(process.stdout.readline())["bootstrap_servers"])
        broker.process = process
        yield broker
    finally:
        _end(process)


@contextmanager
def running_apache_kafka(
    listeners: Mapping[str, str] = MappingProxyType({}), properties: Mapping[str, str] = MappingProxyType({})
) -> Iterator[ApacheKafka]:
    """Run one node of Apache Kafka (KRaft) on free ports of loopback, with an empty folder of its own.

    Args:
        listeners: Further listeners: their security protocol by name.
        properties: Further lines of ``server.properties``.
    """
    folder = Path(tempfile.mkdtemp(prefix="kafka-"))
    broker = ApacheKafka(folder, listeners, properties)
    try:
        broker.start()
        yield broker
    finally:
        if broker.process:
            _end(broker.process)
        shutil.rmtree(folder, ignore_errors=True)


class ApacheKafka(Broker):
    """One node of Apache Kafka.

    Attributes:
        ports: By name of the listener.
    """

    def __init__(self, folder: Path, listeners: Mapping[str, str], properties: Mapping[str, str]) -> None:
        self._port, controller, *further = _free_ports(2 + len(listeners))
        self.ports = {"PLAINTEXT": self._port, **dict(zip(listeners, further, strict=True))}
        super().__init__("apache", f"127.0.0.1:{self._port}")
        self._folder = folder
        self._config = folder / "server.properties"
        lines = _properties(folder / "data", self.ports, controller, listeners) | dict(properties)
        self._config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        self._classpath = f"{_jars()}/*"
        ident = self._java("kafka.tools.StorageTool", "random-uuid").strip()
        self._java("kafka.tools.StorageTool", "format", "--standalone", "-t", ident, "-c", str(self._config))

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command(), "kafka.Kafka", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + _UP_WITHIN
        while time.monotonic() < end and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"Kafka did not start: {(self._folder / 'log').read_text(errors='replace')[-3000:]}")

    def _java(self, *arguments: str) -> str:
        return subprocess.run([*self._command(), *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout

    def _command(self) -> list[str]:
        return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", self._classpath]


def _properties(data: Path, ports: Mapping[str, int], controller: int, listeners: Mapping[str, str]) -> dict[str, str]:
    advertised = ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())
    protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **listeners}
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"{advertised},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": advertised,
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "log.dirs": str(data),
        "num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "log.retention.check.interval.ms": "1000",
        "log.initial.task.delay.ms": "500",
        "file.delete.delay.ms": "100",
        # a killed broker is let in again only when its former session is over
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "500",
    }


def _jars() -> Path:
    """Return the folder of Kafka's jars, fetched by Maven once; complete or not there at all."""
    libs = _CACHE / "libs"
    if not libs.is_dir():
        _CACHE.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=_CACHE))
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
        subprocess.run(["mvn", "-B", "-q", "-f", str(_POM), *goal], check=True, stdin=subprocess.DEVNULL)
        try:
            fresh.rename(libs)
        except OSError:  # another test run was faster
            shutil.rmtree(fresh)
    return libs


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    pipes: tuple[IO[bytes] | None, ...] = (process.stdin, process.stdout)
    for pipe in pipes:
        if pipe:
            pipe.close()

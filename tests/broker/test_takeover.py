"""Two members of one group, and brokers that fall silent. Apache Kafka only: the embedded one allows one member."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from support.brokers import Broker
from support.members import Notebook, fresh_settings, keyed_consumer, outgoing, running, until
from support.paths import SUPPORT

from pipeline.contracts import Record
from pipeline.errors import LeaseLost
from pipeline.kafka import BrokerUnavailable, ConsumerSettings, KafkaPublisher, KafkaSettings, KeyedConsumer
from pipeline.kafka.protocols import Lease


@pytest.fixture
async def kafka(apache_kafka: Broker) -> KafkaSettings:
    return await fresh_settings(apache_kafka)


@pytest.fixture
async def publisher(kafka: KafkaSettings) -> AsyncIterator[KafkaPublisher]:
    async with KafkaPublisher(kafka) as made:
        yield made


async def test_work_on_returned_partitions_goes_on_and_on_lost_ones_is_cancelled(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """A second member joins while the first works: each record's effect happens once, by the partition's owner."""
    release = asyncio.Event()

    async def act(_record: Record, lease: Lease) -> None:
        await release.wait()
        await lease.ensure()

    for number in range(24):
        await publisher.publish(outgoing(f"k{number}", b"%d" % number))
    first, second = Notebook(act), Notebook(act)
    settings = quick.model_copy(update={"slots": 100})
    old, new = (_consumer(notebook, kafka, settings, publisher) for notebook in (first, second))
    async with running(old):
        await until(lambda: len(first.handled) == 24)
        async with running(new):
            await until(lambda: len(second.handled) > 0)
            await asyncio.sleep(1.0)
            release.set()
            await until(lambda: len(first.done) + len(second.done) == 24)
    kept, moved = set(first.values()), set(second.values())
    assert kept
    assert moved
    assert not kept & moved
    assert len(first.handled) == 24  # nothing was begun twice by its keeper
    assert {record.value for record in second.handled} == moved


async def test_a_killed_member_is_replaced(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """SIGKILL in mid-record: another member does the record after the session timeout."""
    with _member(kafka, quick) as (process, said):
        await publisher.publish(outgoing("k", b"job:60"))
        await until(lambda: "start job:60" in said())
        process.kill()
        notebook = Notebook()
        async with running(_consumer(notebook, kafka, quick, publisher)):
            await until(lambda: notebook.values() == [b"job:60"])
    assert "effect" not in said()


async def test_a_frozen_member_that_thaws_does_nothing(
    kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """SIGSTOP for longer than a session, taken over, SIGCONT: no effect of the old work, and it serves again."""
    with _member(kafka, quick) as (process, said):
        await publisher.publish(outgoing("k", b"job:1"))
        await until(lambda: "start job:1" in said())
        process.send_signal(signal.SIGSTOP)
        notebook = Notebook()
        async with running(_consumer(notebook, kafka, quick, publisher)):
            await until(lambda: notebook.values() == [b"job:1"])
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(3.0)
            assert "effect" not in said()
        await publisher.publish(outgoing("k", b"other:0"))
        await until(lambda: "effect other:0" in said())
    assert said().count("job:1") == 1


async def test_without_heartbeats_all_work_is_cancelled_and_starts_over(
    apache_kafka: Broker, kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """The broker freezes: the lease is lost before the session ends; after it thaws the record starts over."""
    lost_after: list[float] = []
    frozen = asyncio.Event()

    async def act(_record: Record, lease: Lease) -> None:
        if frozen.is_set():
            return
        apache_kafka.freeze()
        frozen.set()
        began = time.monotonic()
        try:
            while True:
                await asyncio.sleep(0.05)
                await lease.ensure()
        except (LeaseLost, asyncio.CancelledError):
            lost_after.append(time.monotonic() - began)
            raise

    await publisher.publish(outgoing("k", b"job"))
    notebook = Notebook(act)
    consumer = _consumer(notebook, kafka, quick, publisher)
    async with running(consumer):
        try:
            await until(lambda: bool(lost_after))
            assert not consumer.ready
        finally:
            apache_kafka.thaw()
        await until(lambda: len(notebook.done) == 1)
    # a heartbeat was sent at most 0.3 sessions before the freeze; work ends within 0.8 sessions of it
    assert (
        0.45 * quick.session_timeout_seconds
        < lost_after[0]
        <= 0.8 * quick.session_timeout_seconds + quick.poll_interval_seconds + 0.2
    )
    assert len(notebook.handled) == 2


async def test_a_restarted_broker_finds_its_members_again(
    apache_kafka: Broker, kafka: KafkaSettings, quick: ConsumerSettings, publisher: KafkaPublisher
) -> None:
    """The broker is killed and started again: the member needs no restart, and loses no record."""
    notebook = Notebook()
    consumer = _consumer(notebook, kafka, quick, publisher)
    async with running(consumer) as task:
        await publisher.publish(outgoing("k", b"before"))
        await until(lambda: notebook.values() == [b"before"])
        apache_kafka.stop()
        await asyncio.sleep(3.0)
        apache_kafka.start()
        async with asyncio.timeout(120):  # it answers before it leads its partitions again
            while not await _published(publisher, b"after"):
                pass
        await until(lambda: b"after" in notebook.values() or task.done())
        assert not task.done()
        assert consumer.alive


async def _published(publisher: KafkaPublisher, value: bytes) -> bool:
    try:
        await publisher.publish(outgoing("k", value))
    except BrokerUnavailable:
        await asyncio.sleep(0.5)
        return False
    return True


def _consumer(
    handler: Notebook, kafka: KafkaSettings, settings: ConsumerSettings, publisher: KafkaPublisher
) -> KeyedConsumer:
    return keyed_consumer(handler, kafka, settings, publisher)


@contextmanager
def _member(kafka: KafkaSettings, settings: ConsumerSettings) -> Iterator[tuple[subprocess.Popen[bytes], _Said]]:
    tests = SUPPORT.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent / "src")])}
    arguments = [sys.executable, "-m", "support.member_process", kafka.model_dump_json(), settings.model_dump_json()]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            yield process, _Said(process)
        finally:
            process.kill()


class _Said:
    """What the process has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        os.set_blocking(self._stream.fileno(), False)
        self._text = b""

    def __call__(self) -> str:
        if not self._stream.closed:
            self._text += self._stream.read() or b""
        return self._text.decode()

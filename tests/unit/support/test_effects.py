"""The list of effects is complete: every topic, kind of object and group of the pipeline is in it, and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Final

import pytest
from pydantic import SecretStr
from support.command_line import RememberingPorts
from support.effects import (
    CRASH_POINTS,
    EFFECTS,
    KINDS,
    NoticingGroup,
    NoticingNotifier,
    NoticingPublisher,
    NoticingStore,
    NoticingUploader,
    creation,
    publication,
)
from support.fake_group import FakeGroup
from support.job_world import BEGIN, CARDS, PART_CIPHER, Ecs, Lease, Objects, World
from support.paths import ROOT

from pipeline.app import Ports
from pipeline.app.assembly import STAGE_MAKERS, ProcessContext
from pipeline.app.parts import Worker
from pipeline.audit import AuditSettings, Writing
from pipeline.audit.chain import Chain
from pipeline.audit.home import HomePartitions
from pipeline.audit.segments import Entry
from pipeline.cli.commands import Order, recorded
from pipeline.cli.context import Setup
from pipeline.cli.dead_letter_view import mark_key
from pipeline.contracts import AuditAction, AuditEvent, OutgoingRecord, Topic, TopicName, stable_hash
from pipeline.errors import FatalError, PipelineError, TransientError
from pipeline.jobs.csv_engine import CsvLimits
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.parking import Parking
from pipeline.jobs.partners import Answer
from pipeline.jobs.rate_shares import RateShares
from pipeline.jobs.settings import JobLimits
from pipeline.jobs.switches import Switches
from pipeline.jobs.transfer import SignedUrl, SourceChanged
from pipeline.kafka import ConsumerSettings, GroupClient, KafkaSettings
from pipeline.kafka.protocols import Partition
from pipeline.kafka.testing import MemoryPublisher
from pipeline.observability import CheckedClock, Metrics
from pipeline.outbound import Pace
from pipeline.settings import Settings
from pipeline.storage.testing import MemoryStore

FAILED = CARDS + b"9999990000000015,one more than announced\n"


class Noticed:
    """Notes which effects there were, and which of them came to their end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []

    @contextmanager
    def around(self, effect: str) -> Iterator[None]:
        self.begun.append(effect)
        yield
        self.ended.append(effect)


class ReadyPublisher(MemoryPublisher):
    problem = None


def test_every_effect_can_be_crashed_before_and_after() -> None:
    assert len(set(EFFECTS)) == len(EFFECTS)
    assert set(CRASH_POINTS) == {f"{side}:{name}" for name in EFFECTS for side in ("before", "after")}


def test_every_topic_is_published_to_under_a_name_of_the_list() -> None:
    """Topics of configured sources come by their settings; what they have in common is their beginning."""
    topics: list[TopicName] = [*Topic, "webhook-events.github", "partner.events"]
    names = {publication(topic) for topic in topics}
    assert names == {name for name in EFFECTS if name.startswith("publish.")}
    assert publication("webhook-events.github") == publication("partner.events") == "publish.events"


@pytest.mark.parametrize("topic", ["fraud.dead-letter", "fraud.stepup.dead-letter"])
def test_dead_letters_of_subscribers_are_none_of_the_commands(topic: TopicName) -> None:
    with pytest.raises(LookupError, match="subscriber"):
        publication(topic)


_WRITE = re.compile(r"\b_?(?:objects|store)\.(?:create|replace|delete|delete_all)\(|self\._create\(")
WRITES: Final = {
    "audit/chain.py": 5,
    "audit/home.py": 1,
    "cli/commands.py": 1,
    "cli/dead_letters.py": 1,
    "jobs/due_jobs.py": 1,
    "jobs/erasure.py": 3,
    "jobs/job_store.py": 12,
    "jobs/notification_store.py": 3,
    "jobs/part_store.py": 9,
    "jobs/rate_shares.py": 4,
    "jobs/receipt_store.py": 1,
    "jobs/starts.py": 4,
    "jobs/switches.py": 1,
}
"""How many calls write to a store, by module."""


def test_every_call_that_writes_to_the_store_is_known() -> None:
    """A new call needs an effect in ``support.effects``, cases in test_crash_points.py, and a turn in the next test."""
    root = ROOT / "src" / "pipeline"
    texts = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.py")}
    found = {
        name: len(_WRITE.findall(text)) for name, text in texts.items() if not name.startswith(("storage/", "sandbox/"))
    }
    assert {name: count for name, count in found.items() if count} == WRITES


async def test_every_write_of_jobs_and_the_audit_log_has_a_name_of_the_list() -> None:
    """Jobs complete, fail, are notified with retries, in vain, and again, have a second attempt, or a shared file."""
    noticed = Noticed()
    keys = {
        *await _completed(noticed, Answer("accepted", 200, "callback_accepted", "")),
        *await _completed(noticed, Answer("refused", 404, "callback_unknown_job", "")),
        *await _completed(
            noticed, TransientError("callback_server_error", "ECS answered 500"), Answer("accepted", 200, "", "")
        ),
        *await _failed_and_announced_again(noticed),
        *await _parked(noticed),
        *await _shared(noticed),
        *await _overdue(noticed),
        *await _audited(noticed),
        *await _commanded(noticed),
        *await _paced(noticed),
    }
    found = {kind for kind in KINDS if any(pattern.fullmatch(key) for key in keys for pattern in [KINDS[kind]])}
    assert found == set(KINDS)
    of_the_store = {name for name in EFFECTS if name.startswith(("store.", "delete.", "erase."))}
    assert of_the_store - set(noticed.begun) == OF_ORDERS
    assert any("/attempts/2/" in key for key in keys)
    assert any("/again/" in key for key in keys)


OF_ORDERS = {"erase.outcome", "erase.try", "erase.confirmed", "erase.waiting"}
"""``pipeline job purge``: tests/unit/cli/test_commands.py interrupts it at each of its effects."""


class Listed(MemoryStore):
    """Lists the keys that were created in it."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    async def create(self, key: str, data: bytes) -> bool:
        self.keys.append(key)
        return await super().create(key, data)


def _world(noticed: Noticed, **policies: object) -> tuple[World, list[str]]:
    """Return a world, and the list of the keys that will be created in it."""
    world = World(policies=policies)
    world.memory = listed = Listed()
    world.jobs = JobStore(NoticingStore(listed, noticed.around), PART_CIPHER)
    world.jobs.inline_bytes = -1  # small parts too are objects
    world.parking = Parking(world.jobs, world.clock)
    world.restart()
    return world, listed.keys


async def _completed(noticed: Noticed, *answers: Answer | PipelineError) -> list[str]:
    world, keys = _world(noticed)
    world.ecs.answers = [*answers]
    record = world.announce()
    await world.deliver(world.watch, record)
    for _ in answers:
        with suppress(TransientError):
            await world.run(record)
    world.clock.forward(minutes=5)
    await world.run(world.announce(expires_at=BEGIN.replace(hour=15).isoformat()))
    await world.run(world.announce(record_count=4))
    return keys


async def _failed_and_announced_again(noticed: Noticed) -> list[str]:
    world, keys = _world(noticed, reannouncement_after_failure="new_attempt")
    await world.run(world.announce(FAILED))
    world.clock.forward(minutes=5)
    await world.run(world.announce(expires_at=BEGIN.replace(hour=15).isoformat()))
    return keys


async def _parked(noticed: Noticed) -> list[str]:
    world, keys = _world(noticed, reannouncement_after_failure="new_attempt")
    await world.run(world.announce(FAILED))
    world.clock.forward(minutes=5)
    record = world.announce(expires_at=BEGIN.replace(hour=15).isoformat())
    world.objects.fail_open += [TransientError("slow_down", "503")] * 3
    await world.handle_until_over("process", record)
    assert await world.parking.resume("acme") == 1
    world.clock.forward(minutes=1)
    await world.due.poll()
    await world.run(world.returned(Topic.BATCH_REQUESTED)[0])
    return keys


async def _shared(noticed: Noticed) -> list[str]:
    """A file is divided, and replaced before its second chunk is done."""
    world, keys = _world(noticed)
    world.limits, world.csv_limits = JobLimits(fanout_bytes=1), CsvLimits(chunk_records=1)
    world.restart()
    running = asyncio.create_task(world.deliver(world.process, world.announce()))
    async with asyncio.timeout(20):
        while not world.records(Topic.BATCH_CHUNKS):  # noqa: ASYNC110 - the bus has no event
            await asyncio.sleep(0.001)
    first, second, *_ = world.records(Topic.BATCH_CHUNKS)
    await world.chunks.handle(first, world.lease)
    world.objects.inputs = dict.fromkeys(world.objects.inputs, b"another file")
    await world.chunks.handle(second, world.lease)
    with pytest.raises(SourceChanged):
        await running
    return keys


async def _overdue(noticed: Noticed) -> list[str]:
    """A job is decided at its deadline; later its parts are deleted."""
    world, keys = _world(noticed)
    await world.deliver(world.watch, world.announce())
    world.clock.forward(hours=1)
    await world.watch.poll()
    await world.run(world.announce(FAILED))
    world.clock.forward(days=400)
    await world.watch.poll()
    return keys


async def _commanded(noticed: Noticed) -> list[str]:
    store = Listed()
    noticing = NoticingStore(store, noticed.around)
    setup = Setup(None, {"PIPELINE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, RememberingPorts())
    order = Order("INC-7", dry_run=False, yes=True, repeat=None)
    async with recorded(setup, noticing, order, "job purge", {}):
        pass
    await noticing.create(mark_key(stable_hash("a letter")), b"{}")
    await Switches(noticing, lambda: BEGIN).turn("acme", paused=True, until=BEGIN, reason="", actor="", command="1")
    return store.keys


async def _four() -> int:
    return 4


async def _audited(noticed: Noticed) -> list[str]:
    store = Listed()
    noticing = NoticingStore(store, noticed.around)
    writing = Writing(
        store=noticing, settings=AuditSettings(), signer=None, clock=lambda: datetime.now(UTC), nonce=lambda: "n"
    )
    await HomePartitions(noticing, MemoryPublisher(), count=_four, partition_of=lambda _key, _count: 0).prepare()
    chain = await Chain.open(writing, Topic.AUDIT_EVENTS, 0)
    for number in range(128):
        event = AuditEvent(
            id=str(number), action=AuditAction.JOB_ANNOUNCED, at=datetime.now(UTC), actor="test", detail={}
        )
        await chain.append([Entry(number, event, event.model_dump(mode="json"), 1)], Lease())
    return store.keys


async def _paced(noticed: Noticed) -> list[str]:
    """Cards are sent at a rate, until its objects are deleted."""
    store, pace = Listed(), Pace(100.0, shared=True, clock=asyncio.get_running_loop().time)
    shares = RateShares(NoticingStore(store, noticed.around), {"acme": pace}, lambda: datetime.now(UTC))
    running = asyncio.create_task(shares.run())
    await pace.turn()
    async with asyncio.timeout(60):
        while "delete.rate" not in noticed.ended:  # noqa: ASYNC110 - the store has no event
            await asyncio.sleep(0.1)
    running.cancel()
    await asyncio.wait([running])
    return store.keys


@pytest.mark.parametrize("key", ["jobs/acme/guid/somewhere/new.json", "job.json", "jobs/acme/guid/parts/x/new.json"])
def test_an_object_of_a_new_kind_is_refused(key: str) -> None:
    with pytest.raises(LookupError, match="give it one"):
        creation(key)


async def test_every_group_of_the_stages_is_in_the_list() -> None:
    joined: list[str] = []

    class Joining(Ports):
        async def group(
            self, name: str, topics: Sequence[TopicName], kafka: KafkaSettings, consumer: ConsumerSettings
        ) -> GroupClient:
            del topics, kafka, consumer
            joined.append(name)
            raise FatalError("stop", "far enough")

    settings = Settings()
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    async with AsyncExitStack() as stack:
        around = ProcessContext(
            settings,
            kafka,
            settings.consumer.for_consumer(),
            ReadyPublisher(),
            MemoryStore(),
            Metrics(),
            lambda _: None,
            stack,
            CheckedClock(Joining().now, Metrics().clock_offset_seconds),
            Joining(),
        )
        for make in STAGE_MAKERS.values():
            part = await make(around)
            assert isinstance(part, Worker)
            for runner in part.runners:
                with pytest.raises(FatalError, match="far enough"):
                    await runner.run()
    assert sorted(f"commit.{name}" for name in joined) == sorted(one for one in EFFECTS if one.startswith("commit."))


async def test_each_port_notices_its_effect() -> None:
    noticed, objects = Noticed(), Objects()
    await NoticingPublisher(ReadyPublisher(), noticed.around).publish(OutgoingRecord(Topic.EVENTS_LOGIN, "k", b"", ()))
    await NoticingStore(MemoryStore(), noticed.around).create("open/202601211200/acme/guid.1", b"")
    await NoticingGroup("upload", FakeGroup(), noticed.around).commit({Partition("t", 0): 1})

    async def target() -> SignedUrl:
        return SignedUrl(SecretStr("https://files.example/out"), BEGIN)

    async def body() -> AsyncGenerator[bytes, None]:
        yield b"a"

    class Uploads:
        put = objects.put_body

    await NoticingUploader(Uploads(), noticed.around).put(target, size=1, body=body)
    url = SecretStr("https://ecs.example/callback")
    await NoticingNotifier(Ecs(), noticed.around).notify(url, job_guid="", body=b"", request_id="")
    names = ["publish.events", "store.open", "commit.upload", "put.result", "post.callback"]
    assert (noticed.begun, noticed.ended) == (names, names)
    assert set(names) <= set(EFFECTS)


async def test_an_effect_that_fails_is_not_over() -> None:
    noticed = Noticed()

    async def lose(_: OutgoingRecord) -> None:
        raise FatalError("lost", "by the test")

    with pytest.raises(FatalError):
        await NoticingPublisher(ReadyPublisher(lose), noticed.around).publish(
            OutgoingRecord(Topic.BATCH_FAILED, "k", b"", ())
        )
    assert (noticed.begun, noticed.ended) == (["publish.card-batch.failed"], [])

"""A flow that takes, refuses and keeps events full of markers, and all that anybody said about them.

All 32 of Weavr's events and those of two configured senders, right and wrong in every way; a subscriber that raises
what it was given; every command that prints something about events. All at log level debug.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final
from uuid import uuid4

import aiohttp
from support.brokers import Broker
from support.event_plants import EventPlants, deep_misfit, misfit
from support.event_requests import API_KEYS, LIMIT, PATH_SECRET, RELAY_SECRET, SHOP_SECRET, Knock, Knocks
from support.flow import INTEGRATION, Flow, Tables, running_flow
from support.flow_process import Child, FlowProcess, Launch
from support.members import until
from support.offsets import Offsets
from yarl import URL

from pipeline.contracts import OutgoingRecord, Record, Topic, TopicName
from pipeline.contracts.weavr import KINDS
from pipeline.kafka import KafkaPublisher, KafkaSettings, read_topic

GROUP: Final = "loud"
SERVERS: Final = ("ingress", "audit")
SOURCE_TOPICS: Final = ("webhook-events.shop", "webhook-events.relay")
DEAD_LETTERS: Final = (f"{GROUP}.dead-letter", f"{GROUP}.stepup.dead-letter")
EVENT_TOPICS: Final[Sequence[TopicName]] = [
    *(topic for topic in Topic if topic.startswith("card-events.") and not topic.endswith("quarantine")),
    *SOURCE_TOPICS,
]
QUARANTINES: Final = (Topic.EVENTS_QUARANTINE, Topic.EVENTS_STEPUP_QUARANTINE, Topic.WEBHOOK_QUARANTINE)

_SHOWN_WAYS: Final = 2
"""Of each way of being quarantined so many are shown: each costs a process."""
_TRIED: Final = ("/managed_cards/authorisations/watch", "/stepup/watch")
_AT_ONCE: Final = 4
_CAPTURED: Final = 20

_SETTINGS: Final = """
[weavr.acme]
secrets = [{{ file = {oldest} }}, {{ file = {next} }}]
path_secret_file = {segment}

[[weavr.acme.unsigned_paths]]
path = "/bulk_process_end/watch"
require_path_secret = true

[webhooks.shop]
preset = "stripe"
secrets = [{{ file = {shop} }}]

[webhooks.relay]
source = "standard-webhooks"
secrets = [{{ file = {relay} }}]
"""
_FIX: Final = '\ntype = ["text:event"]\n'
"""Behind the last table: what did not fit for its type's length fits now."""


@dataclass
class World:
    """What happened.

    Attributes:
        launch: Starts the CLI.
        knocks: What was sent.
        said: What the system answered or printed, by to whom.
        kept: Files that hold what was captured, as asked for.
    """

    flow: Flow
    launch: Launch
    plants: EventPlants = field(default_factory=EventPlants)
    knocks: list[Knock] = field(default_factory=list)
    said: dict[str, bytes] = field(default_factory=dict)
    kept: list[Path] = field(default_factory=list)

    @property
    def aside(self) -> Path:
        """Where the test's own files lie."""
        return self.flow.folder / "aside"


@asynccontextmanager
async def everything_happened_to_events(broker: Broker, folder: Path, launch: Launch) -> AsyncIterator[World]:
    """Let everything happen, then stop all processes; what they left behind can be looked at."""
    tables: Tables = {
        "logging": {"level": "debug", "format": "json"},
        "ingress": {
            "port": 0,
            "max_body_bytes": LIMIT,
            "alarm_interval_seconds": 0.001,
            "trusted_proxies": ["127.0.0.1/32"],
            "capture_dir": str(folder / "capture"),
        },
    }
    async with running_flow(broker, folder, start=(), tables=tables, launch=launch) as flow:
        world = World(flow, launch)
        world.aside.mkdir()
        _configure(world)
        await asyncio.gather(*(flow.start(name) for name in SERVERS))
        async with _captured(world):
            await _knock(world)
        await _poison(world)
        await _subscribe(world)
        await flow.caught_up(groups=["audit"])
        for name in SERVERS:
            await _look(world, name)
        await _ask(world)
        await flow.stop("ingress")  # it audits the counts of refusals now
        await flow.caught_up(groups=["audit"])
        await flow.stop()
        yield world


def _configure(world: World) -> None:
    values = {"oldest": API_KEYS[0], "next": API_KEYS[1], "segment": PATH_SECRET}
    values |= {"shop": SHOP_SECRET, "relay": RELAY_SECRET}
    world.plants.secrets |= {name: value.encode() for name, value in values.items()}
    relay = RELAY_SECRET.removeprefix("whsec_").rstrip("=")
    world.plants.secrets["relay, without its prefix"] = relay.encode()
    world.plants.secrets["ECS"] = world.flow.sandbox.settings.webhook_secret.get_secret_value().encode()
    files = {}
    for name, value in values.items():
        path = world.flow.folder / "secrets" / f"events-{name}"
        path.write_text(value)
        path.chmod(0o600)
        files[name] = json.dumps(str(path))
    with world.flow.config.open("a") as config:
        config.write(_SETTINGS.format(**files))


# sending


async def _knock(world: World) -> None:
    world.knocks += Knocks(world.plants).all()
    slots = asyncio.Semaphore(_AT_ONCE)
    base = world.flow.webhook_url.partition("/webhooks")[0] + "/webhooks"
    async with aiohttp.ClientSession() as session:

        async def send(number: int, knock: Knock) -> None:
            url = URL(base + knock.path, encoded=True)
            async with slots, session.post(url, data=knock.body, headers=knock.headers) as response:
                said = repr(dict(response.headers)).encode() + await response.read()
                world.said[f"answer {number}, {knock.way}: {response.status}"] = said
                assert response.status == knock.status, (knock.way, knock.path, response.status, said)

        await asyncio.gather(*(send(number, knock) for number, knock in enumerate(world.knocks)))


async def _poison(world: World) -> None:
    """Publish what no subscriber can read: right by its headers, but its body fits no model."""
    rng = Random("poison")  # noqa: S311 - test data
    async with KafkaPublisher(world.flow.kafka) as publisher:
        for kind in KINDS:
            body = world.plants.body(kind.path, rng)
            spoilt = (misfit(body, rng), deep_misfit(body, rng), deep_misfit(body, rng, spoil=False))
            values = [json.dumps(one).encode() for one in spoilt]
            for text in (*values, values[0][:-2]):
                headers = (("ce_id", uuid4().hex.encode()), ("ce_type", kind.type.encode()))
                await publisher.publish(OutgoingRecord(kind.topic, "acme/card/1", text, headers))


# subscribing


async def _subscribe(world: World) -> None:
    """Run a subscriber whose errors contain the events, until it has handled or dead-lettered all."""
    kafka = world.flow.kafka.model_copy(update={"group_prefix": ""})
    base = world.flow.folder / "subscriber"
    env = {"KAFKA": json.dumps(kafka.model_dump(mode="json", exclude_unset=True))}
    process = FlowProcess("subscriber", [GROUP, *EVENT_TOPICS], base, env, _launch_subscriber)
    try:
        await _handled(kafka, process)
        assert await process.stop() == 0, process.log[-3000:]
    finally:
        process.kill()


async def _handled(kafka: KafkaSettings, process: FlowProcess) -> None:
    async with Offsets(kafka) as offsets:
        try:
            await offsets.caught_up(GROUP, EVENT_TOPICS, 90)
        except TimeoutError:
            raise AssertionError(f"the subscriber did not catch up:\n{process.log[-3000:]}") from None


def _launch_subscriber(argv: Sequence[str], *, out: Path, err: Path, env: Mapping[str, str]) -> Child:
    command = [sys.executable, "-m", "support.loud_subscriber", *argv]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=dict(env))


# asking


async def _look(world: World, name: str) -> None:
    """Read what a process shows on its management port."""
    url = (await world.flow.processes[name].ready())["management_url"]
    async with aiohttp.ClientSession() as session:
        for path in ("/metrics", "/healthz/ready", "/healthz/live", "/planted0"):
            async with session.get(url + path) as response:
                world.said[f"{name} {path[:9]}"] = await response.read()


@asynccontextmanager
async def _captured(world: World) -> AsyncIterator[None]:
    """Capture what is refused while the context lasts."""
    kept = world.aside / "refused.jsonl"
    command = ["sources", "capture", "weavr.acme", "--for", "60s", "--limit", str(_CAPTURED), "--output", str(kept)]
    capturing = asyncio.create_task(_run(world, command))
    folder = world.flow.folder / "capture"
    await until(lambda: any(folder.glob("*.captured")) or capturing.done(), 30)
    yield
    await capturing
    assert len(kept.read_bytes().splitlines()) == _CAPTURED + 1  # the first line is no request
    world.kept.append(kept)


async def _ask(world: World) -> None:
    """Run every command that prints something about events, sources, quarantine or settings."""
    everything = [option for topic in (*EVENT_TOPICS, *QUARANTINES, *DEAD_LETTERS) for option in ("--topic", topic)]
    await _run_all(
        world,
        [
            ["config", "show"],
            ["config", "check", "--json"],
            ["sources", "list"],
            ["sources", "list", "--json"],
            ["events", "tail", "--no-follow"],
            ["events", "tail", "--no-follow", "--json"],
            ["events", "tail", "--no-follow", *everything],
            ["events", "tail", "--no-follow", "--json", *everything],
            ["events", "verify"],
            ["events", "verify", "--json", *everything],
            ["events", "rewind", "--group", GROUP, "--to", "earliest"],
            ["quarantine", "list"],
            ["quarantine", "list", "--json"],
            *_trials(world),
        ],
    )
    items = [
        json.loads(line) for line in world.said["pipeline quarantine list --json"].splitlines() if line[:1] == b"{"
    ]
    some = _some_of_each(items)
    await _run_all(world, [["quarantine", "show", str(one["id"])] for one in some])
    await _run_all(world, [["quarantine", "release", *(one["id"] for one in items)]])
    await _release_after_fix(world)


async def _release_after_fix(world: World) -> None:
    fixed = world.aside / "fixed.toml"
    fixed.write_text(world.flow.config.read_text() + _FIX)
    command = ["quarantine", "release", "--all", "--integration", "relay", "--json"]
    await _run(world, command, config=fixed)
    released = world.said[f"pipeline {' '.join(command)}"]
    assert b'"released": true' in released, released


def _some_of_each(items: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return a few of those that look alike from outside."""
    groups: dict[object, list[Mapping[str, object]]] = {}
    for one in items:
        groups.setdefault((one["topic"], str(one["reasons"]).rpartition(":")[2]), []).append(one)
    return [one for group in groups.values() for one in group[:_SHOWN_WAYS]]


def _trials(world: World) -> list[list[str]]:
    """Return commands that try requests on their sources, as text and as JSON, some with all ways of signing."""
    commands = []
    for number, knock in enumerate(world.knocks):
        source, _, behind = knock.path.removeprefix("/").partition("/")[2].partition("/")
        path = f"/{behind}" if behind else ""
        if source not in {INTEGRATION, "shop", "relay"} or not (source != INTEGRATION or path.endswith(_TRIED)):
            continue
        headers, body = world.aside / f"{number}-headers", world.aside / f"{number}-body"
        headers.write_text("".join(f"{name}: {value}\n" for name, value in knock.headers.items()))
        body.write_bytes(knock.body)
        table = "weavr.acme" if source == INTEGRATION else source
        command = ["sources", "test", table, "--path", path, "--headers", str(headers), "--body", str(body)]
        commands.append([*command, *(["--json"] if number % 2 else []), *(["--try-all"] if number % 3 else [])])
    captured = ["sources", "test", "weavr.acme", "--captured", str(world.kept[0]), "--number", str(_CAPTURED)]
    return [*commands, captured]


async def _run_all(world: World, commands: Sequence[Sequence[str]]) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def run(command: Sequence[str]) -> None:
        async with slots:
            await _run(world, command)

    await asyncio.gather(*(run(command) for command in commands))


async def _run(
    world: World,
    command: Sequence[str],
    *,
    config: Path | None = None,
) -> None:
    """Run a command; keep what it prints on stdout and stderr."""
    base = world.flow.folder / f"command-{uuid4()}"
    argv = ["--config", str(config or world.flow.config), *command]
    process = FlowProcess("command", argv, base, {"PIPELINE_LOGGING__LEVEL": "debug"}, world.launch)
    code = await process.ended()
    printed = base.with_suffix(".out").read_bytes() + process.log_file.read_bytes()
    assert code in {0, 1}, (command, code, printed[-3000:])
    assert printed, command
    world.said[f"pipeline {' '.join(command)}"] = printed


async def records_of(world: World, topics: Sequence[TopicName]) -> list[Record]:
    """Return all records of some topics."""
    return [record for topic in topics async for record in read_topic(world.flow.kafka, topic)]

"""A flow in which everything happens that could make a system talk, and all that it said.

Jobs that are done, failed, expired, refused with everything echoed; webhooks that are refused or quarantined; poisoned
records; a clumsy processor; every command that prints something. All at log level debug.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import aiohttp
from pydantic import JsonValue
from support.brokers import Broker
from support.flow import EVERYTHING, INTEGRATION, Flow, Tables, running_flow
from support.flow_process import FlowProcess, Launch
from support.loud_ecs import LoudEcs
from support.members import until
from support.plants import Plants, cvv, pin

from pipeline.contracts import OutgoingRecord, Topic
from pipeline.kafka import KafkaPublisher
from pipeline.sandbox import CardFile, Fault, Job, JobRequest, cards_options, settings_snippet
from pipeline.sandbox.cards import plant

CARDS: Final = 1000
POISON: Final = "held-by-poisoned-records-only"
LOUD_SIGNATURE: Final = "5ec4e7" + "ab" * 29

_SIGNATURE: Final = re.compile(rb"X-Amz-Signature=([0-9a-f]{64})")
_QUARANTINED: Final = 4
_QUICK: Final[dict[str, JsonValue]] = {"retry": {"first_seconds": 0.2}}
_NO_HOST: Final = "https://stranger.example/output.csv?X-Amz-Signature="


@dataclass
class World:
    """What happened.

    Attributes:
        launch: Starts the CLI.
        jobs: By what is the matter with them.
        folders: Each job's folder in the job store.
        said: What the system answered or printed, by to whom.
    """

    flow: Flow
    launch: Launch
    plants: Plants = field(default_factory=Plants)
    jobs: dict[str, Job] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    said: dict[str, bytes] = field(default_factory=dict)


@asynccontextmanager
async def everything_happened(broker: Broker, folder: Path, launch: Launch) -> AsyncIterator[World]:
    """Let everything happen, then stop all processes; what they left behind can be looked at."""
    loud = LoudEcs()
    tables: Tables = {"logging": {"level": "debug", "format": "json"}, "ingress": {"port": 0, "max_body_bytes": 50_000}}
    async with (
        loud.running() as loud_host,
        running_flow(broker, folder, start=(), tables=tables, integration={"callback": _QUICK}, launch=launch) as flow,
    ):
        _configure(flow, loud_host)
        world = World(flow, launch)
        _plant(world, loud)
        await asyncio.gather(*(flow.start(name) for name in EVERYTHING))
        await _do_jobs(world, loud_host)
        await _knock(world)
        await _poison(world)
        await flow.caught_up()
        world.said |= {f"callback {number}": body for number, body in enumerate(loud.bodies)}
        for name, job in world.jobs.items():
            world.said |= {f"callback of {name}": one.body for one in flow.callbacks(job)}
        for name in EVERYTHING:
            await _look(world, name)
        await _ask(world)
        await flow.stop()
        yield world


def _configure(flow: Flow, loud_host: str) -> None:
    """Add integrations: callbacks to the loud ECS; a clumsy processor; cards sent to a card API."""
    sandbox, secrets = flow.sandbox, flow.folder / "secrets"
    api = cards_options(sandbox, "loaded", folder=secrets)
    loud: Tables = {"hosts": {"callback": [loud_host]}, "callback": _QUICK}
    blocks = [
        settings_snippet(sandbox, "loud", folder=secrets, tables=loud),
        settings_snippet(sandbox, "clumsy", folder=secrets, processor="support.clumsy:Clumsy"),
        settings_snippet(sandbox, "shared", folder=secrets, tables={"limits": {"fanout_bytes": 1000}}),
        settings_snippet(
            sandbox,
            "loaded",
            folder=secrets,
            processor="http",
            options=api,
            tables={"processor": {"retry": {"first_seconds": 0.05}}},
        ),
    ]
    with flow.config.open("a") as config:
        config.writelines(block.toml for block in blocks)


# planting


def _plant(world: World, loud: LoudEcs) -> None:
    plants, settings = world.plants, world.flow.sandbox.settings
    rows = card_rows()[1:]
    plants.add_cards(row[0] for row in rows)
    plants.card_data |= {value.encode() for row in rows for value in row[1:3]}
    plants.urls |= {LOUD_SIGNATURE.encode(), settings.object_store.access_key.encode()}
    plants.secrets |= {
        "webhook secret": settings.webhook_secret.get_secret_value().encode(),
        "card API token": settings.card_api.token.get_secret_value().encode(),
    }
    for path in (world.flow.folder / "secrets").glob("*-token"):
        token = path.read_bytes()
        plants.secrets |= {path.name: token, f"signature of {path.name}": token.rpartition(b".")[2]}
    loud.known = f"{rows[0][0]} {rows[1][0][:4]} {rows[1][0][4:]} 100001 pin={pin(3)}, cvv={cvv(3)}, PIN: {pin(4)}"


def card_rows() -> list[list[str]]:
    """Return a file's rows, its header first; every 20th number has a wrong check digit."""
    rows = [["card_number", "pin", "cvv", "amount", "note"]]
    for record in range(1, CARDS + 1):
        number = plant(CardFile(seed=1), record).number
        if not record % 20:
            number = number[:-1] + str((int(number[-1]) + 1) % 10)
        rows.append([number, pin(record), cvv(record), f"{record % 90}.50", f'said "{number}"'])
    return rows


def _note(world: World, name: str, integration: str, job: Job) -> None:
    world.jobs[name] = job
    world.folders[name] = world.flow.store / "jobs" / integration / str(job.guid)
    for announcement in job.announcements:
        world.plants.urls |= set(_SIGNATURE.findall(announcement.body))
    if job.ledger:
        world.plants.add_cards(card.number for card in job.ledger.cards())


# jobs


async def _do_jobs(world: World, loud_host: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(card_rows())
    whole = text.getvalue()
    await _own_job(world, "done", whole)
    await _own_job(world, "quote in mid-field", whole + f'{card_rows()[1][0]},{pin(1)},{cvv(1)},1.00,no"quote"\n')
    await _job(world, "six digits", cards=CardFile(six_digits=True, records=CARDS, cvv=True))
    await _job(world, "quote never closed", content="open_quote", cards=CardFile(seed=2))
    await _job(world, "no header", cards=CardFile(seed=3, header=False))
    await _job(world, "no header, six digits", cards=CardFile(six_digits=True, records=50, header=False))
    await _job(world, "more than announced", cards=CardFile(seed=4, records=300), record_count=10)
    await _job(world, "expired", cards=CardFile(seed=5), expires_in_seconds=-5)
    forbidden = {"target": "input", "kind": "status", "status": 403}
    await _job(world, "input refused", cards=CardFile(seed=6), fault=forbidden)
    broken = {"target": "input", "kind": "cut", "after_bytes": 5000}
    await _job(world, "input cut", cards=CardFile(seed=7), fault=broken)
    digest = {"target": "result", "kind": "status", "status": 400, "code": "BadDigest"}
    await _job(world, "result refused", cards=CardFile(seed=8), fault=digest)
    await _job(world, "clumsy", integration="clumsy", cards=CardFile(seed=9, records=50, cvv=True))
    for trouble in ({"kind": "status", "status": 503, "times": 3}, {"kind": "lost", "times": 2}):
        world.flow.sandbox.faults.add(Fault.model_validate({"target": "cards", **trouble}))
    await _job(world, "card API", integration="loaded", cards=CardFile(seed=10, records=100))
    callback = {"callback_url": f"http://{loud_host}/told?X-Amz-Signature={LOUD_SIGNATURE}"}
    await _job(world, "loud", integration="loud", cards=CardFile(seed=11, records=50), override=callback)
    await _job(world, "shared", integration="shared", cards=CardFile(seed=12, records=50, cvv=True))
    await asyncio.gather(*(_ended(folder) for folder in world.folders.values()))


async def _job(
    world: World,
    name: str,
    *,
    integration: str = INTEGRATION,
    fault: Mapping[str, Any] | None = None,
    **request: Any,
) -> None:
    guid = uuid4()
    if fault:
        world.flow.sandbox.faults.add(Fault.model_validate({"job": guid, **fault}))
    url = _webhook(world.flow, integration)
    job = await world.flow.sandbox.ecs.create(JobRequest(job_guid=guid, webhook_url=url, **request))
    _note(world, name, integration, job)


async def _own_job(world: World, name: str, text: str) -> None:
    """Announce a job whose input file is the test's own."""
    flow = world.flow
    request = JobRequest(announce=False, content="nothing", record_count=CARDS, webhook_url=flow.webhook_url)
    job = await flow.sandbox.ecs.create(request)
    path = flow.sandbox.store.disk.new_path()
    path.write_text(text)
    await flow.sandbox.store.disk.adopt(job.input_key, path, modified=datetime.now(UTC))
    await flow.sandbox.ecs.announce(job.guid)
    _note(world, name, INTEGRATION, job)


def _webhook(flow: Flow, integration: str) -> str:
    return flow.webhook_url.removesuffix(INTEGRATION) + integration


async def _ended(folder: Path) -> None:
    await until(lambda: (folder / "confirmed.json").exists() or (folder / "refused.json").exists(), 90)


# strangers at the door


async def _knock(world: World) -> None:
    """Send the ingress what it must refuse, each with something that its answer must not repeat."""
    flow, card = world.flow, card_rows()[1][0]
    signature = "9" * 4 + "cd" * 30
    world.plants.urls.add(signature.encode())
    secret = {"X-Webhook-Secret": flow.sandbox.settings.webhook_secret.get_secret_value()}
    body = json.loads(world.jobs["done"].announcements[0].body) | {"job_guid": str(uuid4())}
    invalid = [
        body | {"result_upload_url": _NO_HOST + signature, "record_count": -1},
        body | {"job_guid": card, "expires_at": card, "input_file_url": f"ftp://{card}/?X-Amz-Signature={signature}"},
        body | {"merchant_guid": pin(5), "partner_reference_id": [card, cvv(5)], card: pin(6)},
    ]
    named = {"traceparent": f"00-{card}-{card}-01", "X-Forwarded-For": card, "User-Agent": card}
    requests: list[tuple[str, dict[str, str], bytes]] = [
        *[(flow.webhook_url, secret, json.dumps(one).encode()) for one in invalid],
        (flow.webhook_url, secret, f'{{"job_guid": "{card}", "job_guid": '.encode()),
        (flow.webhook_url, secret, json.dumps(body | {"more": card * 4000}).encode()),
        (flow.webhook_url, {"X-Webhook-Secret": card, **named}, json.dumps(invalid[0]).encode()),
        (flow.webhook_url, {**secret, "Content-Type": f"text/{card}"}, card.encode()),
        (f"{flow.webhook_url}/{card}?pin={pin(7)}&X-Amz-Signature={signature}", secret, card.encode()),
    ]
    async with aiohttp.ClientSession() as session:
        for number, (url, more, data) in enumerate(requests):
            headers = {"Content-Type": "application/json", **more}
            async with session.post(url, data=data, headers=headers) as response:
                assert 400 <= response.status < 500
                said = repr(dict(response.headers)).encode() + await response.read()
                world.said[f"refusal {number}, {response.status}"] = said
    nonsense = f"POST /{card} HTTP/9\r\nX-Card {card}\r\n\r\n".encode()
    world.said["refusal of what is no HTTP"] = await _raw(flow, nonsense)


async def _raw(flow: Flow, data: bytes) -> bytes:
    host, _, port = flow.webhook_url.split("/")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer
    return answer


STAGE_TOPICS: Final = (Topic.BATCH_CHUNKS, Topic.BATCH_PROCESSED, Topic.BATCH_UPLOADED, Topic.BATCH_FAILED)
"""What the stages read, apart from announcements."""


async def _poison(world: World) -> None:
    """Publish records that no stage can decode; their values stay in the dead-letter topics, and nowhere else."""
    value = json.dumps({"record_count": POISON, "input_file_url": f"{_NO_HOST}{LOUD_SIGNATURE}"}).encode()
    headers = (("ce_id", b"0123456789abcdef0123"), ("pipeline_integration", INTEGRATION.encode()))
    async with KafkaPublisher(world.flow.kafka) as publisher:
        await publisher.publish(OutgoingRecord(Topic.BATCH_REQUESTED, "poison", value, headers))
        await publisher.publish(OutgoingRecord(Topic.BATCH_REQUESTED, "poison", POISON.encode(), ()))
        for topic in (*STAGE_TOPICS, Topic.AUDIT_EVENTS):
            await publisher.publish(
                OutgoingRecord(topic, "poison", json.dumps({"integration": POISON}).encode(), headers)
            )


# asking


async def _look(world: World, name: str) -> None:
    """Read what a process shows on its management port."""
    url = (await world.flow.processes[name].ready())["management_url"]
    async with aiohttp.ClientSession() as session:
        for path in ("/metrics", "/healthz/ready", "/healthz/live", f"/{card_rows()[1][0]}"):
            async with session.get(url + path) as response:
                world.said[f"{name} {path[:9]}"] = await response.read()


async def _ask(world: World) -> None:
    """Run every command that prints something about jobs, announcements, settings or the audit log."""
    flow = world.flow
    broken = flow.sandbox.store.disk.get(world.jobs["quote in mid-field"].input_key)
    assert broken
    out, result = flow.folder / "out.csv", flow.folder / "result.csv"
    loud, quoted = (str(world.jobs[name].guid) for name in ("loud", "quote in mid-field"))
    commands = [
        ["config", "show"],
        ["config", "check", "--json"],
        ["job", "list"],
        ["job", "list", "--json"],
        ["job", "show", loud],
        ["job", "show", quoted, "--json"],
        ["job", "follow", loud, "--json"],
        ["job", "result", loud, "--output", str(result)],
        ["cards", "run", "--integration", INTEGRATION, "--input", str(broken.path), "--output", str(out)],
        ["quarantine", "list"],
        ["quarantine", "list", "--json"],
        ["audit", "verify"],
        ["audit", "head"],
        ["topics", "check"],
    ]
    await asyncio.gather(*(_run(world, command) for command in commands))
    listed = world.said["pipeline quarantine list --json"].splitlines()
    shown = [["quarantine", "show", json.loads(line)["id"]] for line in listed if line.startswith(b"{")]
    assert len(shown) == _QUARANTINED
    await asyncio.gather(*(_run(world, command) for command in shown))


async def _run(world: World, command: list[str]) -> None:
    """Run a command; keep what it prints on stdout and stderr."""
    base = world.flow.folder / f"command-{uuid4()}"
    argv = ["--config", str(world.flow.config), *command]
    process = FlowProcess("command", argv, base, {"PIPELINE_LOGGING__LEVEL": "debug"}, world.launch)
    code = await process.ended()
    printed = base.with_suffix(".out").read_bytes() + process.log_file.read_bytes()
    assert code in {0, 1, 3}, printed
    assert printed
    world.said[f"pipeline {' '.join(command)}"] = printed

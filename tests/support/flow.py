"""The whole flow as real processes: a broker, the sandbox, and the installed CLI's ingress and four stages.

::

    async with running_flow(broker, tmp_path) as flow:         # everything started and ready
        job = await flow.send(cards=CardFile(records=200, bad_share=0.1))
        await flow.notified(job)                                   # ECS has accepted the callback
        await flow.caught_up()                                 # no record is left that a stage has not finished with
        assert_completed(flow, job)                            # support.flow_checks

Topics, groups, store and sandbox are the flow's own, so flows can share a broker. The sandbox runs in the test's event
loop: ``flow.sandbox.faults``, ``flow.sandbox.ecs`` and ``flow.sandbox.store`` are at hand. Each stage can be stopped,
killed (``flow.processes[name]``) and started again (``flow.start(name, env={...})``); a second member of a stage is
``flow.start("process", key="second")``.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue
from support.brokers import Broker, make_topics
from support.flow_process import FlowProcess, Launch, launch_installed, run_cli
from support.offsets import Offsets

from pipeline.contracts import TOPICS, Record, Topic, TopicName, TopicSpec
from pipeline.kafka import KafkaSettings, read_topic
from pipeline.sandbox import Job, JobRequest, Sandbox, SandboxSettings, settings_snippet
from pipeline.sandbox.callbacks import CallbackRecord
from pipeline.sandbox.snippets import parts_snippet
from pipeline.settings.refusals import toml_value

STAGES: Final = ("process", "upload", "confirm", "audit")
EVERYTHING: Final = ("ingress", *STAGES)
INTEGRATION: Final = "acme"

Tables = Mapping[str, Mapping[str, JsonValue]]

SESSION: Final = 6.0
"""Seconds after which a killed member is given up: the least that a broker with its own defaults accepts."""

JOB_TOPICS: Final[Sequence[TopicSpec]] = [spec for spec in TOPICS if "-events." not in spec.topic]
"""Those of card batch jobs and the audit log: most flows need no others, and each costs the broker files."""

_GROUPS: Final[Mapping[str, tuple[Topic, ...]]] = {
    "watch": (Topic.BATCH_REQUESTED,),
    "process": (Topic.BATCH_REQUESTED,),
    "chunks": (Topic.BATCH_CHUNKS,),
    "upload": (Topic.BATCH_PROCESSED,),
    "confirm": (Topic.BATCH_UPLOADED, Topic.BATCH_FAILED),
    "audit": (Topic.BATCH_REQUESTED, Topic.AUDIT_EVENTS),
}
"""What each group reads; in the order of the flow, so that who comes later has nothing new to expect from before."""


class Flow:
    """A running flow.

    Attributes:
        folder: Everything of this flow: config, secrets, store, logs.
        config: The settings file.
        kafka: How to reach the flow's topics.
        processes: The running (or ended) processes by key: the stage's name unless started under another.
        offsets: What :meth:`caught_up` asks; None: something new each time.
    """

    def __init__(self, broker: Broker, folder: Path, sandbox: Sandbox, launch: Launch = launch_installed) -> None:
        prefix = f"t-{uuid.uuid4().hex[:12]}."
        self.folder = folder
        self.sandbox = sandbox
        self.config = folder / "pipeline.toml"
        self.store = folder / "store"
        self.kafka = KafkaSettings(
            bootstrap_servers=broker.bootstrap_servers,
            topic_prefix=prefix,
            group_prefix=prefix,
            replication_factor=1,
            ack_timeout_seconds=20.0,
        )
        self.processes: dict[str, FlowProcess] = {}
        self.offsets: Offsets | None = None
        self._launch = launch
        self._started = 0
        self._url = ""

    # processes

    async def start(self, name: str, *, key: str | None = None, launch: Launch | None = None) -> FlowProcess:
        """Start ``ingress`` or a stage and wait until it is ready. A restarted ingress has the address of the first."""
        process = self.launch(name, key=key, launch=launch)
        ready = await process.ready()
        if name == "ingress":
            self._url = ready["url"]
        return process

    def launch(self, name: str, *, key: str | None = None, launch: Launch | None = None) -> FlowProcess:
        """Start it without waiting; ``launch`` may start it in another way than the rest of the flow."""
        self._started += 1
        arguments = ["--config", str(self.config), *([name] if name == "ingress" else ["work", name])]
        extra: dict[str, str] = {}
        if name == "ingress" and self._url:
            extra["PIPELINE_INGRESS__PORT"] = self._url.rpartition(":")[2]
        base = self.folder / f"{self._started:02d}-{key or name}"
        process = FlowProcess(name, arguments, base, extra, launch or self._launch)
        self.processes[key or name] = process
        return process

    async def stop(self, *keys: str) -> None:
        """Stop these (default: all that run) in an orderly way; each must end with code 0."""
        running = [self.processes[key] for key in keys or self.processes if self.processes[key].code is None]
        codes = await asyncio.gather(*(process.stop() for process in running))
        assert set(codes) <= {0}, [(one.name, one.code, one.log[-2000:]) for one in running if one.code]

    def kill_all(self) -> None:
        """End what still runs."""
        for process in self.processes.values():
            process.kill()

    async def cli(self, *arguments: str) -> tuple[int, str]:
        """Run a command with the flow's settings; return its code and stdout."""
        return await run_cli("--config", str(self.config), *arguments)

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command as the flow starts its processes; return its code, and what it wrote to stdout and stderr."""
        self._started += 1
        base = self.folder / f"{self._started:02d}-command"
        process = FlowProcess("command", ["--config", str(self.config), *arguments], base, launch=self._launch)
        return await process.ended(), process.output, process.log

    # jobs

    async def send(self, **request: Any) -> Job:
        """Let ECS create a job (fields of ``JobRequest``) and announce it; return it once the ingress has answered."""
        return await self.sandbox.ecs.create(JobRequest(webhook_url=self.webhook_url, **request))

    @property
    def webhook_url(self) -> str:
        """Where ECS announces jobs."""
        return f"{self._url}/webhooks/ecs/{INTEGRATION}"

    @property
    def events_url(self) -> str:
        """What Weavr puts the paths of its events behind, where the settings know a Weavr of the same name."""
        return f"{self._url}/webhooks/weavr/{INTEGRATION}"

    async def notified(self, job: Job, seconds: float = 60.0) -> None:
        """Wait until ECS has accepted the job's callback."""
        assert await self.sandbox.ecs.wait_callback(job.guid, seconds), (
            f"not notified within {seconds} s:{self._logs()}"
        )

    async def caught_up(self, seconds: float = 60.0, *, groups: Iterable[str] = _GROUPS) -> None:
        """Wait until every group has committed all its topics hold: then nothing is left to happen."""
        async with AsyncExitStack() as stack:
            offsets = self.offsets
            if offsets is None:
                offsets = await stack.enter_async_context(Offsets(self.kafka))
            for group in groups:
                try:
                    await offsets.caught_up(group, _GROUPS[group], seconds)
                except TimeoutError:
                    raise AssertionError(f"{group} did not catch up within {seconds} s:{self._logs()}") from None

    def _logs(self) -> str:
        return "".join(f"\n--- {key} ({one.code})\n{one.log[-1500:]}" for key, one in self.processes.items())

    # what came of them

    def result(self, job: Job) -> bytes | None:
        """Return the result file at ECS."""
        stored = self.sandbox.store.disk.get(job.result_key)
        return stored.path.read_bytes() if stored else None

    def callbacks(self, job: Job) -> list[CallbackRecord]:
        """Return every callback of a job, as ECS got it."""
        return self.sandbox.ecs.desk.of_job(job.guid)

    def stored(self, job: Job) -> dict[str, bytes]:
        """Return what lies in the job store for a job: the names below its folder, with their content."""
        root = self.store / "jobs" / INTEGRATION / str(job.guid)
        return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}

    def markers(self, job: Job, *kinds: str) -> list[str]:
        """Return the markers of these kinds that name a job."""
        paths = [path for kind in kinds for path in (self.store / kind).rglob(f"{job.guid}.*")]
        return [str(path.relative_to(self.store)) for path in paths]

    async def records(self, topic: TopicName, job: Job | None = None) -> list[Record]:
        """Return all records of a topic, or those of one job."""
        key = f"{INTEGRATION}/{job.guid}" if job else None
        return [record async for record in read_topic(self.kafka, topic) if key in (None, record.key)]

    def audit_lines(self) -> list[dict[str, Any]]:
        """Return the event lines of the audit log, chain by chain."""
        paths = sorted((self.store / "audit").rglob("*.jsonl"))
        lines = [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]
        return [line for line in lines if line["kind"] == "event"]

    def audit_trail(self, job: Job) -> list[dict[str, Any]]:
        """Return a job's events of the audit log in the order of their times."""
        events = [line["event"] for line in self.audit_lines() if line["event"]["job_guid"] == str(job.guid)]
        return sorted(events, key=lambda event: datetime.fromisoformat(event["at"]))


@asynccontextmanager
async def running_flow(
    broker: Broker,
    folder: Path,
    *,
    start: Iterable[str] = EVERYTHING,
    processor: str = "validate",
    options: Mapping[str, JsonValue] | None = None,
    tables: Tables | None = None,
    integration: Tables | None = None,
    sandbox: Mapping[str, Any] | None = None,
    store: Mapping[str, JsonValue] | None = None,
    topics: Sequence[TopicSpec] = JOB_TOPICS,
    launch: Launch = launch_installed,
) -> AsyncIterator[Flow]:
    """Run a flow while the context lasts; at the end everything still running is killed.

    Args:
        broker: A running one (fixtures ``embedded_broker``, ``apache_kafka``).
        folder: Empty.
        start: What to start, all at once, and wait for.
        processor: Name of the processor.
        options: Its options.
        tables: Changes to tables of the settings, e.g. ``{"consumer": {"slots": 1}}``.
        integration: Changes to tables of the integration, e.g. ``{"limits": {"chunk_records": 10}}``.
        sandbox: Changes to the sandbox's settings.
        store: Where the job store is; by default in ``folder``.
        topics: What there is on Apache Kafka; the embedded broker has them all.
        launch: How processes are started; the fixture ``prefork`` makes it ten times cheaper.
    """
    sandbox_settings = SandboxSettings(data_dir=folder / "sandbox", port=0, **(sandbox or {}))
    async with Sandbox(sandbox_settings) as ecs:
        flow = Flow(broker, folder, ecs, launch)
        snippet = settings_snippet(
            ecs, INTEGRATION, folder=folder / "secrets", processor=processor, options=options, tables=integration
        )
        parts = parts_snippet(folder / "secrets")
        settings = _merged(_quick(flow), tables or {}) | ({"store": store} if store else {})
        flow.config.write_text(_toml(settings) + parts + "\n" + snippet.toml)
        if broker.kind == "apache":
            await make_topics(flow.kafka, topics)
        try:
            await asyncio.gather(*(flow.start(name) for name in start))
            yield flow
        finally:
            flow.kill_all()


def _quick(flow: Flow) -> Tables:
    """Return settings by which everything happens soon."""
    kafka = flow.kafka.model_dump(mode="json", exclude_unset=True)
    return {
        "kafka": kafka,
        "consumer": {
            "session_timeout_seconds": SESSION,
            "commit_interval_seconds": 0.1,
            "retry": {"first_seconds": 0.1, "max_seconds": 1.0},
            "batch_linger_seconds": 0.1,
            "stop_grace_seconds": 20.0,
        },
        "store": {"kind": "local", "path": str(flow.store)},
        "ingress": {"port": 0, "drain_seconds": 0.0},
        "management": {"port": 0},
        "logging": {"level": "info", "format": "json"},
        "watch": {"interval_seconds": 1.0},
        "parking": {"retry": {"first_seconds": 0.5, "max_seconds": 2.0}},
    }


def _merged(under: Tables, over: Tables) -> dict[str, Mapping[str, JsonValue]]:
    return {name: {**under.get(name, {}), **over.get(name, {})} for name in (*under, *(over.keys() - under.keys()))}


def _toml(tables: Tables) -> str:
    """Render settings."""
    blocks = []
    for name, values in tables.items():
        lines = (f"{key} = {toml_value(value)}" for key, value in values.items())
        blocks.append("\n".join((f"[{name}]", *lines, "")))
    return "\n".join(blocks)

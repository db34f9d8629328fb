"""Two integrations on one pipeline with two workers of PROCESS: one is in trouble, the other is timed.

::

    async with neighbours(broker, tmp_path, SLOW_PROCESSOR) as both:
        alone = await both.other_jobs(12)                     # seconds from the announcement to the accepted callback
        troubled = await both.trouble(30)                     # its jobs have been announced, and hold what they can
        beside = await both.other_jobs(12)

The settings name ``acme`` (in trouble) and ``other``; each has a sandbox of its own, so a host and faults of its own.
"""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue
from support.brokers import Broker
from support.flow import EVERYTHING, Flow, Tables, running_flow
from support.flow_process import Launch, launch_installed

from pipeline.sandbox import CardFile, Job, JobRequest, Sandbox, SandboxSettings, settings_snippet
from pipeline.sandbox.faults import Fault

OTHER: Final = "other"
CARDS: Final = 10
"""Of each job of the other integration."""

READ_TIMEOUT: Final = 3.0
"""A tenth of the default: times are scaled down, so that a test sees what an operator sees in minutes."""

_AT_ONCE: Final = 8
_SMALL_SPAN: Final = """
from pipeline.kafka import ConsumerSettings
ConsumerSettings.model_fields["max_span"].default = 5
ConsumerSettings.model_rebuild(force=True)
from pipeline.cli import main
main()
"""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with the integration ``acme``.

    Attributes:
        faults: Of its ECS and object store, for ever.
        processor: Name of its processor.
        options: Options of the processor.
        small_span: Whether a partition is paused after 5 unfinished records (by default 500), so that few jobs
            show what many do.
    """

    faults: tuple[Fault, ...] = ()
    processor: str = "validate"
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    small_span: bool = False


SILENT_HOST: Final = Trouble((Fault(target="input", kind="delay", seconds=3600.0, times=0),))
SLOW_PROCESSOR: Final = Trouble(processor="support.slow:Slow", options={"seconds": 5.0})
FAILING_STORAGE: Final = Trouble((Fault(target="input", kind="status", status=503, times=0),), small_span=True)


class Neighbours:
    """A running flow with both integrations.

    Attributes:
        flow: Its sandbox is that of ``acme``.
        other: The sandbox of the other integration.
    """

    def __init__(self, flow: Flow, other: Sandbox, trouble: Trouble) -> None:
        self.flow = flow
        self.other = other
        self._trouble = trouble

    async def trouble(self, jobs: int, **request: Any) -> list[Job]:
        """Begin the trouble and announce so many jobs of ``acme``."""
        for fault in self._trouble.faults:
            self.flow.sandbox.faults.add(fault)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def announce() -> Job:
            async with gate:
                return await self.flow.send(cards=CardFile(records=CARDS), **request)

        return await asyncio.gather(*(announce() for _ in range(jobs)))

    async def other_jobs(self, jobs: int, *, at_most: float) -> list[float]:
        """Announce jobs of the other integration; return how long each took, in seconds, shortest first.

        A job that is not done after ``at_most`` seconds counts as if it had been done then.
        """
        gate = asyncio.Semaphore(_AT_ONCE)
        loop = asyncio.get_running_loop()
        url = f"{self.flow.webhook_url.rpartition('/')[0]}/{OTHER}"

        async def timed() -> float:
            async with gate:
                begun = loop.time()
                job = await self.other.ecs.create(JobRequest(webhook_url=url, cards=CardFile(records=CARDS)))
            if not await self.other.ecs.wait_callback(job.guid, at_most):
                return at_most
            assert job.success, f"a job of {OTHER} failed"
            return loop.time() - begun

        return sorted(await asyncio.gather(*(timed() for _ in range(jobs))))


def percentile(seconds: Sequence[float], percent: float) -> float:
    """Return the value below or at which so many percent lie; the values are sorted."""
    return seconds[math.ceil(len(seconds) * percent / 100) - 1]


@asynccontextmanager
async def neighbours(
    broker: Broker, folder: Path, trouble: Trouble, *, launch: Launch = launch_installed, tables: Tables | None = None
) -> AsyncIterator[Neighbours]:
    """Run ingress and stages, two workers of PROCESS among them, for the integrations ``acme`` and ``other``."""
    async with Sandbox(SandboxSettings(data_dir=folder / "other-sandbox", port=0)) as other:
        snippet = settings_snippet(other, OTHER, folder=folder / "other-secrets")
        known: Tables = {
            "transfer": {"read_timeout_seconds": READ_TIMEOUT},
            **_flat(f"ecs.{OTHER}", tomllib.loads(snippet.toml)["ecs"][OTHER]),
        }
        async with running_flow(
            broker,
            folder,
            start=[name for name in EVERYTHING if name != "process"],
            processor=trouble.processor,
            options=trouble.options,
            integration={"processor": {"concurrency": 1}},
            tables={**known, **(tables or {})},
            launch=launch,
        ) as flow:
            start = launch_with_small_span if trouble.small_span else launch
            await asyncio.gather(*(flow.start("process", key=key, launch=start) for key in ("process", "second")))
            yield Neighbours(flow, other, trouble)


def launch_with_small_span(argv: Sequence[str], *, out: Path, err: Path, env: Mapping[str, str]) -> Any:
    """Start the CLI with a bound of 5 unfinished records a partition."""
    with out.open("wb") as stdout, err.open("wb") as stderr:
        command = [sys.executable, "-c", _SMALL_SPAN, *argv]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=dict(env))


def _flat(name: str, table: Mapping[str, Any]) -> dict[str, dict[str, JsonValue]]:
    """Return a table and the tables in it by their full names."""
    found: dict[str, dict[str, JsonValue]] = {name: {}}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= _flat(f"{name}.{key}", value)
        else:
            found[name][key] = value
    return found

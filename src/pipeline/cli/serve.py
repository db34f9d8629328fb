"""The servers: ``pipeline dev``, ``ingress`` and ``work ...``. Each prints one JSON line on stdout when ready."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

import click
import structlog
import uvloop

from pipeline.app import Ports, Ready, Supervision, run_dev, run_ingress, run_stage
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.output import print_json
from pipeline.observability import Redaction, configure_logging
from pipeline.settings import Settings
from pipeline.signals import stop_on_signals

_READY = """\b
Prints one line on stdout when it is ready:
  {{"ready": "{name}", "url": {url}, "management_url": "http://..."}}
Logs go to stderr. SIGTERM or SIGINT stops it in an orderly way, with exit code 0."""

_OBJECTS_PER_COLLECTION: Final = {"ingress": 10_000}
"""How many new objects start a run of the garbage collector, by process.

Python's default is 700. The requests in work hold more objects than that, so most runs would find nothing to free.
"""
_OBJECTS_OF_STAGES: Final = 700
"""The same for every other process. A stage holds chunks of files, so unused ones must be freed soon."""

log = structlog.get_logger(__name__)


class Server(Protocol):
    """A server that runs until ``stop`` is set."""

    def __call__(
        self, settings: Settings, *, on_ready: Callable[[Ready], None], stop: asyncio.Event, ports: Ports
    ) -> Coroutine[Any, Any, None]:
        """Return the coroutine that runs the server."""
        ...


@click.command(epilog=_READY.format(name="dev", url='"http://..."'))
@pass_setup
def dev(setup: Setup) -> None:
    """Run the ingress and all stages in one process, on an embedded broker.

    Only for trying and developing: the broker keeps records in memory, so accepted webhooks are lost when this process
    ends. It needs no [kafka] settings; all other settings apply.
    """
    _run(setup, run_dev, webhook_secrets=True)


@click.command(epilog=_READY.format(name="ingress", url='"http://..."'))
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    help="Number of processes that share the port, for a machine with cores to spare. A process that ends is "
    "replaced. Health and metrics cover all processes. Limits and rates in the settings apply to each process.",
)
@click.option("--supervised", type=(int, int, int), hidden=True, help="Number, channel and port, by the supervisor.")
@pass_setup
def ingress(setup: Setup, processes: int | None, supervised: tuple[int, int, int] | None) -> None:
    """Receive webhooks: verify, validate, publish, answer."""
    if supervised is not None:
        supervision = Supervision(*supervised)
        structlog.contextvars.bind_contextvars(process=supervision.number)
        # the supervisor prints one line on stdout for all its processes
        _run(
            setup,
            partial(run_ingress, supervision=supervision),
            webhook_secrets=True,
            on_ready=_collect_less,
        )
    elif processes is not None:
        _supervise(setup, processes)
    else:
        _run(setup, run_ingress, webhook_secrets=True)


def _supervise(setup: Setup, count: int) -> None:
    settings = _configured(setup, webhook_secrets=True)

    def command(given: Supervision) -> list[str]:
        config = ["--config", str(setup.path)] if setup.path else []
        numbers = (str(one) for one in (given.number, given.channel, given.port))
        # -P: as the installed command, it imports nothing from the working directory
        return [sys.executable, "-P", "-m", "pipeline.cli", *config, "ingress", "--supervised", *numbers]

    from pipeline.app import Supervisor  # noqa: PLC0415 - one process does without

    async def supervise() -> int:
        stop = asyncio.Event()
        with stop_on_signals(stop.set):
            return await Supervisor(settings, count, command).run(_print_ready, stop)

    code = asyncio.run(supervise())
    click.get_current_context().exit(code)


@click.group()
def work() -> None:
    """Run one stage; to scale it, run more processes, up to one per partition of its topic."""


@work.command(epilog=_READY.format(name="process", url="null"))
@pass_setup
def process(setup: Setup) -> None:
    """Download, split and process the cards of announced jobs."""
    _run_stage(setup, "process")


@work.command(epilog=_READY.format(name="upload", url="null"))
@pass_setup
def upload(setup: Setup) -> None:
    """Upload results and decide that their jobs are completed."""
    _run_stage(setup, "upload")


@work.command(epilog=_READY.format(name="confirm", url="null"))
@pass_setup
def confirm(setup: Setup) -> None:
    """Notify ECS of the outcome of each job, and fail jobs whose deadline passes."""
    _run_stage(setup, "confirm")


@work.command(epilog=_READY.format(name="audit", url="null"))
@pass_setup
def audit(setup: Setup) -> None:
    """Append every step of every job to the audit log."""
    _run_stage(setup, "audit")


def _run_stage(setup: Setup, name: str) -> None:
    _run(setup, partial(run_stage, name), webhook_secrets=False)


def _run(
    setup: Setup, server: Server, *, webhook_secrets: bool, on_ready: Callable[[Ready], None] | None = None
) -> None:
    settings = _configured(setup, webhook_secrets=webhook_secrets)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(server, settings, setup.ports, on_ready or _ready))


def _configured(setup: Setup, *, webhook_secrets: bool) -> Settings:
    """Return the settings, after configuring the logs from them."""
    warnings: list[str] = []
    settings = setup.settings(webhook_secrets=webhook_secrets, warn=warnings.append)
    configure_logging(settings.logging, Redaction(settings.secrets()))
    for warning in warnings:
        log.warning("settings_doubtful", detail=warning)
    return settings


async def _serve(server: Server, settings: Settings, ports: Ports, on_ready: Callable[[Ready], None]) -> None:
    stop = asyncio.Event()
    with stop_on_signals(stop.set):
        await server(settings, on_ready=on_ready, stop=stop, ports=ports)


def _ready(ready: Ready) -> None:
    _print_ready(ready)
    _collect_less(ready)


def _collect_less(ready: Ready) -> None:
    """Let the garbage collector skip the objects that exist now, because they live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_PER_COLLECTION.get(ready.name, _OBJECTS_OF_STAGES))


def _print_ready(ready: Ready) -> None:
    line = {"ready": ready.name, "url": ready.url, "management_url": ready.management_url}
    if ready.bootstrap_servers is not None:
        line["bootstrap_servers"] = ready.bootstrap_servers
    print_json(line)

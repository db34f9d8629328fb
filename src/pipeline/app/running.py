"""Runs a process from start to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, TypeVar

import structlog

from pipeline.app.clock import ComparingPublisher
from pipeline.app.parts import Part, Shared, run_parts
from pipeline.app.ports import PORTS, ConnectedPublisher, Ports
from pipeline.app.supervised import SupervisedChecks, Supervision
from pipeline.app.topics import TopicWatch, topics_of
from pipeline.errors import FatalError, TransientError
from pipeline.kafka import ConsumerSettings, KafkaSettings
from pipeline.kafka.embedded import EmbeddedBroker
from pipeline.observability import CheckedClock, Health, Metrics, Redaction, configure_logging, watch_loop_lag
from pipeline.observability.management import ManagementServer
from pipeline.outbound import Circuits
from pipeline.settings import Settings
from pipeline.settings.agreement import shared_store_problems
from pipeline.storage import MeteredStore, ObjectStore

log = structlog.get_logger(__name__)

STAGES: Final = ("process", "upload", "confirm", "audit")
"""The stages that ``pipeline work`` runs, one process each."""

_STORE_RETRY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A server has started.

    Attributes:
        name: ``ingress``, a stage, or ``dev``.
        url: The URL for webhooks; None for stages.
        management_url: The URL of health and metrics.
        bootstrap_servers: The embedded broker of ``dev``, for commands that read topics; otherwise None.
    """

    name: str
    url: str | None
    management_url: str
    bootstrap_servers: str | None = None


SharedT = TypeVar("SharedT", bound=Shared)
OnReady = Callable[[Ready], None]


async def run_ingress(
    settings: Settings,
    *,
    on_ready: OnReady,
    stop: asyncio.Event,
    ports: Ports = PORTS,
    supervision: Supervision | None = None,
) -> None:
    """Receive webhooks until ``stop`` is set.

    Args:
        settings: The loaded settings.
        on_ready: Called once it has started.
        stop: Set when the process is to stop.
        ports: Connections to the outside world.
        supervision: Data from the supervisor, if several processes share a port.

    Raises:
        FatalError: The process cannot do its work.
    """
    from pipeline.app.ingress import make_ingress  # noqa: PLC0415 - a worker does without

    async def make(shared: Shared) -> list[Part]:
        return [make_ingress(shared, shares_port=supervision is not None)]

    if supervision is not None:
        ingress = settings.ingress.model_copy(update={"port": supervision.port})
        settings = settings.model_copy(update={"ingress": ingress})
    await _run(
        "ingress",
        settings,
        settings.cluster,
        settings.consumer.for_consumer(),
        Shared,
        make,
        on_ready=on_ready,
        stop=stop,
        ports=ports,
        supervision=supervision,
    )


async def run_stage(
    name: str, settings: Settings, *, on_ready: OnReady, stop: asyncio.Event, ports: Ports = PORTS
) -> None:
    """Run one of :data:`STAGES` until ``stop`` is set.

    Raises:
        FatalError: The process cannot do its work.
    """
    from pipeline.app.assembly import STAGE_MAKERS, ProcessContext  # noqa: PLC0415 - the ingress does without

    for problem in shared_store_problems(settings):
        raise FatalError("store_not_shared", f"The stages need one store for all their hosts. {problem}")

    async def make(shared: ProcessContext) -> list[Part]:
        return [await STAGE_MAKERS[name](shared)]

    await _run(
        name,
        settings,
        settings.cluster,
        settings.consumer.for_consumer(),
        ProcessContext,
        make,
        on_ready=on_ready,
        stop=stop,
        ports=ports,
    )


async def run_dev(settings: Settings, *, on_ready: OnReady, stop: asyncio.Event, ports: Ports = PORTS) -> None:
    """Run everything in this process on an embedded broker until ``stop`` is set.

    A 2xx here does not mean that the record is durable. The broker keeps up to 5 MB of records per partition in memory,
    and then drops the oldest. Consumers log gaps as ``records_lost``.

    Raises:
        FatalError: A part cannot do its work.
    """
    from pipeline.app.assembly import STAGE_MAKERS, ProcessContext  # noqa: PLC0415 - as above
    from pipeline.app.ingress import make_ingress  # noqa: PLC0415 - as above

    async def make(shared: ProcessContext) -> list[Part]:
        log.warning("embedded_broker_used", kept="in memory only: an accepted webhook is lost when this process ends")
        return [make_ingress(shared), *[await make_stage(shared) for make_stage in STAGE_MAKERS.values()]]

    with EmbeddedBroker() as broker:
        base = settings.kafka or KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        kafka = base.model_copy(
            update={"bootstrap_servers": broker.bootstrap_servers, "tls": None, "sasl": None, "security_protocol": None}
        )
        # no proxy in front of this ingress needs time to notice the stop
        ingress = settings.ingress.model_copy(update={"drain_seconds": 0.0})
        # this broker delays each answer for the whole wait time, even if there are records
        consumer = settings.consumer.for_consumer().model_copy(
            update={"lost_records": "report", "fetch_wait_seconds": 0.02, "batch_linger_seconds": 0.2}
        )
        settings = settings.model_copy(update={"ingress": ingress})
        await _run("dev", settings, kafka, consumer, ProcessContext, make, on_ready=on_ready, stop=stop, ports=ports)


async def _run(  # noqa: PLR0917 - named by their order in each of three calls
    name: str,
    settings: Settings,
    kafka: KafkaSettings,
    consumer: ConsumerSettings,
    kind: type[SharedT],
    make: Callable[[SharedT], Awaitable[list[Part]]],
    *,
    on_ready: OnReady,
    stop: asyncio.Event,
    ports: Ports,
    supervision: Supervision | None = None,
) -> None:
    redaction = Redaction(settings.secrets())
    configure_logging(settings.logging, redaction)
    metrics = Metrics(version=version("card-pipeline"))
    begun = asyncio.Event()
    management: ManagementServer | SupervisedChecks = (
        SupervisedChecks(supervision.channel, metrics.registry, stop)
        if supervision
        else ManagementServer(settings.management, metrics.registry)
    )
    async with AsyncExitStack() as stack, management:
        # added first: without any check, a probe would report a process without parts as ready
        management.add_readiness("start", lambda: _begun(begun))
        objects = await stack.enter_async_context(_store(settings, metrics, ports))
        clock = CheckedClock(ports.now, metrics.clock_offset_seconds)
        connected = await stack.enter_async_context(
            ports.publisher(kafka, client_id=f"card-pipeline-{name}", metrics=metrics)
        )
        publisher = ComparingPublisher(connected, clock)
        management.add_readiness("kafka", lambda: _connected(publisher))
        shared = kind(
            settings,
            kafka,
            consumer,
            publisher,
            objects,
            metrics,
            redaction.add,
            stack,
            clock,
            ports,
            Circuits(metrics),
        )
        parts = await make(shared)
        if name != "dev":  # its broker creates topics on first use
            parts.append(TopicWatch(kafka, topics_of(name, settings), metrics))
        embedded = kafka.bootstrap_servers if name == "dev" else None
        for part in parts:
            for check, health in part.checks.items():
                management.add_readiness(check, health)
            for alarm, health in part.alarms.items():
                management.add_alarm(alarm, health)
        if name == "ingress":
            # only an alarm: it decides nothing by the time, and without it no webhook would be received
            management.add_alarm("clock", clock.check)
        else:
            management.add_readiness("clock", clock.check)
            management.add_readiness("store", lambda: _usable(objects))
            await _await_store(objects, stop)
        for part in parts:  # only now: before the store is available no loop runs, and a restart would not help
            management.add_liveness(part.name, part.alive)

        def started() -> None:
            begun.set()
            on_ready(Ready(name, _url(parts), management.url, embedded))

        lag = asyncio.create_task(watch_loop_lag(metrics.loop_lag_seconds))
        try:
            await run_parts(parts, stop, started)
        finally:
            lag.cancel()
            await asyncio.wait([lag])


def _begun(event: asyncio.Event) -> Health:
    return Health(ok=event.is_set(), message="started" if event.is_set() else "not started yet")


def _connected(publisher: ConnectedPublisher) -> Health:
    problem = publisher.problem
    return Health(ok=problem is None, message="connected" if problem is None else str(problem))


def _usable(store: MeteredStore) -> Health:
    problem = store.problem
    return Health(ok=problem is None, message="usable" if problem is None else str(problem))


def _url(parts: Sequence[Part]) -> str | None:
    return next((part.url for part in parts if part.url), None)


@asynccontextmanager
async def _store(settings: Settings, metrics: Metrics, ports: Ports) -> AsyncIterator[MeteredStore]:
    objects = MeteredStore(ports.store(settings.store), metrics.store_op_seconds)
    try:
        yield objects
    finally:
        await objects.close()


async def _await_store(objects: ObjectStore, stop: asyncio.Event) -> None:
    """Wait until the store can be used; raise FatalError if it lacks a feature, but not if it is unavailable."""
    while not stop.is_set():
        try:
            await objects.check()
        except TransientError as error:
            log.warning("store_awaited", code=error.code, message=error.message)
            try:
                await asyncio.wait_for(stop.wait(), _STORE_RETRY_SECONDS)
            except TimeoutError:
                continue
        return

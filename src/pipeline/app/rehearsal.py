"""Finds what a start would refuse: builds all that the processes build from their settings, but never connects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from typing import Any, Final

from pipeline.app.assembly import audit_signer
from pipeline.app.ports import PORTS, Ports
from pipeline.app.sources import open_webhooks
from pipeline.errors import FatalError
from pipeline.kafka.client.connection import connection_options
from pipeline.observability import CheckedClock, Metrics
from pipeline.outbound import Circuits, tls_context
from pipeline.settings import ConfigError, JobIntegration, Settings

_TABLES: Final = ("ecs", "weavr", "webhooks")
"""Tables of sources of webhooks."""
_SHARED_CODES: Final = frozenset({"ca_file_unreadable"})
"""Errors about settings that do not belong to one integration. Their text names the setting."""


async def rehearse(settings: Settings, ports: Ports = PORTS, *, offline: bool = False) -> tuple[str, ...]:
    """Return what a start would refuse, one line each. It uses the code of the start itself.

    Args:
        settings: The loaded settings.
        ports: The ports of the processes.
        offline: Whether to skip checks that need a file.
    """
    problems = [line for one in _alone(settings) for line in _webhook(one, ports, secrets=not offline)]
    if not offline:
        problems += [line async for line in _shared(settings, ports)]
        for integration in settings.job_integrations().values():
            problems += [line async for line in _connections(settings, integration, ports)]
    return tuple(dict.fromkeys(problems))


def _alone(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Yield each source's table with settings of only this source, so that a refusal can be assigned to it."""
    for table in _TABLES:
        for name, source in getattr(settings, table).items():
            update: dict[str, Any] = {other: {} for other in _TABLES}
            yield f"{table}.{name}", settings.model_copy(update=update | {table: {name: source}})


def _webhook(one: tuple[str, Settings], ports: Ports, *, secrets: bool) -> Iterator[str]:
    key, alone = one
    try:
        open_webhooks(alone, secrets=secrets, clock=ports.now)
    except FatalError as error:
        yield from _lines(error, key)


async def _shared(settings: Settings, ports: Ports) -> AsyncIterator[str]:
    """Yield the reasons that keep every process, or AUDIT, from starting."""
    try:
        if settings.kafka is not None:
            await asyncio.to_thread(connection_options, settings.kafka, client_id="check")
    except FatalError as error:
        yield error.message
    try:
        tls_context(settings.network)
    except FatalError as error:
        yield error.message
    try:
        await ports.store(settings.store).close()
    except FatalError as error:
        yield error.message
    try:
        audit_signer(settings.audit)
    except FatalError as error:
        yield f"audit.signing_key: {error.message}"


async def _connections(settings: Settings, integration: JobIntegration, ports: Ports) -> AsyncIterator[str]:
    """Yield the reasons that keep the stages from opening the transfers and notifications of one integration."""
    metrics = Metrics(version=version("card-pipeline"))
    clock = CheckedClock(ports.now, metrics.clock_offset_seconds)
    try:
        async with (
            ports.transfers(settings, integration, clock=ports.now, metrics=metrics, circuits=Circuits(metrics)),
            ports.notifications(
                settings,
                integration,
                clock=clock,
                metrics=metrics,
                remember=lambda _secret: None,
                resume=_resume_nothing,
            ),
        ):
            return
    except FatalError as error:
        for line in _lines(error, integration.key):
            yield line


async def _resume_nothing(code: str | None = None) -> None:
    """Do nothing: no callbacks are sent here."""
    del code


def _lines(error: FatalError, key: str) -> Iterator[str]:
    """Yield the lines of an error. Lines about one table begin with its key."""
    if isinstance(error, ConfigError):
        yield from error.problems
    elif error.code in _SHARED_CODES:
        yield error.message
    else:
        yield f"{key}: {error.message}"

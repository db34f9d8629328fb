"""What only a look at all settings together, or beyond them, can find: for ``pipeline config check``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from pipeline.errors import FatalError
from pipeline.jobs.processors import load
from pipeline.settings.integration import EcsIntegration
from pipeline.settings.model import Settings
from pipeline.settings.retention import retention_problems
from pipeline.settings.shape import Loc, dotted
from pipeline.settings.source_review import source_warnings


@dataclass(frozen=True, slots=True)
class Review:
    """What was found, one line each.

    Attributes:
        problems: Must be mended.
        warnings: May be meant so.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def review(settings: Settings, *, now: datetime | None = None) -> Review:
    """Compare retention times and bounds, construct every processor, and look whether files are there, and keys count.

    Args:
        settings: As loaded.
        now: When keys must count (aware); by default now.
    """
    problems = list(retention_problems(settings.retention, settings.audit))
    warnings: list[str] = []
    if settings.kafka is None:
        warnings.append("kafka: is missing; only `pipeline dev` and `pipeline cards run` work without it")
    if not settings.ecs and not settings.weavr and not settings.webhooks:
        warnings.append("ecs: no integration is configured; run: pipeline integration new ecs NAME")
    for integration in settings.ecs.values():
        problems += _processor(integration)
        warnings += _hosts(integration)
    warnings += source_warnings(settings, now or datetime.now(UTC))
    warnings += _mismatched(settings)
    warnings += _absent(settings)
    return Review(tuple(problems), tuple(warnings))


def _processor(integration: EcsIntegration) -> list[str]:
    try:
        load(integration.processor)
    except FatalError as error:
        return [f"ecs.{integration.name}.processor: {error.message}"]
    return []


def _hosts(integration: EcsIntegration) -> Iterator[str]:
    for purpose in ("input", "result", "callback"):
        if not getattr(integration.hosts, purpose):
            yield (
                f"ecs.{integration.name}.hosts.{purpose}: is empty, so every announcement is refused; "
                f'write e.g. {purpose} = ["files.example.com"]'
            )


def _mismatched(settings: Settings) -> Iterator[str]:
    """Yield one line for every bound that another setting, of another room, makes useless."""
    ingress, interval = settings.ingress, settings.watch.interval_seconds
    if ingress.stop_grace_seconds <= ingress.deadline_seconds:
        yield (
            f"ingress.stop_grace_seconds: {ingress.stop_grace_seconds:g} is not longer than deadline_seconds "
            f"({ingress.deadline_seconds:g}), so a stop cuts requests that could still be answered"
        )
    if settings.kafka is not None and ingress.max_body_bytes >= settings.kafka.max_record_bytes:
        yield (
            f"ingress.max_body_bytes: {ingress.max_body_bytes} is not less than kafka.max_record_bytes "
            f"({settings.kafka.max_record_bytes}), so bodies are read that no record can hold"
        )
    for name, integration in settings.ecs.items():
        margin = integration.limits.deadline_margin_seconds
        if interval >= margin:
            yield (
                f"ecs.{name}.limits.deadline_margin_seconds: {margin:g} is not longer than watch.interval_seconds "
                f"({interval:g}), so a failure may be told after the URLs expired"
            )


def _absent(value: object, loc: Loc = ()) -> Iterator[str]:
    """Yield one line for every file that a room will open by itself and that is not there."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _absent(getattr(value, name), (*loc, name))
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _absent(inner, (*loc, name))
    elif isinstance(value, Path) and str(loc[-1]).endswith("_file") and not value.exists():
        yield f"{dotted(loc)}: there is no file {value} yet"

"""What only a look at all settings together, or beyond them, can find: for ``pipeline config check``."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import FatalError
from pipeline.processors import load
from pipeline.settings.integration import EcsIntegration
from pipeline.settings.model import Settings
from pipeline.settings.retention import retention_problems


@dataclass(frozen=True, slots=True)
class Review:
    """What was found, one line each.

    Attributes:
        problems: Must be mended.
        warnings: May be meant so.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def review(settings: Settings) -> Review:
    """Compare retention times, construct every processor, and look whether token files are there."""
    problems = list(retention_problems(settings.retention, settings.audit))
    warnings: list[str] = []
    if settings.kafka is None:
        warnings.append("kafka: is missing; only `pipeline dev` and `pipeline cards run` work without it")
    if not settings.ecs:
        warnings.append("ecs: no integration is configured; run: pipeline integration new ecs NAME")
    for integration in settings.ecs.values():
        problems += _processor(integration)
        warnings += _integration(integration)
    return Review(tuple(problems), tuple(warnings))


def _processor(integration: EcsIntegration) -> list[str]:
    try:
        load(integration.processor)
    except FatalError as error:
        return [f"ecs.{integration.name}.processor: {error.message}"]
    return []


def _integration(integration: EcsIntegration) -> list[str]:
    where = f"ecs.{integration.name}"
    found = [
        f"{where}.hosts.{purpose}: is empty, so every announcement is refused; "
        f'write e.g. {purpose} = ["files.example.com"]'
        for purpose in ("input", "result", "callback")
        if not getattr(integration.hosts, purpose)
    ]
    token = integration.callback.token_file
    if token is not None and not token.exists():
        found.append(f"{where}.callback.token_file: there is no file {token}; put the bearer token from ECS there")
    return found

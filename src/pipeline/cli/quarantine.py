"""``pipeline quarantine``: announcements that were authentic but invalid; let them go after a fix."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from pipeline.audit import record_of
from pipeline.bus import KafkaPublisher, Publisher, read_topic
from pipeline.cli.actor import actor
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode
from pipeline.cli.job_view import NotFound
from pipeline.cli.output import json_option, print_json, print_table
from pipeline.contracts import Topic
from pipeline.errors import PoisonRecord
from pipeline.ingress.quarantine import Quarantined, findings_now, read_quarantined, shown
from pipeline.ingress.quarantine import release as released
from pipeline.providers import EcsProvider
from pipeline.settings import EcsIntegration, Settings

_COLUMNS = ("id", "integration", "at", "reasons", "now")


@click.group()
def quarantine() -> None:
    """Look at announcements that were refused with 422, and release them after a fix. Values are shown masked."""


@quarantine.command("list", epilog="Example: pipeline quarantine list --json | jq 'select(.now == \"valid\") | .id'")
@json_option
@pass_setup
def list_items(setup: Setup, *, as_json: bool) -> None:
    """Print what is in quarantine, and whether it is valid by the present settings. With --json one per line."""
    settings = setup.settings()
    items = asyncio.run(_read(settings))
    rows = [_listed(item, settings.ecs) for item in items]
    if as_json:
        for row in rows:
            print_json(row)
        return
    print_table(
        _COLUMNS, [[", ".join(row[name]) if name == "reasons" else row[name] for name in _COLUMNS] for row in rows]
    )


@quarantine.command(epilog="Example: pipeline quarantine show 0f3c...")
@click.argument("item_id", metavar="ID")
@pass_setup
def show(setup: Setup, *, item_id: str) -> None:
    """Print one announcement, masked, with what is wrong with it by the present settings. Always JSON."""
    settings = setup.settings()
    item = _find(asyncio.run(_read(settings)), item_id)
    print_json(shown(item) | {"now": _now(item, settings.ecs), "findings": _findings(item, settings.ecs)})


@quarantine.command(epilog="Example: pipeline quarantine release 0f3c... 77ab...")
@click.argument("item_ids", metavar="ID...", nargs=-1, required=True)
@json_option
@pass_setup
@click.pass_context
def release(ctx: click.Context, setup: Setup, *, item_ids: tuple[str, ...], as_json: bool) -> None:
    """Validate again, and publish what is valid now as if it had been accepted. May be repeated.

    Exit 1 if one of them is still invalid; the others are released.
    """
    settings = setup.settings()
    items = asyncio.run(_read(settings))
    chosen = [_find(items, item_id) for item_id in item_ids]
    valid = [item for item in chosen if _now(item, settings.ecs) == "valid"]
    asyncio.run(_release(settings, valid))
    for item in chosen:
        done = item in valid
        if as_json:
            print_json({"id": item.id, "released": done, "findings": _findings(item, settings.ecs)})
        else:
            click.echo(f"{item.id}: {'released' if done else 'still invalid, see `pipeline quarantine show`'}")
    ctx.exit(ExitCode.OK if len(valid) == len(chosen) else ExitCode.FINDING)


async def let_go(
    items: Sequence[Quarantined], integrations: Mapping[str, EcsIntegration], publisher: Publisher
) -> None:
    """Publish each announcement, and that it was released."""
    for item in items:
        provider = _provider(item, integrations)
        if provider is not None:
            both = released(item, provider, now=datetime.now(UTC), actor=actor())
            await publisher.publish(both.record)
            await publisher.publish(record_of(both.event))


async def _release(settings: Settings, items: Sequence[Quarantined]) -> None:
    if items:
        async with KafkaPublisher(settings.cluster, client_id="card-pipeline-cli") as publisher:
            await let_go(items, settings.ecs, publisher)


async def _read(settings: Settings) -> list[Quarantined]:
    """Return what is in quarantine, each body once."""
    items: dict[str, Quarantined] = {}
    async for record in read_topic(settings.cluster, Topic.BATCH_QUARANTINE):
        try:
            item = read_quarantined(record)
        except PoisonRecord as error:
            click.echo(f"warning: partition {record.partition}, offset {record.offset}: {error.message}", err=True)
        else:
            items[item.id] = item
    return list(items.values())


def _find(items: Sequence[Quarantined], item_id: str) -> Quarantined:
    found = [item for item in items if item.id.startswith(item_id)]
    if len(found) != 1:
        what = "nothing" if not found else f"{len(found)} announcements"
        raise NotFound("quarantine_unknown", f"{what} with an id that begins with {item_id!r} in quarantine")
    return found[0]


def _provider(item: Quarantined, integrations: Mapping[str, EcsIntegration]) -> EcsProvider | None:
    integration = integrations.get(item.integration)
    return EcsProvider(integration.name, integration.hosts, integration.success_status) if integration else None


def _findings(item: Quarantined, integrations: Mapping[str, EcsIntegration]) -> list[dict[str, Any]]:
    provider = _provider(item, integrations)
    found = findings_now(item, provider) if provider else ()
    return [{"field": one.field, "rule": one.rule, "remedy": one.remedy} for one in found]


def _now(item: Quarantined, integrations: Mapping[str, EcsIntegration]) -> str:
    provider = _provider(item, integrations)
    if provider is None:
        return "integration unknown"
    return "invalid" if findings_now(item, provider) else "valid"


def _listed(item: Quarantined, integrations: Mapping[str, EcsIntegration]) -> dict[str, Any]:
    return {
        "id": item.id,
        "integration": item.integration,
        "at": item.at.isoformat(),
        "reasons": list(item.reasons),
        "now": _now(item, integrations),
    }

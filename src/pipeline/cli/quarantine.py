"""``pipeline quarantine``: what was authentic but did not fit; let it go after a fix."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from pipeline.audit import record_of
from pipeline.bus import KafkaPublisher, Publisher
from pipeline.cli.actor import actor
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.output import json_option, print_json, print_table
from pipeline.cli.quarantine_items import Sources, document, find, in_order, lateness, listed, read_all, told
from pipeline.ingress.quarantine import Quarantined
from pipeline.ingress.quarantine import release as released
from pipeline.settings import Settings

_COLUMNS = ("id", "integration", "topic", "at", "reasons", "now")


@click.group()
def quarantine() -> None:
    """Look at webhooks that were authentic but did not fit, and release them after a fix. Values are shown masked.

    ECS's announcements were refused with 422. Events of Weavr and of configured sources were answered with success:
    nobody sends them again, so what is not released within the topic's retention is lost.
    """


@quarantine.command("list", epilog="Example: pipeline quarantine list --json | jq 'select(.now == \"valid\") | .id'")
@click.option("--integration", metavar="NAME", help="Only what came in by this integration or source.")
@json_option
@pass_setup
def list_items(setup: Setup, *, integration: str | None, as_json: bool) -> None:
    """Print what is in quarantine, and whether it fits by the present settings. With --json one per line."""
    settings = setup.settings()
    sources = Sources(settings)
    items = [item for item in asyncio.run(read_all(settings)) if integration in (None, item.integration)]
    rows = [listed(item, sources) for item in items]
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
    """Print one webhook, masked, with what is wrong with it by the present settings. Always JSON."""
    settings = setup.settings()
    print_json(document(find(asyncio.run(read_all(settings)), item_id), Sources(settings)))


@quarantine.command(
    epilog="""\b
Examples:
  pipeline quarantine release 0f3c... 77ab...
  pipeline quarantine release --all --integration acme"""
)
@click.argument("item_ids", metavar="[ID...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that fits by now, of the integration that is named.")
@click.option("--integration", metavar="NAME", help="The integration or source of --all.")
@json_option
@pass_setup
@click.pass_context
def release(
    ctx: click.Context,
    setup: Setup,
    *,
    item_ids: tuple[str, ...],
    everything: bool,
    integration: str | None,
    as_json: bool,
) -> None:
    """Look again, and publish what fits by now as if it had been accepted. May be repeated.

    Whatever the order of the IDs: each integration's are published in the order in which they came. They come after
    all that was accepted meanwhile. Exit 1 if one of them still does not fit; the others are released.
    """
    if bool(item_ids) == everything or everything != (integration is not None):
        raise UsageRefused("release_what", "name IDs, or --all with --integration NAME")
    settings = setup.settings()
    sources = Sources(settings)
    items = asyncio.run(read_all(settings))
    chosen = list(dict.fromkeys(find(items, item_id) for item_id in item_ids))
    if everything:
        chosen = in_order([item for item in items if item.integration == integration])
    fitting = [item for item in in_order(chosen) if sources.now(item) == "valid"]
    now = datetime.now(UTC)
    asyncio.run(_release(settings, fitting, sources, now))
    done = {item.id for item in fitting}
    for item in chosen:
        _tell(item, sources, now, done=item.id in done, as_json=as_json)
    ctx.exit(ExitCode.OK if len(fitting) == len(chosen) else ExitCode.FINDING)


def _tell(item: Quarantined, sources: Sources, now: datetime, *, done: bool, as_json: bool) -> None:
    late = lateness(item, sources, now) if done else None
    if as_json:
        findings = told(sources.findings(item))
        print_json({"id": item.id, "released": done, "late": late is not None, "findings": findings})
        return
    text = "released" if done else "still invalid, see `pipeline quarantine show`"
    click.echo(f"{item.id}: {text}{f' ({late})' if late else ''}")


async def _release(settings: Settings, items: Sequence[Quarantined], sources: Sources, now: datetime) -> None:
    if items:
        async with KafkaPublisher(settings.cluster, client_id="card-pipeline-cli") as publisher:
            for item in items:
                await _let_go(item, sources, publisher, now)


async def _let_go(item: Quarantined, sources: Sources, publisher: Publisher, now: datetime) -> None:
    """Publish a delivery, wait until it is durable, and tell the audit log: the next one comes after it."""
    source = sources.of(item)
    if source is not None:
        both = released(item, source.provider, now=now, actor=actor())
        await publisher.publish(both.record)
        await publisher.publish(record_of(both.event))

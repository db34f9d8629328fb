"""``pipeline quarantine``: what was authentic but did not fit; let it go after a fix."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import click

from pipeline.cli.actor import actor
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.output import json_option, print_json, print_line, print_table
from pipeline.cli.quarantine_items import Sources, document, each, find, in_order, lateness, listed, read_all, told
from pipeline.contracts import audit_record
from pipeline.kafka import Publisher
from pipeline.webhooks.quarantine import Quarantined
from pipeline.webhooks.quarantine import release as released

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
    letting_go = _LettingGo(setup, as_json=as_json)
    done = letting_go.all_of(integration) if integration else letting_go.some(item_ids)
    ctx.exit(ExitCode.OK if asyncio.run(done) else ExitCode.FINDING)


class _LettingGo:
    """Publishes what fits by now, one after another, and says what became of each."""

    def __init__(self, setup: Setup, *, as_json: bool) -> None:
        self._settings = setup.settings()
        self._ports = setup.ports
        self._sources = Sources(self._settings)
        self._now = datetime.now(UTC)
        self._as_json = as_json

    async def some(self, item_ids: Sequence[str]) -> bool:
        """Release those with the given ids, tell in the given order; return whether all of them fit."""
        items = await read_all(self._settings)
        chosen = list(dict.fromkeys(find(items, item_id) for item_id in item_ids))
        fitting = [item for item in in_order(chosen) if self._fits(item)]
        if fitting:
            async with self._publisher() as publisher:
                for item in fitting:
                    await self._publish(item, publisher)
        done = {item.id for item in fitting}
        for item in chosen:
            self._tell(item, done=item.id in done)
        return len(fitting) == len(chosen)

    async def all_of(self, integration: str) -> bool:
        """Release all of an integration, telling as it goes: there may be more than memory holds."""
        complete = True
        async with self._publisher() as publisher:
            async for item in each(self._settings, integration):
                fits = self._fits(item)
                if fits:
                    await self._publish(item, publisher)
                self._tell(item, done=fits)
                complete = complete and fits
        return complete

    def _publisher(self) -> AbstractAsyncContextManager[Publisher]:
        return self._ports.publisher(self._settings.cluster, client_id="card-pipeline-cli")

    def _fits(self, item: Quarantined) -> bool:
        return self._sources.now(item) == "valid"

    async def _publish(self, item: Quarantined, publisher: Publisher) -> None:
        """Publish a delivery, wait until it is durable, and tell the audit log: the next one comes after it."""
        source = self._sources.of(item)
        if source is not None:
            both = released(item, source.provider, now=self._now, actor=actor())
            await publisher.publish(both.record)
            await publisher.publish(audit_record(both.event))

    def _tell(self, item: Quarantined, *, done: bool) -> None:
        late = lateness(item, self._sources, self._now) if done else None
        if self._as_json:
            findings = [] if done else told(self._sources.findings(item))
            print_json({"id": item.id, "released": done, "late": late is not None, "findings": findings})
            return
        text = "released" if done else "still invalid, see `pipeline quarantine show`"
        print_line(f"{item.id}: {text}{f' ({late})' if late else ''}")

"""``pipeline quarantine``: show requests that were authentic but invalid, and release them after a fix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
from pydantic import JsonValue

from pipeline.app import open_webhooks
from pipeline.cli.context import Setup, actor, pass_setup
from pipeline.cli.event_view import masked_body
from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.job_view import NotFound
from pipeline.cli.kept_records import find_kept, read_kept
from pipeline.cli.output import json_option, print_json, print_line, print_table
from pipeline.contracts import SPECS, Record, Topic, audit_record
from pipeline.contracts.strict_json import Finding
from pipeline.contracts.weavr import BY_PATH
from pipeline.kafka import Publisher
from pipeline.settings import Settings
from pipeline.webhooks.quarantine import Quarantined, findings_now, read_quarantined, shown
from pipeline.webhooks.quarantine import release as released
from pipeline.webhooks.webhook import Webhook

_COLUMNS = ("id", "integration", "topic", "at", "reasons", "now")

_TABLES: Final[dict[Topic, str]] = {
    Topic.BATCH_QUARANTINE: "ecs",
    Topic.EVENTS_QUARANTINE: "weavr",
    Topic.EVENTS_STEPUP_QUARANTINE: "weavr",
    Topic.WEBHOOK_QUARANTINE: "webhooks",
}
"""Each quarantine topic, with the settings table of the webhooks that use it."""


@click.group()
def quarantine() -> None:
    """Look at webhooks that were authentic but invalid, and release them after a fix. Values are shown masked.

    The ingress refused ECS's announcements with 422. It accepted events of Weavr and of configured sources, so their
    senders do not repeat them: release them before the topic's retention time ends, or they are lost.
    """


@quarantine.command("list", epilog="Example: pipeline quarantine list --json | jq 'select(.now == \"valid\") | .id'")
@click.option("--integration", metavar="NAME", help="Only webhooks of this integration or source.")
@json_option
@pass_setup
def list_items(setup: Setup, *, integration: str | None, as_json: bool) -> None:
    """Print the webhooks in quarantine, and whether they are valid by now. With --json, one per line."""
    settings = setup.settings()
    webhooks = _Webhooks(settings)
    items = [item for item in asyncio.run(_read_all(settings)) if integration in (None, item.integration)]
    rows = [_row(item, webhooks) for item in items]
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
    """Print one webhook, masked, and why it is invalid under the current settings. Always JSON."""
    settings = setup.settings()
    print_json(_document(_find(asyncio.run(_read_all(settings)), item_id), _Webhooks(settings)))


@quarantine.command(
    epilog="""\b
Examples:
  pipeline quarantine release 0f3c... 77ab...
  pipeline quarantine release --all --integration acme"""
)
@click.argument("item_ids", metavar="[ID...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All webhooks of --integration that are valid now.")
@click.option("--integration", metavar="NAME", help="With --all: the integration or source.")
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
    """Check webhooks again, and publish those that are valid now as if they had been accepted. Safe to repeat.

    The order of the IDs does not matter: the command publishes each integration's webhooks in the order of arrival,
    after all webhooks that were accepted since. Exit 1 if one is still invalid; the others are released.
    """
    if bool(item_ids) == everything or everything != (integration is not None):
        raise UsageRefused("release_what", "name IDs, or --all with --integration NAME")
    releasing = _Releasing(setup, as_json=as_json)
    done = releasing.all_of(integration) if integration else releasing.some(item_ids)
    ctx.exit(ExitCode.OK if asyncio.run(done) else ExitCode.FINDING)


class _Webhooks:
    """Finds the webhook of the current settings for a quarantined request."""

    def __init__(self, settings: Settings) -> None:
        self._found = {
            (webhook.kind if webhook.kind in {"ecs", "weavr"} else "webhooks", webhook.integration): webhook
            for webhook in open_webhooks(settings, secrets=False)
        }

    def of(self, item: Quarantined) -> Webhook | None:
        """Return the webhook that received an item, or None if the settings no longer have it."""
        return self._found.get((_TABLES[Topic(item.position.topic)], item.integration))

    def findings(self, item: Quarantined) -> tuple[Finding, ...]:
        """Return the faults of an item under the current settings."""
        webhook = self.of(item)
        return findings_now(item, webhook.source) if webhook else ()

    def now(self, item: Quarantined) -> str:
        """Return ``valid``, ``invalid``, or ``integration unknown``."""
        if self.of(item) is None:
            return "integration unknown"
        return "invalid" if self.findings(item) else "valid"

    def lateness(self, item: Quarantined, now: datetime) -> str | None:
        """Return how late the release of a valid item is, or None if it is not late: a late step-up may be useless."""
        webhook = self.of(item)
        spec = SPECS.get(webhook.source.identify(item.request).topic) if webhook else None
        age = now - item.at
        if spec is None or age <= timedelta(milliseconds=spec.retention_ms):
            return None
        return f"received {age.total_seconds() / 3600:.1f} h ago, longer than {spec.topic} keeps a record"


class _Releasing:
    """Publishes the webhooks that are valid now, one after another, and reports the result of each."""

    def __init__(self, setup: Setup, *, as_json: bool) -> None:
        self._settings = setup.settings()
        self._ports = setup.ports
        self._webhooks = _Webhooks(self._settings)
        self._now = datetime.now(UTC)
        self._as_json = as_json

    async def some(self, item_ids: Sequence[str]) -> bool:
        """Release the items with the given ids, report in the given order; return whether all of them are valid."""
        items = await _read_all(self._settings)
        chosen = list(dict.fromkeys(_find(items, item_id) for item_id in item_ids))
        fitting = [item for item in _in_topic_order(chosen) if self._fits(item)]
        if fitting:
            async with self._publisher() as publisher:
                for item in fitting:
                    await self._publish(item, publisher)
        done = {item.id for item in fitting}
        for item in chosen:
            self._report(item, done=item.id in done)
        return len(fitting) == len(chosen)

    async def all_of(self, integration: str) -> bool:
        """Release all items of an integration, and report each immediately: all together may exceed the memory."""
        complete = True
        async with self._publisher() as publisher:
            async for item in _each(self._settings):
                if item.integration != integration:
                    continue
                fits = self._fits(item)
                if fits:
                    await self._publish(item, publisher)
                self._report(item, done=fits)
                complete = complete and fits
        return complete

    def _publisher(self) -> AbstractAsyncContextManager[Publisher]:
        return self._ports.publisher(self._settings.cluster, client_id="card-pipeline-cli")

    def _fits(self, item: Quarantined) -> bool:
        return self._webhooks.now(item) == "valid"

    async def _publish(self, item: Quarantined, publisher: Publisher) -> None:
        """Publish a request and its audit event, and wait until both are durable, to keep the order."""
        webhook = self._webhooks.of(item)
        if webhook is not None:
            both = released(item, webhook.source, now=self._now, actor=actor())
            await publisher.publish(both.record)
            await publisher.publish(audit_record(both.event))

    def _report(self, item: Quarantined, *, done: bool) -> None:
        late = self._webhooks.lateness(item, self._now) if done else None
        if self._as_json:
            findings = [] if done else _as_json(self._webhooks.findings(item))
            print_json({"id": item.id, "released": done, "late": late is not None, "findings": findings})
            return
        text = "released" if done else "still invalid, see `pipeline quarantine show`"
        print_line(f"{item.id}: {text}{f' ({late})' if late else ''}")


async def _read_all(settings: Settings) -> list[Quarantined]:
    """Return the first record of each quarantined request, in the order of the topics; raise as :func:`_each`."""
    return [item async for item in _each(settings)]


def _each(settings: Settings) -> AsyncIterator[Quarantined]:
    """Yield the first record of each quarantined request. A topic may be missing if no configured webhook uses it.

    Raises:
        TransientError: No topic can be read.
    """
    used = {topic for topic, table in _TABLES.items() if getattr(settings, table)}
    return read_kept(settings.cluster, list(_TABLES), read_quarantined, expected=used.__contains__)


def _find(items: Sequence[Quarantined], item_id: str) -> Quarantined:
    """Return the only item whose id begins with ``item_id``; raise NotFound otherwise."""

    def unknown(count: int) -> NotFound:
        what = f"{count} requests in quarantine have" if count else "no request in quarantine has"
        return NotFound("quarantine_unknown", f"{what} an id that begins with {item_id!r}")

    return find_kept(items, item_id, unknown)


def _in_topic_order(items: Sequence[Quarantined]) -> list[Quarantined]:
    """Return items in the order of their topics. A partition holds all items of an integration, in order of arrival."""
    return sorted(items, key=lambda item: (item.position.topic, item.position.partition, item.position.offset))


def _row(item: Quarantined, webhooks: _Webhooks) -> dict[str, Any]:
    return {
        "id": item.id,
        "integration": item.integration,
        "topic": item.position.topic,
        "at": item.at.isoformat(),
        "reasons": list(item.reasons),
        "now": webhooks.now(item),
    }


def _document(item: Quarantined, webhooks: _Webhooks) -> dict[str, JsonValue]:
    """Return an item as JSON, with its values masked."""
    position, path = item.position, item.request.path
    view = shown(item) | {"topic": position.topic, "event_path": path or None}
    kind = BY_PATH.get(path) if _TABLES[Topic(position.topic)] == "weavr" else None
    if kind is not None:
        typed = (("ce_type", kind.type.encode()),)
        record = Record(position.topic, position.partition, position.offset, "", item.request.body, typed, 0)
        view["body"] = masked_body(record)
    return view | {"now": webhooks.now(item), "findings": [*_as_json(webhooks.findings(item))]}


def _as_json(findings: Sequence[Finding]) -> list[JsonValue]:
    return [{"field": one.field, "rule": one.rule, "remedy": one.remedy} for one in findings]

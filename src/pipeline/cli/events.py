"""``pipeline events``: follow events, verify their signatures again, let a group handle them again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict

import click

from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.event_topics import Choice
from pipeline.cli.event_verification import EventVerifier, Report, Result, verify_all
from pipeline.cli.event_view import Filter, document, head
from pipeline.cli.exits import ExitCode
from pipeline.cli.output import json_option, print_fields, print_json, print_line, print_table
from pipeline.cli.source_view import configured
from pipeline.cli.times import Time
from pipeline.contracts import Record
from pipeline.kafka import Point
from pipeline.kafka import tail as read_on
from pipeline.kafka.groups import Rewind, plan_rewind, rewind
from pipeline.settings import Settings

_MOVE_COLUMNS = ("topic", "partition", "committed", "becomes", "again", "skipped")

topic_option = click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="TOPIC|CATEGORY",
    help="A topic, with or without the cluster's prefix, or a category such as managed-cards. Repeatable. "
    "Default: the topics of all configured sources, except step-ups and quarantines.",
)
count_option = click.option("--count", type=click.IntRange(min=1), help="End after this many records.")


@click.group()
def events() -> None:
    """Follow events, verify their signatures again, let a consumer group handle them again."""


@events.command(
    "tail",
    epilog="""\b
Examples:
  pipeline events tail --topic managed-cards --since 10m
  pipeline events tail --type 'weavr.managed_cards.*' --no-follow --json | jq .ce_id
It ends after --count records, with --no-follow at the end of the topics, or by Ctrl-C (exit 130).""",
)
@topic_option
@click.option("--type", "types", multiple=True, help="Only this ce_type; * matches anything. Repeatable.")
@click.option("--key", help="Only records with this key.")
@click.option("--integration", help="Only events that this integration's webhook received.")
@click.option("--subject", help="Only events with this subject, e.g. card/1234.")
@click.option(
    "--since",
    type=Time(),
    help="Begin at this time: ISO 8601 with a zone, or e.g. 2h for two hours ago. "
    "Default: now; with --no-follow, the first record.",
)
@count_option
@click.option(
    "--follow/--no-follow", default=True, help="Wait for new records, or stop at the current end of the topics."
)
@json_option
@pass_setup
def tail(
    setup: Setup,
    *,
    topics: tuple[str, ...],
    types: tuple[str, ...],
    key: str | None,
    integration: str | None,
    subject: str | None,
    since: Point | None,
    count: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print events of all topics as they arrive, with masked bodies. With --json, one per line.

    It commits no offset, so it affects no consumer group. It reads step-ups and quarantines only if --topic names them.
    """
    settings = setup.settings()
    wanted = Filter(types, key, integration, subject)
    start = since or ("latest" if follow else "earliest")
    records = _records(settings, topics, since=start, follow=follow)
    asyncio.run(_print(records, wanted, count, as_json=as_json))


@events.command(
    epilog="""\b
Examples:
  pipeline events verify --since 24h
  pipeline events verify --topic webhook-events.shop --json
prints
  {"ok": true, "checked": 1200, "verified": 1180, "failed": 0, "not_verifiable": {"unsigned_path": 20, ...}, ...}"""
)
@topic_option
@click.option("--since", type=Time(), help="Begin at this time, as in `events tail`. Default: the first record.")
@count_option
@json_option
@pass_setup
@click.pass_context
def verify(
    ctx: click.Context,
    setup: Setup,
    *,
    topics: tuple[str, ...],
    since: Point | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Verify stored events again, from their raw value and stored headers. Exit 1 if one fails.

    Age and keys are checked as of the time of receipt, so keep old keys in the settings, with their dates. Events that
    cannot be verified again, for example because a secret header authenticated them, are listed separately.
    """
    settings = setup.settings(webhook_secrets=True)
    verifier = EventVerifier(configured(settings, secrets=True))
    records = _records(settings, topics, since=since or "earliest", follow=False)
    report = asyncio.run(verify_all(records, verifier, count))
    if as_json:
        print_json(report.document())
    else:
        _print_report(report)
    ctx.exit(ExitCode.OK if report.ok else ExitCode.FINDING)


@events.command(
    "rewind",
    epilog="""\b
Examples:
  pipeline events rewind --group billing --to 2h
  pipeline events rewind --group billing --to 2026-01-22T22:43:59Z --execute
Without --execute, nothing changes. Stop the group first.""",
)
@click.option("--group", required=True, help="The consumer group; for a stage, its name is enough.")
@click.option(
    "--to",
    required=True,
    type=Time(edges=True),
    metavar="TIME|earliest|latest",
    help="Where to continue: ISO 8601 with a zone, e.g. 2h for two hours ago, earliest or latest.",
)
@topic_option
@click.option("--execute", is_flag=True, help="Do it. Default: a dry run.")
@json_option
@pass_setup
def rewind_group(setup: Setup, *, group: str, to: Point, topics: tuple[str, ...], execute: bool, as_json: bool) -> None:
    """Let a stopped group continue from another position in its topics. A dry run, unless you give --execute.

    A subscriber handles all events after that position again. Exit 1 if the group has live members, or if the group or
    a topic does not exist.
    """
    settings = setup.settings()
    chosen = Choice(topics, settings).topics if topics else []
    act = rewind if execute else plan_rewind
    found = asyncio.run(act(settings.cluster, group, to, topics=chosen))
    if as_json:
        print_json({"executed": execute, **asdict(found)})
        return
    _print_moves(found, executed=execute)


def _records(settings: Settings, topics: Sequence[str], *, since: Point, follow: bool) -> AsyncGenerator[Record, None]:
    choice = Choice(topics, settings)
    return read_on(settings.cluster, choice.topics, since=since, follow=follow, missing=choice.missing)


async def _print(records: AsyncGenerator[Record, None], wanted: Filter, count: int | None, *, as_json: bool) -> None:
    printed = 0
    async with aclosing(records):
        async for record in records:
            if not wanted.accepts(record):
                continue
            shown = document(record)
            if as_json:
                print_json(shown)
            else:
                print_line(head(record))
                print_line(f"    {json.dumps(shown['body'])}")
            printed += 1
            if printed == count:
                return


def _print_report(report: Report) -> None:
    print_fields({"checked": report.checked, **{one.value: report.counts[one] for one in Result}})
    for failure in report.failures:
        click.echo(f"failed: {failure['topic']}/{failure['partition']}/{failure['offset']}: {failure['reason']}")
    if report.counts[Result.FAILED] > len(report.failures):
        click.echo("failed: and more", err=True)


def _print_moves(found: Rewind, *, executed: bool) -> None:
    moves = found.moves
    print_table(_MOVE_COLUMNS, [[getattr(move, name) for name in _MOVE_COLUMNS] for move in moves])
    again, skipped = sum(move.again for move in moves), sum(move.skipped for move in moves)
    done = "done" if executed else "dry run, nothing changed; add --execute to do it"
    click.echo(f"{found.group}: {again} records again, {skipped} skipped ({done})", err=True)

"""``pipeline topics``: create, check and export the Kafka topics; skip an undecodable batch."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import click
from pydantic import JsonValue

from pipeline.app import open_jobs
from pipeline.cli.commands import REASON_LIMIT, Order, recorded
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.event_topics import logical_topic
from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.output import json_option, print_json, print_table
from pipeline.contracts import AuditAction, TopicSpec
from pipeline.jobs.wording import shorten
from pipeline.kafka import KafkaSettings, Partition
from pipeline.kafka.admin import TopicFinding, check_topics, create_topics, topic_table
from pipeline.kafka.groups import Skip, plan_skip, skip
from pipeline.settings import Settings
from pipeline.subscriber import dead_letter_topics

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

all_option: _Decorator = click.option(
    "--all", "every", is_flag=True, help="Include the topics of sources that are not configured."
)
group_option: _Decorator = click.option(
    "--group",
    "groups",
    metavar="NAME",
    multiple=True,
    help="Include the dead-letter topics of this subscriber's group. Repeatable.",
)


@click.group()
def topics() -> None:
    """Create, check and export the Kafka topics; skip an undecodable batch."""


@topics.command(epilog="Example: pipeline --config prod.toml topics create --group fraud")
@all_option
@group_option
@json_option
@pass_setup
@click.pass_context
def create(ctx: click.Context, setup: Setup, *, every: bool, groups: Sequence[str], as_json: bool) -> None:
    """Create the missing topics of the configured sources and of the audit log; never change an existing topic.

    If no source is configured, creates all topics. Safe to repeat. Exit 1 if an existing topic has settings that break
    a promise, for example because the broker created it on first use. Prints a remedy for each difference.
    """
    settings = setup.settings()
    results = asyncio.run(create_topics(settings.cluster, _specs(settings, groups, every=every)))
    broken = [finding for one in results for finding in one.findings if finding.breaks]
    if as_json:
        rows = [
            {"name": one.name, "created": one.created, "findings": [_found(finding) for finding in one.findings]}
            for one in results
        ]
        print_json(rows)
    else:
        print_table(("topic", "created"), [(one.name, "yes" if one.created else "exists") for one in results])
        _print_remedies(broken)
    ctx.exit(ExitCode.FINDING if broken else ExitCode.OK)


@topics.command(epilog="Example: pipeline topics check --json | jq '.findings[] | select(.breaks)'")
@all_option
@group_option
@json_option
@pass_setup
@click.pass_context
def check(ctx: click.Context, setup: Setup, *, every: bool, groups: Sequence[str], as_json: bool) -> None:
    """Compare the topics in the cluster with those that `topics create` makes.

    Exit 1 if a difference breaks a promise (docs/reference/topics.md).
    """
    settings = setup.settings()
    findings = asyncio.run(check_topics(settings.cluster, _specs(settings, groups, every=every)))
    broken = any(one.breaks for one in findings)
    if as_json:
        print_json({"ok": not broken, "findings": [_found(one) for one in findings]})
    elif findings:
        columns = ("topic", "rule", "expected", "found", "breaks a promise")
        rows = [(one.name, one.rule, one.expected, one.found, "yes" if one.breaks else "no") for one in findings]
        print_table(columns, rows)
        _print_remedies([one for one in findings if one.breaks])
    else:
        click.echo("ok: all topics are correct")
    ctx.exit(ExitCode.FINDING if broken else ExitCode.OK)


def _found(finding: TopicFinding) -> dict[str, object]:
    return {**dataclasses.asdict(finding), "remedy": finding.remedy}


def _print_remedies(broken: Sequence[TopicFinding]) -> None:
    for one in broken:
        click.echo(f"{one.name}: {one.rule} is {one.found}, and must be {one.expected}: {one.remedy}", err=True)


@topics.command(epilog="Example: pipeline topics export --format json > topics.json")
@click.option("--format", "as_format", type=click.Choice(["json"]), default="json", show_default=True)
@group_option
@pass_setup
def export(setup: Setup, *, as_format: str, groups: Sequence[str]) -> None:
    """Print the definition of every topic, for other tools that create them. Without [kafka], uses its defaults."""
    del as_format  # there is only one format; a script that names it keeps working when there is a second one
    settings = setup.settings()
    kafka = settings.kafka or KafkaSettings(bootstrap_servers="unused:1")
    click.echo(json.dumps(topic_table(kafka, _specs(settings, groups, every=True)), indent=2))


@topics.command(
    "skip",
    epilog="""\b
Examples:
  pipeline topics skip --group process --topic card-batch.requested --partition 3 --offset 1042
  pipeline topics skip --group process --topic card-batch.requested --partition 3 --offset 1042 \\
    --reason "written by a test client, INC-7" --execute
Without --execute, nothing changes. Stop the group first.""",
)
@click.option("--group", required=True, help="The consumer group; for a stage, its name is enough.")
@click.option("--topic", required=True, help="The topic, with or without the cluster's prefix.")
@click.option("--partition", required=True, type=click.IntRange(min=0), help="The partition.")
@click.option(
    "--offset", required=True, type=click.IntRange(min=0), help="The offset in the log event kafka_batch_undecodable."
)
@click.option(
    "--reason", help="Why you give up the records of the batch; the audit log keeps it. Required with --execute."
)
@click.option("--execute", is_flag=True, help="Do it. Default: a dry run.")
@json_option
@pass_setup
def skip_batch(
    setup: Setup,
    *,
    group: str,
    topic: str,
    partition: int,
    offset: int,
    reason: str | None,
    execute: bool,
    as_json: bool,
) -> None:
    """Let a stopped group continue after a batch that cannot be decoded. A dry run, unless you give --execute.

    The batch stays in its topic, but the group does not get its records. Exit 1 if the group has live members or has
    not reached the batch yet, if the batch can be decoded, or if the group or the topic does not exist.
    """
    if execute and not (reason or "").strip():
        raise UsageRefused("reason_missing", "--execute needs --reason: why you give up the records of the batch")
    where = Partition(logical_topic(topic, setup.settings()), partition)
    if execute:
        order = Order(shorten(reason or "", REASON_LIMIT), dry_run=False, yes=True, repeat=None)
        found = asyncio.run(_skip(setup, group, where, offset, order))
    else:
        found = asyncio.run(plan_skip(setup.settings().cluster, group, where, offset))
    if as_json:
        print_json({"executed": execute, "reason": reason, **dataclasses.asdict(found)})
    else:
        _print_skip(found, executed=execute)


async def _skip(setup: Setup, group: str, partition: Partition, offset: int, order: Order) -> Skip:
    about: dict[str, JsonValue] = {
        "group": group,
        "topic": partition.topic,
        "partition": partition.number,
        "offset": offset,
    }
    async with (
        open_jobs(setup.settings(), setup.ports) as jobs,
        recorded(setup, jobs.objects, order, "topics skip", about) as command,
    ):
        found = await skip(setup.settings().cluster, group, partition, offset, reason=order.reason)
        await command.audit(
            AuditAction.BATCH_SKIPPED, detail={**about, "skipped": found.skipped, "next_offset": found.becomes}
        )
    return found


def _print_skip(found: Skip, *, executed: bool) -> None:
    columns = ("topic", "partition", "committed", "becomes", "skipped", "why")
    print_table(columns, [[getattr(found, name) for name in columns]])
    done = "done" if executed else "dry run, nothing changed; add --execute to do it"
    click.echo(f"{found.group}: {found.skipped} offsets skipped ({done})", err=True)


def _specs(settings: Settings, groups: Sequence[str], *, every: bool) -> tuple[TopicSpec, ...]:
    """Return the topics of the settings, and the dead-letter topics of subscribers' groups."""
    try:
        needed = [spec for group in groups for spec in dead_letter_topics(group)]
    except ValueError as error:
        raise UsageRefused("group_refused", f"--group: {error}") from error
    return (*(settings.all_topics if every else settings.topics), *needed)

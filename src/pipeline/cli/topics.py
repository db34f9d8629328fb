"""``pipeline topics``: create, check and export the Kafka topics."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.output import json_option, print_json, print_table
from pipeline.contracts import TopicSpec
from pipeline.kafka import KafkaSettings
from pipeline.kafka.admin import check_topics, create_topics, topic_table
from pipeline.settings import Settings
from pipeline.subscriber import dead_letter_topics

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

all_option: _Decorator = click.option(
    "--all", "every", is_flag=True, help="Also topics of sources that are not configured."
)
group_option: _Decorator = click.option(
    "--group", "groups", metavar="NAME", multiple=True, help="Of a subscriber: its dead-letter topics too. Repeatable."
)


@click.group()
def topics() -> None:
    """Create, check and export the Kafka topics."""


@topics.command(epilog="Example: pipeline --config prod.toml topics create --group fraud")
@all_option
@group_option
@json_option
@pass_setup
def create(setup: Setup, *, every: bool, groups: Sequence[str], as_json: bool) -> None:
    """Create the missing topics of the configured sources and of the audit log; leave existing topics as they are.

    If no source is configured, all topics are created. May be repeated.
    """
    settings = setup.settings()
    results = asyncio.run(create_topics(settings.cluster, _specs(settings, groups, every=every)))
    if as_json:
        print_json([dataclasses.asdict(one) for one in results])
        return
    print_table(("topic", "created"), [(one.name, "yes" if one.created else "exists") for one in results])


@topics.command(epilog="Example: pipeline topics check --json | jq '.findings[] | select(.breaks)'")
@all_option
@group_option
@json_option
@pass_setup
@click.pass_context
def check(ctx: click.Context, setup: Setup, *, every: bool, groups: Sequence[str], as_json: bool) -> None:
    """Compare the cluster with the topics that `topics create` creates.

    Exit 1 if a difference breaks a promise (docs/topics.md).
    """
    settings = setup.settings()
    findings = asyncio.run(check_topics(settings.cluster, _specs(settings, groups, every=every)))
    broken = any(one.breaks for one in findings)
    if as_json:
        print_json({"ok": not broken, "findings": [dataclasses.asdict(one) for one in findings]})
    elif findings:
        columns = ("topic", "rule", "expected", "found", "breaks a promise")
        rows = [(one.name, one.rule, one.expected, one.found, "yes" if one.breaks else "no") for one in findings]
        print_table(columns, rows)
    else:
        click.echo("ok: all topics are as they should be")
    ctx.exit(ExitCode.FINDING if broken else ExitCode.OK)


@topics.command(epilog="Example: pipeline topics export --format json > topics.json")
@click.option("--format", "as_format", type=click.Choice(["json"]), default="json", show_default=True)
@group_option
@pass_setup
def export(setup: Setup, *, as_format: str, groups: Sequence[str]) -> None:
    """Print all topics as they should be, for other tools that create them. Without [kafka]: with its defaults."""
    del as_format  # the only one so far; scripts name it, so that a second one changes nothing for them
    settings = setup.settings()
    kafka = settings.kafka or KafkaSettings(bootstrap_servers="none")
    click.echo(json.dumps(topic_table(kafka, _specs(settings, groups, every=True)), indent=2))


def _specs(settings: Settings, groups: Sequence[str], *, every: bool) -> tuple[TopicSpec, ...]:
    """Return the topics of the settings, and the dead-letter topics of subscribers' groups."""
    try:
        needed = [spec for group in groups for spec in dead_letter_topics(group)]
    except ValueError as error:
        raise UsageRefused("group_refused", f"--group: {error}") from error
    return (*(settings.all_topics if every else settings.topics), *needed)

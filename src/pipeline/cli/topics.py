"""``pipeline topics``: the topics, those of configured sources too, in the cluster and on paper."""

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

group_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--group", "groups", metavar="NAME", multiple=True, help="Of a subscriber: its dead-letter topics too. Repeatable."
)


@click.group()
def topics() -> None:
    """Create, check and export the Kafka topics."""


@topics.command(epilog="Example: pipeline --config prod.toml topics create --group fraud")
@group_option
@json_option
@pass_setup
def create(setup: Setup, *, groups: Sequence[str], as_json: bool) -> None:
    """Create the topics that are missing, those of configured sources too; leave the others as they are.

    May be repeated.
    """
    settings = setup.settings()
    results = asyncio.run(create_topics(settings.cluster, _specs(settings, groups)))
    if as_json:
        print_json([dataclasses.asdict(one) for one in results])
        return
    print_table(("topic", "created"), [(one.name, "yes" if one.created else "was there") for one in results])


@topics.command(epilog="Example: pipeline topics check --json | jq '.findings[] | select(.breaks)'")
@group_option
@json_option
@pass_setup
@click.pass_context
def check(ctx: click.Context, setup: Setup, *, groups: Sequence[str], as_json: bool) -> None:
    """Compare the cluster's topics with the table. Exit 1 if a difference breaks a promise (docs/topics.md)."""
    settings = setup.settings()
    findings = asyncio.run(check_topics(settings.cluster, _specs(settings, groups)))
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
    """Print all topics as they should be, for other tools that create them. Without [kafka]: by its defaults."""
    del as_format  # the only one so far; scripts name it, so that a second one changes nothing for them
    settings = setup.settings()
    kafka = settings.kafka or KafkaSettings(bootstrap_servers="none")
    click.echo(json.dumps(topic_table(kafka, _specs(settings, groups)), indent=2))


def _specs(settings: Settings, groups: Sequence[str]) -> tuple[TopicSpec, ...]:
    """Return the topics of the table, of configured sources, and those that subscribers' groups need beside them."""
    try:
        needed = [spec for group in groups for spec in dead_letter_topics(group)]
    except ValueError as error:
        raise UsageRefused("group_refused", f"--group: {error}") from error
    return (*settings.topics, *needed)

"""``pipeline topics``: the topics, those of configured sources too, in the cluster and on paper."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import click

from pipeline.bus import KafkaSettings, check_topics, create_topics, topic_table
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode
from pipeline.cli.output import json_option, print_json, print_table


@click.group()
def topics() -> None:
    """Create, check and export the Kafka topics."""


@topics.command(epilog="Example: pipeline --config prod.toml topics create")
@json_option
@pass_setup
def create(setup: Setup, *, as_json: bool) -> None:
    """Create the topics that are missing, those of configured sources too; leave the others as they are.

    May be repeated.
    """
    settings = setup.settings()
    results = asyncio.run(create_topics(settings.cluster, settings.topics))
    if as_json:
        print_json([dataclasses.asdict(one) for one in results])
        return
    print_table(("topic", "created"), [(one.name, "yes" if one.created else "was there") for one in results])


@topics.command(epilog="Example: pipeline topics check --json | jq '.findings[] | select(.breaks)'")
@json_option
@pass_setup
@click.pass_context
def check(ctx: click.Context, setup: Setup, *, as_json: bool) -> None:
    """Compare the cluster's topics with the table. Exit 1 if a difference breaks a promise (docs/topics.md)."""
    settings = setup.settings()
    findings = asyncio.run(check_topics(settings.cluster, settings.topics))
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
@pass_setup
def export(setup: Setup, *, as_format: str) -> None:
    """Print all topics as they should be, for other tools that create them. Without [kafka]: by its defaults."""
    del as_format  # the only one so far; scripts name it, so that a second one changes nothing for them
    settings = setup.settings()
    kafka = settings.kafka or KafkaSettings(bootstrap_servers="none")
    click.echo(json.dumps(topic_table(kafka, settings.topics), indent=2))

"""``pipeline topics``: the one table of topics, in the cluster and on paper."""

from __future__ import annotations

import json

import click

from pipeline.bus import KafkaSettings, Names
from pipeline.cli.context import Setup, pass_setup
from pipeline.contracts import TOPICS, TopicSpec


@click.group()
def topics() -> None:
    """Create, check and export the Kafka topics."""


@topics.command(epilog="Example: pipeline topics export --format json > topics.json")
@click.option("--format", "as_format", type=click.Choice(["json"]), default="json", show_default=True)
@pass_setup
def export(setup: Setup, *, as_format: str) -> None:
    """Print all topics, with their names in the cluster, for tools that create topics themselves."""
    del as_format  # the only one so far; scripts name it, so that a second one changes nothing for them
    kafka = setup.settings().kafka
    click.echo(json.dumps([exported(spec, kafka) for spec in TOPICS], indent=2))


def exported(spec: TopicSpec, kafka: KafkaSettings | None) -> dict[str, object]:
    """Return one topic as JSON values; without a cluster under its logical name."""
    names = Names(kafka) if kafka else None
    return {
        "topic": spec.topic.value,
        "name": names.topic(spec.topic) if names else spec.topic.value,
        "partitions": spec.partitions,
        "replication_factor": kafka.replication_factor if kafka else None,
        "retention_ms": spec.retention_ms,
        "cleanup_policy": "delete",
        "sensitive": spec.sensitive,
        "dead_letter": spec.dead_letter.value if spec.dead_letter else None,
        "about": spec.about,
    }

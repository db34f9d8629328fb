"""The root command."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import click

from pipeline.app import PORTS, Ports
from pipeline.cli.audit import audit
from pipeline.cli.cards import cards
from pipeline.cli.config import config
from pipeline.cli.context import make_setup
from pipeline.cli.events import events
from pipeline.cli.exits import Cli
from pipeline.cli.integration import integration
from pipeline.cli.job import job
from pipeline.cli.quarantine import quarantine
from pipeline.cli.sandbox import sandbox
from pipeline.cli.serve import dev, ingress, work
from pipeline.cli.sources import sources
from pipeline.cli.topics import topics
from pipeline.observability import LoggingSettings, Redaction, configure_logging


@click.group(
    cls=Cli,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 finding, 2 usage or settings, 3 file refused, 4 unavailable, 130 interrupted.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (TOML). Default: $PIPELINE_CONFIG, or pipeline.toml if it is there.",
)
@click.version_option(version("card-pipeline"), prog_name="pipeline")
@click.pass_context
def cli(ctx: click.Context, config_file: Path | None) -> None:
    """Receive webhooks, make them durable in Kafka, do what they ask for, keep an audit log.

    Events of Weavr, and of senders that are configured, go to topics for subscribers. Card batch jobs of eCard Systems
    are done here: every card is processed, the result uploaded, ECS told.

    Start with `pipeline dev`: everything in one process, on an embedded broker.
    """
    # people read what a command says; servers configure their logs anew, by the settings
    configure_logging(LoggingSettings(level="warning", format="console"), Redaction())
    ctx.obj = make_setup(config_file, ctx.obj or PORTS)


_COMMANDS = (audit, cards, config, dev, events, ingress, integration, job, quarantine, sandbox, sources, topics, work)
for command in _COMMANDS:
    cli.add_command(command)


def main(ports: Ports = PORTS) -> None:
    """Run the command line of this process; its commands reach the outside world through ``ports``."""
    cli(prog_name="pipeline", obj=ports)

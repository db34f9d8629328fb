"""The root command. A command's module is imported when the command runs: `pipeline --help` imports none of them."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

COMMANDS: Final = {
    "audit": "Verify the audit log.",
    "cards": "Try an integration's CSV settings and processor on local files.",
    "config": "Check and show the settings.",
    "dead-letters": "Look at records that could not be handled; replay or discard them.",
    "dev": "Run ingress and all stages in one process, on an embedded broker.",
    "events": "Look at events in their topics, verify their signatures again, let a group handle them again.",
    "ingress": "Receive webhooks: verify, validate, publish, answer.",
    "init": "Write a settings file to start from.",
    "integration": "Set up, pause and resume integrations.",
    "job": "Look at jobs, retry or cancel them, notify ECS again, delete card data.",
    "quarantine": "Look at webhooks that were authentic but did not fit, and release them after a fix.",
    "sandbox": "Try the pipeline without an account at ECS or Weavr, Kafka or S3 (docs/reference/sandbox.md).",
    "sources": "Look at the configured webhooks, and find out why a request to one is refused.",
    "store": "Find orphans and leftovers in the job store, and delete them.",
    "topics": "Create, check and export the Kafka topics; skip a batch that cannot be decoded.",
    "work": "Run one stage; scale it by running more of it, up to the partitions of its topic.",
}
"""Every command and its line in the help."""
_MODULES: Final = {"dead-letters": "dead_letters", "dev": "serve", "ingress": "serve", "work": "serve"}
"""The modules of commands that share one, or whose name is no module's; every other command has one of its own name."""


class Root(click.Group):
    """The root command: it imports a command's module when the command is asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; return None if there is no such command."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"pipeline.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an expected error ends the process with one line and its exit code."""
        _load_structlog()
        from pipeline.cli.exits import expected_errors  # noqa: PLC0415 - it knows the errors of every package

        with expected_errors(ctx):
            return super().invoke(ctx)


def _load_structlog() -> None:
    """Import structlog without rich, which it would load for tracebacks in colour: 6 MB in each server, for nothing.

    Commands that print tables load rich themselves.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # how the import system notes that there is no such module
    try:
        import structlog  # noqa: F401, PLC0415 - the help needs no log
    finally:
        del sys.modules["rich"]


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 finding, 2 usage or settings, 3 file refused, 4 unavailable, 130 interrupted.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file (TOML). Default: $PIPELINE_CONFIG, or pipeline.toml if it exists.",
)
@click.version_option(package_name="card-pipeline", prog_name="pipeline")
@click.pass_context
def cli(ctx: click.Context, config_file: Path | None) -> None:
    """Receive webhooks, make them durable in Kafka, do the jobs that they announce, keep an audit log.

    Events of Weavr, and of senders that are configured, go to topics for subscribers. Card batch jobs of eCard Systems
    are done here: every card is processed, the result uploaded, ECS notified.

    Start with `pipeline dev`: everything in one process, on an embedded broker.
    """
    from pipeline.cli.context import make_setup  # noqa: PLC0415 - the help needs no settings
    from pipeline.observability import LoggingSettings, Redaction, configure_logging  # noqa: PLC0415 - as above

    # people read what a command says; servers configure their logs again, by the settings
    configure_logging(LoggingSettings(level="warning", format="console"), Redaction())
    ctx.obj = make_setup(config_file, ctx.obj)

"""The root command. It imports a command's module only when that command runs; `pipeline --help` imports none."""

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
    "dead-letters": "Look at dead letters (records that nobody could handle); replay or discard them.",
    "dev": "Run the ingress and all stages in one process, on an embedded broker.",
    "events": "Follow events, verify their signatures again, let a consumer group handle them again.",
    "ingress": "Receive webhooks: verify, validate, publish, answer.",
    "init": "Write a settings file to start from.",
    "integration": "Set up, pause and resume integrations.",
    "job": "Look at jobs, retry or cancel them, notify ECS again, delete card data.",
    "quarantine": "Look at webhooks that were authentic but invalid, and release them after a fix.",
    "sandbox": "Try the pipeline without ECS, Weavr, Kafka or S3 (docs/reference/sandbox.md).",
    "sources": "List the configured webhooks, and find out why one refuses a request.",
    "store": "Find orphans and leftovers in the job store, and delete them.",
    "topics": "Create, check and export the Kafka topics; skip an undecodable batch.",
    "work": "Run one stage; to scale it, run more processes, up to one per partition of its topic.",
}
"""Each command, with its line in the help."""
_MODULES: Final = {"dead-letters": "dead_letters", "dev": "serve", "ingress": "serve", "work": "serve"}
"""Modules whose name differs from that of their command."""


class Root(click.Group):
    """The root command. It imports a command's module when that command runs."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; return None if there is no such command."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"pipeline.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn an expected error into one line on stderr and an exit code."""
        _load_structlog()
        from pipeline.cli.exits import expected_errors  # noqa: PLC0415 - it imports the errors of every package

        with expected_errors(ctx):
            return super().invoke(ctx)


def _load_structlog() -> None:
    """Import structlog without rich. Structlog loads rich for coloured tracebacks, which costs each server 6 MB.

    Commands that print tables import rich themselves.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # None makes an import of the module fail
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
    help="Settings file (TOML). Default: $PIPELINE_CONFIG, otherwise pipeline.toml if it exists.",
)
@click.version_option(package_name="card-pipeline", prog_name="pipeline")
@click.pass_context
def cli(ctx: click.Context, config_file: Path | None) -> None:
    """Receive webhooks, store them durably in Kafka, run the jobs that they announce, keep an audit log.

    Events from Weavr and from other configured senders go to topics, where your services subscribe to them. The
    pipeline itself runs the card batch jobs of eCard Systems (ECS): it processes every card, uploads the result and
    notifies ECS.

    To start, type `pipeline init` and then `pipeline dev`, which runs everything in one process with its own broker.
    """
    from pipeline.cli.context import make_setup  # noqa: PLC0415 - the help needs no settings
    from pipeline.observability import LoggingSettings, Redaction, configure_logging  # noqa: PLC0415 - as above

    # commands log for people; servers configure their logs again from the settings
    configure_logging(LoggingSettings(level="warning", format="console"), Redaction())
    ctx.obj = make_setup(config_file, ctx.obj)

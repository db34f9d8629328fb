"""Every command explains itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from support.command_line import Run
from support.paths import ROOT

from pipeline.cli.root import COMMANDS, cli
from pipeline.cli.start import SERVER_PACKAGES


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(cli))


def test_the_commands_are_those_of_the_contract() -> None:
    leaves = {" ".join(path) for path, command in ALL.items() if not isinstance(command, click.Group)}
    assert leaves == {
        "audit head",
        "audit verify",
        "cards run",
        "config check",
        "config show",
        "dead-letters discard",
        "dead-letters list",
        "dead-letters replay",
        "dead-letters show",
        "dev",
        "events rewind",
        "events tail",
        "events verify",
        "ingress",
        "init",
        "integration new ecs",
        "integration new weavr",
        "integration new webhook",
        "integration pause",
        "integration resume",
        "job cancel",
        "job follow",
        "job list",
        "job purge",
        "job result",
        "job retry",
        "job show",
        "job notify",
        "quarantine list",
        "quarantine release",
        "quarantine show",
        "sandbox broker",
        "sandbox send-events",
        "sandbox send-job",
        "sandbox serve",
        "sources capture",
        "sources list",
        "sources test",
        "store check",
        "store clean",
        "topics check",
        "topics create",
        "topics export",
        "topics skip",
        "work audit",
        "work confirm",
        "work process",
        "work upload",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_describes_a_command_as_the_command_does(name: str) -> None:
    """The help reads the line from a table, so that it imports no command."""
    assert ALL[(name,)].get_short_help_str(200) == COMMANDS[name]


def test_the_commands_are_in_alphabetical_order(run: Run) -> None:
    assert list(COMMANDS) == sorted(COMMANDS)
    listed = run("--help").stdout.partition("\nCommands:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines() if line[2] != " "] == list(COMMANDS)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_help_imports_no_command_and_no_library_but_click(option: str) -> None:
    """A person waits for the help, and a shell's completion does: it takes the time that click takes."""
    code = (
        "import atexit, sys; from pipeline.cli import main; "
        "atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code, option], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stderr.split())
    own = {name for name in loaded if name.partition(".")[0] == "pipeline"}
    assert own == {"pipeline", "pipeline.cli", "pipeline.cli.root", "pipeline.cli.start", "pipeline.signals"}
    others = {"aiokafka", "prometheus_client", "pydantic", "structlog", "asyncio", *SERVER_PACKAGES} - {"click"}
    assert loaded & others == set()


def test_help_of_a_command_imports_no_other_command() -> None:
    code = (
        "import sys; from pipeline.cli.root import cli; cli(['topics', '--help'], standalone_mode=False); "
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert {name for name in COMMANDS if f"pipeline.cli.{name}" in done.stderr.split()} == {"topics"}


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_a_help(run: Run, path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: pipeline {' '.join(path)}")


@pytest.mark.parametrize(
    "path", [path for path, command in ALL.items() if not isinstance(command, click.Group)], ids=" ".join
)
def test_every_command_shows_an_example_or_its_ready_line(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.epilog is not None
    assert " ".join(path) in command.epilog or '"ready"' in command.epilog


@pytest.mark.parametrize("command", [c for c in ALL.values() if not isinstance(c, click.Group)], ids=lambda c: c.name)
def test_every_option_is_explained_or_has_choices(command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or isinstance(parameter.type, click.Choice), parameter.name


def test_the_contract_names_every_command() -> None:
    """docs/reference/cli.md is hand-written: a new command must be put there."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    for path, command in ALL.items():
        if not isinstance(command, click.Group) and path[0] != "work":
            assert f"`{' '.join(path)}" in page, path


def test_the_version_is_the_distributions(run: Run) -> None:
    assert run("--version").stdout.startswith("pipeline, version ")


def test_a_wrong_command_line_is_exit_2_with_the_usage(run: Run) -> None:
    result = run("config", "chekc")
    assert result.exit_code == 2
    assert "No such command 'chekc'" in result.stderr

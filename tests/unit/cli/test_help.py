"""Every command explains itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from support.command_line import Run
from support.paths import ROOT

from pipeline.cli import cli


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
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
        "dev",
        "events rewind",
        "events tail",
        "events verify",
        "ingress",
        "integration new ecs",
        "integration new weavr",
        "job follow",
        "job list",
        "job purge",
        "job result",
        "job show",
        "job tell",
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
        "topics check",
        "topics create",
        "topics export",
        "work audit",
        "work confirm",
        "work process",
        "work upload",
    }


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
    """docs/cli.md is hand-written: a new command must be put there."""
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    for path, command in ALL.items():
        if not isinstance(command, click.Group) and path[0] != "work":
            assert f"`{' '.join(path)}" in page, path


def test_the_version_is_the_distributions(run: Run) -> None:
    assert run("--version").stdout.startswith("pipeline, version ")


def test_a_wrong_command_line_is_exit_2_with_the_usage(run: Run) -> None:
    result = run("config", "chekc")
    assert result.exit_code == 2
    assert "No such command 'chekc'" in result.stderr

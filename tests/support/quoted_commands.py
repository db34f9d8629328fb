"""Commands that pages quote, found in the command line's own definition."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Final

import click

from pipeline.cli.root import COMMANDS as CLI_COMMANDS
from pipeline.cli.root import cli

_CODE: Final = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Quoted:
    """A command as a page quotes it.

    Attributes:
        text: As it is written.
        names: The command's names, such as ``job show``.
        arguments: What follows them.
    """

    text: str
    command: click.Command
    names: tuple[str, ...]
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return self.text

    @property
    def is_mention(self) -> bool:
        """Whether it only names a command, without what the command needs."""
        needed = any(one.required for one in self.command.params)
        return not self.arguments and (needed or self.names[0] == "work")

    @property
    def asks(self) -> bool:
        """Whether the command asks before it acts."""
        return any("--yes" in one.opts for one in self.command.params)


def quoted(text: str) -> list[Quoted]:
    """Return the commands of a page, each once: inline code that begins with ``pipeline`` or with a command's name."""
    codes = [" ".join(code.split()) for code in _CODE.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
    return [parsed(code) for code in dict.fromkeys(codes) if _is_command(code)]


def _is_command(code: str) -> bool:
    first, _, rest = code.partition(" ")
    return bool(rest) and (first == "pipeline" or first in CLI_COMMANDS)


def parsed(code: str) -> Quoted:
    """Find the command for a code; fail if there is none."""
    words = shlex.split(code.partition(" | ")[0])
    words = words[1:] if words[0] == "pipeline" else words
    command: click.Command = cli
    names: list[str] = []
    while isinstance(command, click.Group):
        assert len(names) < len(words), f"{code} names no command"
        found = command.get_command(click.Context(command), words[len(names)])
        assert found is not None, f"{code}: {words[len(names)]} is no command of {' '.join(names) or 'pipeline'}"
        names.append(words[len(names)])
        command = found
    return Quoted(code, command, tuple(names), tuple(words[len(names) :]))

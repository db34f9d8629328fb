"""What every command shares: the settings, read when a command first asks, and who gives the command."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from pipeline.app import PORTS, Ports
from pipeline.settings import DEFAULT_FILE, Settings, config_path, load_settings


class Setup:
    """The settings file and the ports of this run.

    Attributes:
        path: The file, or None where there is none.
        ports: What commands reach the outside world through.
    """

    def __init__(self, option: Path | None, env: Mapping[str, str], ports: Ports = PORTS) -> None:
        self._env = env
        self.path = config_path(option, env)
        self.ports = ports

    def settings(
        self,
        *,
        webhook_secrets: bool = False,
        warn: Callable[[str], None] | None = None,
        unread: Callable[[str], None] | None = None,
    ) -> Settings:
        """Return the settings.

        Args:
            webhook_secrets: Whether the command needs the files of the webhook secrets.
            warn: Takes warnings; None prints them on stderr.
            unread: Takes the keys of all secret files, of which none is read then.
        """
        return load_settings(
            self.path,
            self._env,
            webhook_secrets=webhook_secrets,
            warn=print_warning if warn is None else warn,
            unread=unread,
        )

    @property
    def target(self) -> Path:
        """Where a command that writes settings writes them."""
        return self.path or Path(DEFAULT_FILE)


def print_warning(text: str) -> None:
    """Print a warning."""
    click.echo(f"warning: {text}", err=True)


def make_setup(option: Path | None, ports: Ports | None) -> Setup:
    """Return the setup of this process; without ports of its own it has the real ones."""
    return Setup(option, os.environ, ports or PORTS)


pass_setup = click.make_pass_decorator(Setup)


def actor() -> str:
    """Return ``cli:<user>``; in a container whose user has no name, its number."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = str(os.getuid())
    return f"cli:{name}"

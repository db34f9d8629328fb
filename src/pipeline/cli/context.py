"""Shared by all commands: the settings, loaded on first use, and the name of the user who runs the command."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from pipeline.app import PORTS, Ports
from pipeline.settings import DEFAULT_FILE, Settings, config_path, load_settings


class Setup:
    """The settings file of this run, and its ports.

    Attributes:
        path: The file, or None if there is none.
        ports: How commands reach the broker, the store and other servers.
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
        """Load the settings, once, and return them.

        Args:
            webhook_secrets: Whether to read the files of the webhook secrets.
            warn: Called with each warning; None prints them on stderr.
            unread: If given, called with the settings key of each secret file; no secret file is read then.
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
        """The file to which a command writes new settings."""
        return self.path or Path(DEFAULT_FILE)


def print_warning(text: str) -> None:
    """Print a warning on stderr."""
    """Print a warning on stderr."""
    click.echo(f"warning: {text}", err=True)


def make_setup(option: Path | None, ports: Ports | None) -> Setup:
    """Return the setup of this process, with the real ports if ``ports`` is None."""
    return Setup(option, os.environ, ports or PORTS)


pass_setup = click.make_pass_decorator(Setup)


def actor() -> str:
    """Return ``cli:<user>``; for a container user without a name, its number."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = str(os.getuid())
    return f"cli:{name}"

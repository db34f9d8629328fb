"""Adding an integration to the settings file, and its secrets beside it, without changing anything else."""

from __future__ import annotations

import os
import re
import secrets
import tomllib
from pathlib import Path
from typing import Final

from pipeline.cli.exits import UsageRefused

BASE_URL: Final = "https://YOUR-HOST"
"""On a sheet, in place of the ingress's public URL if none was given."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SECRET_BYTES: Final = 32


def settings_without(table: str, name: str, file: Path) -> str:
    """Return the settings file's text, if an integration of that table and name can be added to it.

    Raises:
        UsageRefused: The name is none or is taken, or the file cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise UsageRefused(
            "integration_name", f"{name!r} is no name; write 1 to 63 lower case letters, digits and dashes"
        )
    try:
        text = file.read_text("utf-8")
        tables = tomllib.loads(text)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageRefused("config_unreadable", f"{file}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageRefused("config_unreadable", f"{file}: is not TOML: {error}") from None
    if name in tables.get(table, {}):
        raise UsageRefused(
            "integration_exists", f"{file} has an [{table}.{name}] already; choose another name or edit it"
        )
    return text


def append_block(file: Path, text: str, block: str) -> None:
    """Append a block to a settings file that holds ``text`` so far."""
    with file.open("a", encoding="utf-8") as settings:
        settings.write(block if not text else f"\n{block}" if text.endswith("\n") else f"\n\n{block}")


def write_secret(path: Path) -> str:
    """Return a new secret, written to a file for its owner alone.

    Raises:
        UsageRefused: The file is there already.
    """
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageRefused(
            "secret_exists", f"{path} is there already and is not overwritten; move it away or choose another name"
        ) from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secret)
    return secret

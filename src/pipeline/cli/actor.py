"""Who gives a command, for the audit log."""

from __future__ import annotations

import getpass
import os


def actor() -> str:
    """Return ``cli:<user>``; in a container whose user has no name, its number."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = str(os.getuid())
    return f"cli:{name}"

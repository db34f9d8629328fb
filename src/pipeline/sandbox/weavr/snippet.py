"""The settings that make a pipeline take this Weavr's events."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.sandbox.secret_files import write_secret

_KEY_BYTES: Final = 32

_BLOCK: Final = """\
[weavr.{name}]
# the key that signs, and the one that may take over from it: `send-events --rotate-to`
secrets = [{{ file = {key_file} }}, {{ file = {next_key_file} }}]

# Weavr does not sign this path: here its events must come from this machine
[[weavr.{name}.unsigned_paths]]
path = "/bulk_process_end/watch"
source_addresses = ["127.0.0.0/8", "::1/128"]
"""


@dataclass(frozen=True, slots=True)
class WeavrSnippet:
    """One integration with the sandbox's Weavr.

    Attributes:
        toml: The block ``[weavr.NAME]`` with its tables.
        key_file: Holds the API key that signs, mode 0600.
        next_key_file: Holds the one that may follow it, mode 0600; the pipeline knows both.
    """

    toml: str
    key_file: Path
    next_key_file: Path


def weavr_snippet(name: str, *, folder: Path) -> WeavrSnippet:
    """Write new keys into ``folder``, and return the settings block of an integration.

    Args:
        name: Of the integration, e.g. ``acme``.
        folder: Created with mode 0700 where it is missing.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = folder / f"{name}-weavr-key", folder / f"{name}-weavr-next-key"
    for file in files:
        write_secret(file, secrets.token_urlsafe(_KEY_BYTES))
    key_file, next_key_file = (json.dumps(str(file.resolve())) for file in files)
    return WeavrSnippet(_BLOCK.format(name=name, key_file=key_file, next_key_file=next_key_file), *files)

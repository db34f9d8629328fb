"""Settings blocks and secret files that connect a pipeline to a sandbox."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import JsonValue

from pipeline.sandbox.server import Sandbox
from pipeline.sandbox.settings import HmacScheme, Scheme

_KEY_BYTES: Final = 32

_BLOCK: Final = """\
[weavr.{name}]
# the key that signs now, and its successor for `send-events --rotate-to`
secrets = [{{ file = {key_file} }}, {{ file = {next_key_file} }}]

# Weavr does not sign this path, so its events must come from this machine
[[weavr.{name}.unsigned_paths]]
path = "/bulk_process_end/watch"
source_addresses = ["127.0.0.0/8", "::1/128"]
"""


@dataclass(frozen=True, slots=True)
class Snippet:
    """Settings and secret files of one integration with the sandbox's ECS. The files have mode 0600.

    Attributes:
        toml: The block ``[ecs.NAME]`` with its tables.
        webhook_secret_file: File of the webhook secret.
        token_file: File of the callback token.
        card_api_token_file: File of the card API's bearer token.
    """

    toml: str
    webhook_secret_file: Path
    token_file: Path
    card_api_token_file: Path


def settings_snippet(
    sandbox: Sandbox,
    name: str,
    *,
    folder: Path,
    processor: str = "validate",
    options: Mapping[str, JsonValue] | None = None,
    oauth: bool = False,
    tables: Mapping[str, Mapping[str, JsonValue]] | None = None,
) -> Snippet:
    """Write the secret files into ``folder`` and return the settings block of an integration.

    Args:
        sandbox: A running sandbox, because the block names its port.
        name: Name of the integration, e.g. ``acme``.
        folder: Created with mode 0700 if it is missing.
        processor: Name of the processor.
        options: The processor's options.
        oauth: Whether the pipeline fetches the callback token by OAuth instead of reading it from the file.
        tables: Further tables of the integration by name, e.g. ``{"limits": {"chunk_records": 500}}``.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = sandbox.settings
    files = (folder / f"{name}-webhook", folder / f"{name}-token", folder / f"{name}-card-api")
    values = (
        settings.webhook_secret.get_secret_value(),
        sandbox.token(),
        settings.card_api.token.get_secret_value(),
    )
    for path, value in zip(files, values, strict=True):
        write_secret(path, value)
    host = urlsplit(sandbox.ecs.base_url).netloc
    blocks: dict[str, Mapping[str, JsonValue]] = {
        "": {"partner_guid": str(settings.partner_guid)},
        "webhook": _scheme(settings.scheme, files[0].resolve()),
        "callback": {} if oauth else {"token_file": str(files[1].resolve())},
        "hosts": {"input": [host], "result": [host], "callback": [host], "allow_http": True, "allow_private": True},
        "processor": {"name": processor},
    }
    if oauth:
        blocks["callback.oauth"] = {
            "token_url": sandbox.token_url,
            "client_id": settings.oauth_client_id,
            "client_secret": settings.oauth_client_secret.get_secret_value(),
        }
    if options:
        blocks["processor.options"] = options
    for table, values_of_table in (tables or {}).items():
        blocks[table] = {**blocks.get(table, {}), **values_of_table}
    return Snippet("\n".join(_block(name, table, values) for table, values in blocks.items()), *files)


@dataclass(frozen=True, slots=True)
class WeavrSnippet:
    """Settings and key files of one integration with the sandbox's Weavr. The files have mode 0600.

    Attributes:
        toml: The block ``[weavr.NAME]`` with its tables.
        key_file: File of the API key that signs.
        next_key_file: File of the next API key. The block names both keys.
    """

    toml: str
    key_file: Path
    next_key_file: Path


def weavr_snippet(name: str, *, folder: Path) -> WeavrSnippet:
    """Write new keys into ``folder``, and return the settings block of an integration.

    Args:
        name: Name of the integration, e.g. ``acme``.
        folder: Created with mode 0700 if it is missing.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = folder / f"{name}-weavr-key", folder / f"{name}-weavr-next-key"
    for file in files:
        write_secret(file, secrets.token_urlsafe(_KEY_BYTES))
    key_file, next_key_file = (json.dumps(str(file.resolve())) for file in files)
    return WeavrSnippet(_BLOCK.format(name=name, key_file=key_file, next_key_file=next_key_file), *files)


def parts_snippet(folder: Path) -> str:
    """Write a new key that encrypts parts into ``folder``, and return the settings block that names it.

    Args:
        folder: Created with mode 0700 if it is missing.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / "part-key"
    write_secret(file, base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode())
    return f'[parts]\nkeys = [{{ id = "1", file = {json.dumps(str(file.resolve()))} }}]\n'


def cards_options(sandbox: Sandbox, name: str, *, folder: Path) -> dict[str, JsonValue]:
    """Return options that make the ``http`` processor load cards into the sandbox's card API."""
    return {
        "url": sandbox.cards_url,
        "body": {"card_number": "{card_number}", "amount": "{amount}", "location_id": "{location_id}"},
        "token_file": str((folder / f"{name}-card-api").resolve()),
        "allow_http": True,
        "allow_private": True,
    }


def write_secret(path: Path, value: str) -> None:
    """Write a secret into a new file of mode 0600. It replaces an existing file."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(value)


def _scheme(scheme: Scheme, secret: Path) -> dict[str, JsonValue]:
    table: dict[str, JsonValue] = {"secrets": [{"file": str(secret)}], "header": scheme.header, "prefix": scheme.prefix}
    if not isinstance(scheme, HmacScheme):
        return {"scheme": "shared-secret", **table}
    table |= {"scheme": "hmac", "hash": scheme.hash, "encoding": scheme.encoding}
    if scheme.timestamp_header is not None:
        between = [f"text:{scheme.separator}"] if scheme.separator else []
        table |= {"signed": ["timestamp", *between, "body"], "timestamp": f"header:{scheme.timestamp_header}"}
    return table


def _block(name: str, table: str, values: Mapping[str, JsonValue]) -> str:
    head = f"[ecs.{name}.{table}]" if table else f"[ecs.{name}]"
    return "\n".join((head, *(f"{key} = {_toml(value)}" for key, value in values.items()), ""))


def _toml(value: JsonValue) -> str:
    """Render a value. TOML writes strings, numbers and booleans as JSON does."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    return json.dumps(value)

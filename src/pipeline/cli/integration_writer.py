"""Writes what `pipeline init` and `integration new` make: tables of the settings file, secret files, and sheets."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import click

from pipeline.cli.exits import UsageRefused
from pipeline.cli.output import print_fields
from pipeline.contracts.weavr import KINDS
from pipeline.jobs.part_encryption import new_part_key
from pipeline.settings import parse_toml, toml_value
from pipeline.settings.json_schema import FIRST_LINE, write_schema_beside

BASE_URL: Final = "https://YOUR-HOST"
"""Replaces the ingress's public URL on a sheet, if no option gives it."""

ECS_HEADERS: Final = {"shared-secret": "X-Webhook-Secret", "hmac": "X-Webhook-Signature"}
"""The header in which ECS sends its secret or signature, by scheme."""

Sheet = dict[str, str | None]
"""The facts about a new integration that a person needs; ``--json`` prints them as they are."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SECRET_BYTES: Final = 32
_PLACEHOLDER: Final = "SECRET-OF-THE-PATH"

_PARTS_TABLE: Final = """\
[parts]                         # encrypts the results of cards in the store
keys = [{{ id = "1", file = {key} }}]

"""

_ECS_TABLE: Final = """\
[ecs.{name}]
partner_guid = "{partner_guid}"
# success_status = 202          # 200, 202 or 204: the status that ECS expects for success

[ecs.{name}.webhook]
scheme = "{scheme}"
header = "{header}"
secrets = [{{ file = {secret} }}]

[ecs.{name}.callback]
token_file = {token}  # put the JWT from ECS there, mode 0600

[ecs.{name}.hosts]              # the pipeline connects to no other host
input = {input}
result = {result}
callback = {callback}

[ecs.{name}.csv]
card_column = "card_number"

[ecs.{name}.processor]
name = "validate"
"""

_WEAVR_TABLE: Final = """\
[weavr.{name}]
# your API key at Weavr, mode 0600; during a change list the old and the new key, with not_after and not_before
secrets = [{{ file = {key} }}]
"""
_SEGMENT: Final = "path_secret_file = {file}\n"
_UNSIGNED: Final = """
[[weavr.{name}.unsigned_paths]]    # Weavr does not sign this path, so it needs this protection
path = {path}
"""

_WEBHOOK_TABLE: Final = """\
[webhooks.{name}]
{rules}
secrets = [{{ file = {secret} }}]    # mode 0600; during a change list both, with not_after and not_before
"""
_HMAC_RULES: Final = """\
source = "hmac"
options = { header = "X-Signature" }    # docs/reference/senders.md: encoding, prefix, signed parts
id = "header:X-Event-Id"        # the sender's id of the event: equal ids are repeats of one event
type = "json:/type"             # the type of event
# key = "json:/account/id"      # events with the same key stay in order"""


def settings_without(table: str, name: str, file: Path) -> str:
    """Return the text of the settings file, after checking that it has no integration of that table and name.

    Raises:
        UsageRefused: The name is invalid or taken, or the file cannot be read.
        ConfigError: The file is not TOML.
    """
    if not _NAME.fullmatch(name):
        raise UsageRefused(
            "integration_name", f"{name!r} is not a valid name; write 1 to 63 lower case letters, digits and dashes"
        )
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageRefused("config_unreadable", f"{file}: cannot be read ({error.strerror})") from None
    tables = parse_toml(file, raw)
    if name in tables.get(table, {}):
        raise UsageRefused(
            "integration_exists", f"{file} already has [{table}.{name}]; choose another name or edit that table"
        )
    return raw.decode()


def append_tables(file: Path, text: str, tables: str) -> None:
    """Append tables to a settings file that holds ``text`` now; beside a new file, write its JSON Schema."""
    if not text:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_schema_beside(file)
        text = f"{FIRST_LINE}\n"
        file.write_text(text, "utf-8")
        tables = tables.removeprefix("\n")
    else:
        tables = f"\n{tables}" if text.endswith("\n") else f"\n\n{tables}"
    with file.open("a", encoding="utf-8") as settings:
        settings.write(tables)


def write_secret(path: Path, secret: str = "") -> str:
    """Write a secret, by default a new one, to a file that only its owner can read; return the secret.

    Raises:
        UsageRefused: The file already exists.
    """
    secret = secret or secrets.token_urlsafe(_SECRET_BYTES)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise _secret_exists(path) from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secret)
    return secret


def _secret_exists(path: Path) -> UsageRefused:
    return UsageRefused(
        "secret_exists", f"{path} already exists, and is never overwritten; move it or choose another name"
    )


def ensure_addable(file: Path, integrations: Sequence[tuple[str, str]]) -> None:
    """Check, before anything is written, that integrations can be added one after another.

    Args:
        file: The settings file; it may be absent.
        integrations: Table and name of each.

    Raises:
        UsageRefused: As for :func:`settings_without` and :func:`write_secret`, or two have the same table and name.
    """
    for number, (table, name) in enumerate(integrations):
        settings_without(table, name, file)
        if (table, name) in integrations[:number]:
            raise UsageRefused(
                "integration_exists",
                f"two of the senders would be [{table}.{name}]; name one of them here, and add the other with "
                "`integration new` and another name",
            )
        if table == "ecs" and _ecs_secret(file, name).exists():
            raise _secret_exists(_ecs_secret(file, name))


def _ecs_secret(file: Path, name: str) -> Path:
    return file.parent / "secrets" / f"{name}-webhook"


def add_ecs(
    file: Path,
    name: str,
    *,
    partner_guid: UUID | None = None,
    base_url: str = BASE_URL,
    scheme: str = "shared-secret",
    hosts: tuple[Sequence[str], Sequence[str], Sequence[str]] = ((), (), ()),
    show_secret: bool = False,
) -> Sheet:
    """Add an ECS integration with a new webhook secret, and a new key for results unless the settings have one.

    Args:
        file: The settings file; it may be absent.
        name: Name of the integration.
        partner_guid: Default: a new one.
        base_url: Public URL of the ingress.
        scheme: A key of ``ECS_HEADERS``.
        hosts: Allowed hosts of input, result and callback.
        show_secret: Whether the sheet shows the secret.

    Raises:
        UsageRefused: As for :func:`settings_without` and :func:`write_secret`.
    """
    text = settings_without("ecs", name, file)
    secret_file = _ecs_secret(file, name)
    secret = write_secret(secret_file)
    guid = partner_guid or uuid4()
    table = _ECS_TABLE.format(
        name=name,
        partner_guid=guid,
        scheme=scheme,
        header=ECS_HEADERS[scheme],
        secret=toml_value(f"secrets/{secret_file.name}"),
        token=toml_value(f"secrets/{name}-token"),
        **{purpose: toml_value(list(names)) for purpose, names in zip(_HOSTS, hosts, strict=True)},
    )
    append_tables(file, text, _parts_table(file, text) + table)
    return {
        "name": name,
        "partner_guid": str(guid),
        "webhook_url": f"{base_url.rstrip('/')}/webhooks/ecs/{name}",
        "scheme": scheme,
        "header": ECS_HEADERS[scheme],
        "secret_file": str(secret_file),
        "secret": secret if show_secret else None,
        "settings_file": str(file),
    }


_HOSTS: Final = ("input", "result", "callback")


def _parts_table(file: Path, text: str) -> str:
    """Return a ``[parts]`` table with a new key; empty if the settings already have that table."""
    if "parts" in parse_toml(file, text.encode()):
        return ""
    key = "secrets/part-key"
    if not (file.parent / key).exists():
        write_secret(file.parent / key, new_part_key())
    return _PARTS_TABLE.format(key=toml_value(key))


def print_ecs_sheet(sheet: Sheet) -> None:
    """Print the facts to hand to ECS, and the next step."""
    settings_file = Path(str(sheet["settings_file"]))
    click.echo("For ECS's initial configuration:\n")
    fields = {
        "Name of integration": sheet["name"],
        "Partner GUID": sheet["partner_guid"],
        "Webhook URL": sheet["webhook_url"],
        "Webhook secret": sheet["secret"] or f"in {sheet['secret_file']}; hand it over through a secure channel",
        "Sent in": f"header {sheet['header']} ({sheet['scheme']})",
    }
    print_fields(fields)
    token_file = settings_file.parent / "secrets" / f"{sheet['name']}-token"
    click.echo(f"\nWritten: [ecs.{sheet['name']}] in {settings_file}.")
    click.echo(f"Next: put the JWT from ECS into {token_file}, fill in the hosts, run `pipeline config check`.")


def add_weavr(
    file: Path,
    name: str,
    *,
    base_url: str = BASE_URL,
    path_secret: bool = False,
    source_addresses: Sequence[str] = (),
    show_secret: bool = False,
) -> Sheet:
    """Add a Weavr integration; its API key is still missing.

    Args:
        file: The settings file; it may be absent.
        name: Name of the integration.
        base_url: Public URL of the ingress.
        path_secret: Whether to put a secret into the URL; it protects the paths that Weavr does not sign.
        source_addresses: Networks from which unsigned events are accepted.
        show_secret: Whether the sheet shows the URL with its secret.

    Raises:
        UsageRefused: As for :func:`settings_without` and :func:`write_secret`.
    """
    text = settings_without("weavr", name, file)
    key = f"secrets/{name}-weavr-key"
    path_file = f"secrets/{name}-weavr-path"
    secret = write_secret(file.parent / path_file) if path_secret else None
    table = _WEAVR_TABLE.format(name=name, key=toml_value(key))
    if secret:
        table += _SEGMENT.format(file=toml_value(path_file))
    append_tables(file, text, table + _unsigned(name, source_addresses, path_secret=path_secret))
    url = f"{base_url.rstrip('/')}/webhooks/weavr/{name}"
    return {
        "name": name,
        "webhook_url": f"{url}/{secret if show_secret else _PLACEHOLDER}" if secret else url,
        "key_file": str(file.parent / key),
        "path_secret_file": str(file.parent / path_file) if secret else None,
        "settings_file": str(file),
    }


def _unsigned(name: str, addresses: Sequence[str], *, path_secret: bool) -> str:
    if not addresses and not path_secret:
        return ""
    protection = f"source_addresses = {toml_value(addresses)}\n" if addresses else ""
    protection += "require_path_secret = true\n" if path_secret else ""
    paths = [kind.path for kind in KINDS if not kind.signed]
    return "".join(_UNSIGNED.format(name=name, path=toml_value(path)) + protection for path in paths)


def print_weavr_sheet(sheet: Sheet) -> None:
    """Print what to enter at Weavr, and where to put the API key."""
    click.echo("To enter at Weavr:\n")
    fields = {"Webhook URL": sheet["webhook_url"]}
    if str(sheet["webhook_url"]).endswith(_PLACEHOLDER):
        fields["With"] = f"{_PLACEHOLDER} = the content of {sheet['path_secret_file']}"
    print_fields(fields)
    click.echo(f"\nWritten: [weavr.{sheet['name']}] in {sheet['settings_file']}.")
    click.echo("Next: Weavr signs with the API key of your OLDEST API client. Put that key into this file:")
    _print_paste(sheet["key_file"])
    click.echo("and run `pipeline config check`; docs/how-to/connect-weavr.md has every step.")


def add_webhook(
    file: Path,
    name: str,
    *,
    sender: str,
    base_url: str = BASE_URL,
    new_secret: bool = False,
    show_secret: bool = False,
) -> Sheet:
    """Add a source of webhooks by settings alone.

    Args:
        file: The settings file; it may be absent.
        name: Name of the source.
        sender: A preset, or ``hmac`` or ``standard-webhooks``.
        base_url: Public URL of the ingress.
        new_secret: Whether to make a new secret, for a sender that lets you choose it.
        show_secret: Whether the sheet shows the new secret.

    Raises:
        UsageRefused: As for :func:`settings_without` and :func:`write_secret`.
    """
    text = settings_without("webhooks", name, file)
    secret_file = f"secrets/{name}-source"  # an ECS integration of the same name has NAME-webhook
    secret = write_secret(file.parent / secret_file) if new_secret else None
    rules = {"hmac": _HMAC_RULES, "standard-webhooks": 'source = "standard-webhooks"'}
    rule = rules.get(sender, f"preset = {toml_value(sender)}")
    table = _WEBHOOK_TABLE.format(name=name, rules=rule, secret=toml_value(secret_file))
    append_tables(file, text, table)
    return {
        "name": name,
        "sender": sender,
        "webhook_url": f"{base_url.rstrip('/')}/webhooks/sources/{name}",
        "secret_file": str(file.parent / secret_file),
        "secret": secret if show_secret else None,
        "topic": f"webhook-events.{name}",
        "settings_file": str(file),
    }


def print_webhook_sheet(sheet: Sheet) -> None:
    """Print what to enter at the sender, and where to put its secret."""
    there = Path(str(sheet["secret_file"])).exists()
    click.echo("To enter at the sender:\n")
    fields = {"Webhook URL": sheet["webhook_url"]}
    if there:
        fields["Secret"] = sheet["secret"] or f"the content of {sheet['secret_file']}"
    print_fields(fields)
    click.echo(f"\nWritten: [webhooks.{sheet['name']}] in {sheet['settings_file']}. Events go to {sheet['topic']}.")
    if there:
        click.echo("Next: run `pipeline config check`.")
        return
    click.echo("Next: put the secret that the sender shows you into this file:")
    _print_paste(sheet["secret_file"])
    click.echo("and run `pipeline config check`; docs/reference/senders.md says more about each sender.")


def _print_paste(file: str | None) -> None:
    folder = Path(str(file)).parent
    click.echo(f"  (umask 077; mkdir -p {folder}; cat > {file})    # paste, Enter, Ctrl-D")

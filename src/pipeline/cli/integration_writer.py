"""What `pipeline init` and `integration new` write: tables of a settings file, files of secrets, and sheets."""

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
"""On a sheet, in place of the ingress's public URL if none was given."""

ECS_HEADERS: Final = {"shared-secret": "X-Webhook-Secret", "hmac": "X-Webhook-Signature"}
"""The header in which ECS sends its proof, by scheme."""

Sheet = dict[str, str | None]
"""What a person needs to know of a new integration: ``--json`` prints it as it is."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SECRET_BYTES: Final = 32
_PLACEHOLDER: Final = "SECRET-OF-THE-PATH"

_PARTS_TABLE: Final = """\
[parts]                         # results of cards are encrypted in the store
keys = [{{ id = "1", file = {key} }}]

"""

_ECS_TABLE: Final = """\
[ecs.{name}]
partner_guid = "{partner_guid}"
# success_status = 202          # 200, 202 or 204: what ECS takes for success

[ecs.{name}.webhook]
scheme = "{scheme}"
header = "{header}"
secrets = [{{ file = {secret} }}]

[ecs.{name}.callback]
token_file = {token}  # put the JWT from ECS there, mode 0600

[ecs.{name}.hosts]              # no other host is talked to
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
# your API key at Weavr, mode 0600; while it changes, both, with not_after and not_before
secrets = [{{ file = {key} }}]
"""
_SEGMENT: Final = "path_secret_file = {file}\n"
_UNSIGNED: Final = """
[[weavr.{name}.unsigned_paths]]    # Weavr does not sign it: taken only with this protection
path = {path}
"""

_WEBHOOK_TABLE: Final = """\
[webhooks.{name}]
{rules}
secrets = [{{ file = {secret} }}]    # mode 0600; while it changes, both, with not_after and not_before
"""
_HMAC_RULES: Final = """\
source = "hmac"
options = { header = "X-Signature" }    # docs/reference/senders.md: encoding, prefix, signed parts
id = "header:X-Event-Id"        # the sender's id of the event, so that its repeats are one event
type = "json:/type"             # the type of event
# key = "json:/account/id"      # events of one key stay in order"""


def settings_without(table: str, name: str, file: Path) -> str:
    """Return the settings file's text, if an integration of that table and name can be added to it.

    Raises:
        UsageRefused: The name is none or is taken, or the file cannot be read.
        ConfigError: The file is not TOML.
    """
    if not _NAME.fullmatch(name):
        raise UsageRefused(
            "integration_name", f"{name!r} is no name; write 1 to 63 lower case letters, digits and dashes"
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
            "integration_exists", f"{file} has an [{table}.{name}] already; choose another name or edit it"
        )
    return raw.decode()


def append_tables(file: Path, text: str, tables: str) -> None:
    """Append tables to a settings file that holds ``text`` so far; a new file gets its schema too."""
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
    """Return the secret, by default a new one, written to a file for its owner alone.

    Raises:
        UsageRefused: The file is there already.
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
        "secret_exists", f"{path} is there already and is not overwritten; move it away or choose another name"
    )


def ensure_addable(file: Path, integrations: Sequence[tuple[str, str]]) -> None:
    """Refuse integrations that could not be added one after the other: before anything is written.

    Args:
        file: The settings file; it need not exist.
        integrations: Table and name of each.

    Raises:
        UsageRefused: As of :func:`settings_without` and :func:`write_secret`, or two have the same table and name.
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
    """Add an ECS integration with a new webhook secret, and a key for results unless the file names one.

    Args:
        file: The settings file; it need not exist.
        name: Of the integration.
        partner_guid: Default: a new one.
        base_url: Public URL of the ingress.
        scheme: A key of ``ECS_HEADERS``.
        hosts: Of input, result and callback.
        show_secret: Whether the sheet has the secret.

    Raises:
        UsageRefused: As of :func:`settings_without` and :func:`write_secret`.
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
    """Return the table of the key of results with a new key, unless the settings have such a table."""
    if "parts" in parse_toml(file, text.encode()):
        return ""
    key = "secrets/part-key"
    if not (file.parent / key).exists():
        write_secret(file.parent / key, new_part_key())
    return _PARTS_TABLE.format(key=toml_value(key))


def print_ecs_sheet(sheet: Sheet) -> None:
    """Print what to hand to ECS, and what to do next."""
    settings_file = Path(str(sheet["settings_file"]))
    click.echo("For ECS's initial configuration:\n")
    fields = {
        "Name of integration": sheet["name"],
        "Partner GUID": sheet["partner_guid"],
        "Webhook URL": sheet["webhook_url"],
        "Webhook secret": sheet["secret"] or f"in {sheet['secret_file']}: hand it over by a safe way",
        "Sent in": f"header {sheet['header']} ({sheet['scheme']})",
    }
    print_fields(fields)
    token_file = settings_file.parent / "secrets" / f"{sheet['name']}-token"
    click.echo(f"\nWritten: [ecs.{sheet['name']}] in {settings_file}.")
    click.echo(f"Next: put the JWT from ECS into {token_file}, name the hosts, run `pipeline config check`.")


def add_weavr(
    file: Path,
    name: str,
    *,
    base_url: str = BASE_URL,
    path_secret: bool = False,
    source_addresses: Sequence[str] = (),
    show_secret: bool = False,
) -> Sheet:
    """Add a Weavr integration that waits for its API key.

    Args:
        file: The settings file; it need not exist.
        name: Of the integration.
        base_url: Public URL of the ingress.
        path_secret: Whether the URL gets a secret, which protects the paths that Weavr does not sign.
        source_addresses: Networks that unsigned events may come from.
        show_secret: Whether the sheet has the URL with its secret.

    Raises:
        UsageRefused: As of :func:`settings_without` and :func:`write_secret`.
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
    """Print what to enter at Weavr, and where its API key belongs."""
    click.echo("To enter at Weavr:\n")
    fields = {"Webhook URL": sheet["webhook_url"]}
    if str(sheet["webhook_url"]).endswith(_PLACEHOLDER):
        fields["With"] = f"{_PLACEHOLDER} = the content of {sheet['path_secret_file']}"
    print_fields(fields)
    click.echo(f"\nWritten: [weavr.{sheet['name']}] in {sheet['settings_file']}.")
    click.echo("Next: put the API key of your OLDEST API client at Weavr, which is the one that signs, into its file:")
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
    """Add a source of webhooks that needs no code.

    Args:
        file: The settings file; it need not exist.
        name: Of the source.
        sender: A preset, or ``hmac`` or ``standard-webhooks``.
        base_url: Public URL of the ingress.
        new_secret: Whether to make the secret here, for a sender that lets you choose it.
        show_secret: Whether the sheet has the new secret.

    Raises:
        UsageRefused: As of :func:`settings_without` and :func:`write_secret`.
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
    """Print what to enter at the sender, and where its secret belongs."""
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
    click.echo("Next: put the secret that the sender shows you into its file:")
    _print_paste(sheet["secret_file"])
    click.echo("and run `pipeline config check`; docs/reference/senders.md says more about each sender.")


def _print_paste(file: str | None) -> None:
    folder = Path(str(file)).parent
    click.echo(f"  (umask 077; mkdir -p {folder}; cat > {file})    # paste, Enter, Ctrl-D")

"""``pipeline integration``: add an integration to the settings file, with its secrets, and print a sheet."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import click

from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import UsageRefused
from pipeline.cli.integration_switch import pause, resume
from pipeline.cli.output import json_option, print_fields, print_json
from pipeline.contracts.weavr import KINDS
from pipeline.jobs.part_encryption import new_part_key
from pipeline.settings import parse_toml, toml_value

BASE_URL: Final = "https://YOUR-HOST"
"""On a sheet, in place of the ingress's public URL if none was given."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SECRET_BYTES: Final = 32


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


def append_block(file: Path, text: str, block: str) -> None:
    """Append a block to a settings file that holds ``text`` so far."""
    with file.open("a", encoding="utf-8") as settings:
        settings.write(block if not text else f"\n{block}" if text.endswith("\n") else f"\n\n{block}")


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
        raise UsageRefused(
            "secret_exists", f"{path} is there already and is not overwritten; move it away or choose another name"
        ) from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secret)
    return secret


_WEAVR_BLOCK: Final = """\
[weavr.{name}]
# your API key at Weavr, mode 0600; while it changes, both, with not_after and not_before
secrets = [{{ file = {key} }}]
"""
_SEGMENT: Final = "path_secret_file = {file}\n"
_UNSIGNED: Final = """
[[weavr.{name}.unsigned_paths]]    # Weavr does not sign it: taken only with this protection
path = {path}
"""
_PLACEHOLDER: Final = "SECRET-OF-THE-PATH"


@click.command(
    epilog="""\b
Examples:
  pipeline integration new weavr acme --base-url https://hooks.example.com
  pipeline integration new weavr acme --path-secret --json"""
)
@click.argument("name")
@click.option("--base-url", default=BASE_URL, help="Public URL of the ingress, without a path.")
@click.option(
    "--path-secret", is_flag=True, help="Put a secret into the URL: it protects the paths that Weavr does not sign."
)
@click.option(
    "--source-address",
    multiple=True,
    metavar="CIDR",
    help="Network that unsigned events may come from; may be repeated.",
)
@click.option("--show-secret", is_flag=True, help="Print the URL with its secret.")
@json_option
@pass_setup
def weavr(
    setup: Setup,
    *,
    name: str,
    base_url: str,
    path_secret: bool,
    source_address: tuple[str, ...],
    show_secret: bool,
    as_json: bool,
) -> None:
    """Write the settings of a Weavr integration NAME; print what to enter at Weavr, and where its API key belongs.

    The block is appended to the settings file; nothing else in it changes. The API key is yours: put it into the
    file that is named. With --path-secret, a secret goes to secrets/NAME-weavr-path, readable by you alone.
    """
    _check_networks(source_address)
    file = setup.target
    text = settings_without("weavr", name, file)
    key = f"secrets/{name}-weavr-key"
    path_file = f"secrets/{name}-weavr-path"
    secret = write_secret(file.parent / path_file) if path_secret else None
    block = _WEAVR_BLOCK.format(name=name, key=toml_value(key))
    if secret:
        block += _SEGMENT.format(file=toml_value(path_file))
    append_block(file, text, block + _unsigned(name, source_address, path_secret=path_secret))
    url = f"{base_url.rstrip('/')}/webhooks/weavr/{name}"
    sheet = {
        "name": name,
        "webhook_url": f"{url}/{secret if show_secret else _PLACEHOLDER}" if secret else url,
        "key_file": str(file.parent / key),
        "path_secret_file": str(file.parent / path_file) if secret else None,
        "settings_file": str(file),
    }
    if as_json:
        print_json(sheet)
        return
    _print_weavr_sheet(sheet, hidden=bool(secret) and not show_secret)


def _check_networks(addresses: Sequence[str]) -> None:
    for address in addresses:
        try:
            ip_network(address)
        except ValueError:
            raise UsageRefused(
                "source_address",
                f"{address!r} is not a network; write e.g. 192.0.2.0/24, all bits after the prefix zero",
            ) from None


def _unsigned(name: str, addresses: Sequence[str], *, path_secret: bool) -> str:
    if not addresses and not path_secret:
        return ""
    protection = f"source_addresses = {toml_value(addresses)}\n" if addresses else ""
    protection += "require_path_secret = true\n" if path_secret else ""
    paths = [kind.path for kind in KINDS if not kind.signed]
    return "".join(_UNSIGNED.format(name=name, path=toml_value(path)) + protection for path in paths)


def _print_weavr_sheet(sheet: dict[str, str | None], *, hidden: bool) -> None:
    click.echo("To enter at Weavr:\n")
    fields = {"Webhook URL": sheet["webhook_url"]}
    if hidden:
        fields["With"] = f"{_PLACEHOLDER} = the content of {sheet['path_secret_file']}"
    print_fields(fields)
    click.echo(f"\nWritten: [weavr.{sheet['name']}] in {sheet['settings_file']}.")
    click.echo("Next: put the API key of your OLDEST API client at Weavr, which is the one that signs, into its file:")
    click.echo(f"  (umask 077; mkdir -p secrets; cat > {sheet['key_file']})    # paste, Enter, Ctrl-D")
    click.echo("and run `pipeline config check`; docs/weavr-setup.md has every step.")


_HEADERS: Final = {"shared-secret": "X-Webhook-Secret", "hmac": "X-Webhook-Signature"}

_PARTS_BLOCK: Final = """\
[parts]                         # results of cards are encrypted in the store
keys = [{{ id = "1", file = {key} }}]

"""

_ECS_BLOCK: Final = """\
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


@click.group()
def integration() -> None:
    """Set up, pause and resume integrations."""


integration.add_command(pause)
integration.add_command(resume)


@integration.group()
def new() -> None:
    """Add an integration to the settings file."""


new.add_command(weavr)


@new.command(
    epilog="""\b
Examples:
  pipeline integration new ecs acme --base-url https://hooks.example.com
  pipeline integration new ecs acme --input-host files.example.com --json"""
)
@click.argument("name")
@click.option("--partner-guid", type=click.UUID, help="Your partner GUID at ECS. Default: a new one.")
@click.option("--base-url", default=BASE_URL, help="Public URL of the ingress, without a path.")
@click.option(
    "--scheme",
    type=click.Choice(tuple(_HEADERS)),
    default="shared-secret",
    show_default=True,
    help="How ECS proves that it is ECS: the secret in a header, or an HMAC-SHA256 of the body in hex.",
)
@click.option("--input-host", multiple=True, help="Host of input_file_url; may be repeated.")
@click.option("--result-host", multiple=True, help="Host of result_upload_url; may be repeated.")
@click.option("--callback-host", multiple=True, help="Host of callback_url; may be repeated.")
@click.option("--show-secret", is_flag=True, help="Print the secret too.")
@json_option
@pass_setup
def ecs(
    setup: Setup,
    *,
    name: str,
    partner_guid: UUID | None,
    base_url: str,
    scheme: str,
    input_host: tuple[str, ...],
    result_host: tuple[str, ...],
    callback_host: tuple[str, ...],
    show_secret: bool,
    as_json: bool,
) -> None:
    """Write the settings of an ECS integration NAME and a webhook secret; print the sheet to hand to ECS.

    The block is appended to the settings file; nothing else in it changes. The secret goes to
    secrets/NAME-webhook beside that file, readable by you alone, and is never overwritten. Where the settings name no
    key for results in the store, a new one goes to secrets/part-key.
    """
    file = setup.target
    text = settings_without("ecs", name, file)
    secret_file = file.parent / "secrets" / f"{name}-webhook"
    secret = write_secret(secret_file)
    guid = partner_guid or uuid4()
    block = _ECS_BLOCK.format(
        name=name,
        partner_guid=guid,
        scheme=scheme,
        header=_HEADERS[scheme],
        secret=toml_value(f"secrets/{name}-webhook"),
        token=toml_value(f"secrets/{name}-token"),
        input=toml_value(input_host),
        result=toml_value(result_host),
        callback=toml_value(callback_host),
    )
    append_block(file, text, _parts_block(file, text) + block)
    sheet = {
        "name": name,
        "partner_guid": str(guid),
        "webhook_url": f"{base_url.rstrip('/')}/webhooks/ecs/{name}",
        "scheme": scheme,
        "header": _HEADERS[scheme],
        "secret_file": str(secret_file),
        "secret": secret if show_secret else None,
        "settings_file": str(file),
    }
    if as_json:
        print_json(sheet)
        return
    _print_ecs_sheet(sheet, token_file=file.parent / "secrets" / f"{name}-token")


def _parts_block(file: Path, text: str) -> str:
    """Return the table of the parts' key with a new key, unless the settings have such a table."""
    if "parts" in parse_toml(file, text.encode()):
        return ""
    key = "secrets/part-key"
    if not (file.parent / key).exists():
        write_secret(file.parent / key, new_part_key())
    return _PARTS_BLOCK.format(key=toml_value(key))


def _print_ecs_sheet(sheet: dict[str, str | None], token_file: Path) -> None:
    click.echo("For ECS's initial configuration:\n")
    fields = {
        "Name of integration": sheet["name"],
        "Partner GUID": sheet["partner_guid"],
        "Webhook URL": sheet["webhook_url"],
        "Webhook secret": sheet["secret"] or f"in {sheet['secret_file']}: hand it over by a safe way",
        "Sent in": f"header {sheet['header']} ({sheet['scheme']})",
    }
    print_fields(fields)
    click.echo(f"\nWritten: [ecs.{sheet['name']}] in {sheet['settings_file']}.")
    click.echo(f"Next: put the JWT from ECS into {token_file}, name the hosts, run `pipeline config check`.")

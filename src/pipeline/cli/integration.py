"""``pipeline integration new``: the settings block, secrets, and the sheet to hand to the partner."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import click

from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.integration_weavr import weavr
from pipeline.cli.output import json_option, print_fields, print_json
from pipeline.cli.settings_file import BASE_URL, append_block, settings_without, write_secret
from pipeline.settings import toml_value

_HEADERS: Final = {"shared-secret": "X-Webhook-Secret", "hmac": "X-Webhook-Signature"}

_BLOCK: Final = """\
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
    """Set up integrations."""


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
    secrets/NAME-webhook beside that file, readable by you alone, and is never overwritten.
    """
    file = setup.target
    text = settings_without("ecs", name, file)
    secret_file = file.parent / "secrets" / f"{name}-webhook"
    secret = write_secret(secret_file)
    guid = partner_guid or uuid4()
    block = _BLOCK.format(
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
    append_block(file, text, block)
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
    _print_sheet(sheet, token_file=file.parent / "secrets" / f"{name}-token")


def _print_sheet(sheet: dict[str, str | None], token_file: Path) -> None:
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

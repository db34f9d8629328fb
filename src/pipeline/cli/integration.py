"""``pipeline integration``: add an integration and its secrets to the settings, and print what its partner needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_network
from typing import Any, Final, get_args
from uuid import UUID

import click

from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import UsageRefused
from pipeline.cli.integration_switch import pause, resume
from pipeline.cli.integration_writer import (
    BASE_URL,
    ECS_HEADERS,
    Sheet,
    add_ecs,
    add_weavr,
    add_webhook,
    print_ecs_sheet,
    print_weavr_sheet,
    print_webhook_sheet,
)
from pipeline.cli.output import json_option, print_json
from pipeline.webhooks.verification import PresetName

SENDERS: Final = (*get_args(PresetName), "hmac", "standard-webhooks")
"""The values of ``integration new webhook --sender``: the presets, and two kinds of source for other senders."""

base_url_option: Final = click.option("--base-url", default=BASE_URL, help="Public URL of the ingress, without a path.")


@click.group()
def integration() -> None:
    """Set up, pause and resume integrations."""


integration.add_command(pause)
integration.add_command(resume)


@integration.group()
def new() -> None:
    """Add an integration to the settings file."""


@new.command(
    epilog="""\b
Examples:
  pipeline integration new ecs acme --base-url https://hooks.example.com
  pipeline integration new ecs acme --input-host files.example.com --json"""
)
@click.argument("name")
@click.option("--partner-guid", type=click.UUID, help="Your partner GUID at ECS. Default: a new one.")
@base_url_option
@click.option(
    "--scheme",
    type=click.Choice(tuple(ECS_HEADERS)),
    default="shared-secret",
    show_default=True,
    help="How ECS authenticates: with the secret in a header, or with an HMAC-SHA256 of the body in hex.",
)
@click.option("--input-host", multiple=True, help="Allowed host of input_file_url. Repeatable.")
@click.option("--result-host", multiple=True, help="Allowed host of result_upload_url. Repeatable.")
@click.option("--callback-host", multiple=True, help="Allowed host of callback_url. Repeatable.")
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
    """Add an ECS integration NAME with a new webhook secret; print the sheet to hand to ECS.

    Appends tables to the settings file and changes nothing else in it. Writes the secret to secrets/NAME-webhook
    beside that file, readable only by you, and never overwrites it. If the settings have no key to encrypt results in
    the store, writes a new one to secrets/part-key.
    """
    sheet = add_ecs(
        setup.target,
        name,
        partner_guid=partner_guid,
        base_url=base_url,
        scheme=scheme,
        hosts=(input_host, result_host, callback_host),
        show_secret=show_secret,
    )
    _print(sheet, print_ecs_sheet, as_json=as_json)


@new.command(
    epilog="""\b
Examples:
  pipeline integration new weavr acme --base-url https://hooks.example.com
  pipeline integration new weavr acme --path-secret --json"""
)
@click.argument("name")
@base_url_option
@click.option(
    "--path-secret", is_flag=True, help="Put a secret into the URL. It protects the paths that Weavr does not sign."
)
@click.option(
    "--source-address",
    multiple=True,
    metavar="CIDR",
    help="Network from which unsigned events are accepted. Repeatable.",
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
    """Add a Weavr integration NAME; print what to enter at Weavr, and where to put your Weavr API key.

    Appends tables to the settings file and changes nothing else in it. Put your API key into the file that the output
    names. With --path-secret, writes a new secret to secrets/NAME-weavr-path, readable only by you.
    """
    _check_networks(source_address)
    sheet = add_weavr(
        setup.target,
        name,
        base_url=base_url,
        path_secret=path_secret,
        source_addresses=source_address,
        show_secret=show_secret,
    )
    _print(sheet, print_weavr_sheet, as_json=as_json)


def _check_networks(addresses: Sequence[str]) -> None:
    for address in addresses:
        try:
            ip_network(address)
        except ValueError:
            raise UsageRefused(
                "source_address",
                f"{address!r} is not a network; write e.g. 192.0.2.0/24, with zero bits after the prefix",
            ) from None


@new.command(
    epilog="""\b
Examples:
  pipeline integration new webhook shop --sender stripe --base-url https://hooks.example.com
  pipeline integration new webhook repo --sender github --new-secret
  pipeline integration new webhook kyc --sender hmac"""
)
@click.argument("name")
@click.option(
    "--sender",
    type=click.Choice(SENDERS),
    required=True,
    metavar="SENDER",
    help="github, stripe or another of docs/reference/senders.md; hmac or standard-webhooks for any other sender.",
)
@base_url_option
@click.option("--new-secret", is_flag=True, help="Make a new secret, for a sender that lets you choose it.")
@click.option("--show-secret", is_flag=True, help="Print the new secret.")
@json_option
@pass_setup
def webhook(
    setup: Setup, *, name: str, sender: str, base_url: str, new_secret: bool, show_secret: bool, as_json: bool
) -> None:
    """Add a source NAME of webhooks; print what to enter at the sender, and where to put its secret.

    Appends a table to the settings file and changes nothing else in it. With --new-secret, writes a new secret to
    secrets/NAME-source, readable only by you, and never overwrites it.
    """
    sheet = add_webhook(
        setup.target, name, sender=sender, base_url=base_url, new_secret=new_secret, show_secret=show_secret
    )
    _print(sheet, print_webhook_sheet, as_json=as_json)


def _print(sheet: Sheet, as_text: Callable[[Sheet], Any], *, as_json: bool) -> None:
    if as_json:
        print_json(sheet)
    else:
        as_text(sheet)

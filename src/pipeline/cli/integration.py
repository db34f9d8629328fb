"""``pipeline integration``: add an integration to the settings file, with its secrets, and print a sheet."""

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
"""Whom ``integration new webhook`` knows: the presets, and the two kinds of source for all others."""

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

    The tables are appended to the settings file; nothing else in it changes. The secret goes to
    secrets/NAME-webhook beside that file, readable by you alone, and is never overwritten. Where the settings name no
    key for results in the store, a new one goes to secrets/part-key.
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

    The tables are appended to the settings file; nothing else in it changes. The API key is yours: put it into the
    file that is named. With --path-secret, a secret goes to secrets/NAME-weavr-path, readable by you alone.
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
                f"{address!r} is not a network; write e.g. 192.0.2.0/24, all bits after the prefix zero",
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
    help="github, stripe or another of docs/reference/senders.md; hmac or standard-webhooks for all others.",
)
@base_url_option
@click.option("--new-secret", is_flag=True, help="Make the secret here, for a sender that lets you choose it.")
@click.option("--show-secret", is_flag=True, help="Print the new secret.")
@json_option
@pass_setup
def webhook(
    setup: Setup, *, name: str, sender: str, base_url: str, new_secret: bool, show_secret: bool, as_json: bool
) -> None:
    """Write the settings of a source NAME; print what to enter at the sender, and where its secret belongs.

    The table is appended to the settings file; nothing else in it changes. With --new-secret, a secret goes to
    secrets/NAME-source, readable by you alone, and is never overwritten.
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

"""``pipeline integration new weavr NAME``: the settings block, and what to enter at Weavr."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final

import click

from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import UsageRefused
from pipeline.cli.output import json_option, print_fields, print_json
from pipeline.cli.settings_file import BASE_URL, append_block, settings_without, write_secret
from pipeline.contracts.weavr import KINDS
from pipeline.settings import toml_value

_BLOCK: Final = """\
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
    block = _BLOCK.format(name=name, key=toml_value(key))
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
    _print_sheet(sheet, hidden=bool(secret) and not show_secret)


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


def _print_sheet(sheet: dict[str, str | None], *, hidden: bool) -> None:
    click.echo("To enter at Weavr:\n")
    fields = {"Webhook URL": sheet["webhook_url"]}
    if hidden:
        fields["With"] = f"{_PLACEHOLDER} = the content of {sheet['path_secret_file']}"
    print_fields(fields)
    click.echo(f"\nWritten: [weavr.{sheet['name']}] in {sheet['settings_file']}.")
    click.echo("Next: put the API key of your OLDEST API client at Weavr, which is the one that signs, into its file:")
    click.echo(f"  (umask 077; mkdir -p secrets; cat > {sheet['key_file']})    # paste, Enter, Ctrl-D")
    click.echo("and run `pipeline config check`; docs/weavr-setup.md has every step.")

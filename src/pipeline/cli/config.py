"""``pipeline config``: check the settings file, and show the settings in effect."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from pipeline.app import rehearse
from pipeline.cli.context import Setup, pass_setup, print_warning
from pipeline.cli.exits import ExitCode
from pipeline.cli.output import json_option, print_json
from pipeline.observability import is_secret_name
from pipeline.settings import ConfigError, Settings, part_key_problems, toml_value
from pipeline.settings.agreement import shared_store_problems
from pipeline.settings.review import review

_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+@")


@click.group()
def config() -> None:
    """Check and show the settings."""


@config.command(
    epilog="Example: pipeline --config prod.toml config check --json",
)
@click.option(
    "--offline", is_flag=True, help="Read no secret, token or certificate files, and list the skipped ones. For CI."
)
@json_option
@pass_setup
@click.pass_context
def check(ctx: click.Context, setup: Setup, *, offline: bool, as_json: bool) -> None:
    """Report every problem of the settings, of secret files and of retention times. Exit 2 if there is one.

    It refuses the same settings as a server at its start. It makes no connection.
    """
    problems: list[str] = []
    warnings: list[str] = []
    unchecked: list[str] = []
    try:
        settings = setup.settings(
            webhook_secrets=True, warn=warnings.append, unread=unchecked.append if offline else None
        )
    except ConfigError as error:
        problems += error.problems
    else:
        found = review(settings, offline=offline)
        refused = asyncio.run(rehearse(settings, setup.ports, offline=offline))
        if settings.job_names:  # without jobs only AUDIT needs the store, and its start checks it
            problems += shared_store_problems(settings)
        problems += dict.fromkeys([*found.problems, *refused, *(() if offline else part_key_problems(settings))])
        warnings += found.warnings
        unchecked += found.unchecked
    if as_json:
        print_json(
            {
                "ok": not problems,
                "file": setup.path,
                "problems": problems,
                "warnings": warnings,
                "unchecked": unchecked,
            }
        )
    else:
        for warning in warnings:
            print_warning(warning)
        for key in unchecked:
            click.echo(f"unchecked: {key}: file not read (--offline)", err=True)
        for problem in problems:
            click.echo(f"error: config_invalid: {problem}", err=True)
        if not problems:
            click.echo(f"ok: {setup.path or 'defaults, since there is no settings file'}")
    ctx.exit(ExitCode.USAGE if problems else ExitCode.OK)


@config.command(epilog="Example: pipeline config show --json | jq .ecs.acme.limits")
@json_option
@pass_setup
def show(setup: Setup, *, as_json: bool) -> None:
    """Print every setting in effect, defaults included, with secrets masked."""
    values = masked(setup.settings())
    if as_json:
        print_json(values)
        return
    for key, value in _flat(values):
        click.echo(f"{key} = {value}")


def masked(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values, with secrets as asterisks and without credentials in URLs."""
    dumped = settings.model_dump(mode="json")
    for integration in dumped["ecs"].values():
        integration["processor"]["options"] = _options(integration["processor"]["options"])
    for source in dumped["webhooks"].values():
        source["options"] = _options(source["options"])
    cleaned: dict[str, Any] = _without_credentials(dumped)
    return cleaned


def _options(value: Any, name: str = "") -> Any:
    # processors and sources define their own options: only an option's name shows whether it is a secret
    if isinstance(value, dict):
        return {key: _options(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_options(inner, name) for inner in value]
    return "**********" if isinstance(value, str) and is_secret_name(name) else value


def _without_credentials(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_credentials(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_credentials(inner) for inner in value]
    return _CREDENTIALS.sub("***@", value) if isinstance(value, str) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", toml_value(value)

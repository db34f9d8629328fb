"""``pipeline init``: write a settings file to start from."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from pipeline.cli.exits import UsageRefused
from pipeline.cli.integration import SENDERS, base_url_option
from pipeline.cli.integration_writer import (
    Sheet,
    add_ecs,
    add_weavr,
    add_webhook,
    append_tables,
    ensure_addable,
    print_ecs_sheet,
    print_weavr_sheet,
    print_webhook_sheet,
)
from pipeline.cli.output import json_option, print_json
from pipeline.settings import DEFAULT_FILE, toml_value

_EMBEDDED: Final = "embedded"
_FOLDER: Final = "folder"
_BROKERS: Final = re.compile(r"[A-Za-z0-9.\[\]:-]+:[0-9]{1,5}(,[A-Za-z0-9.\[\]:-]+:[0-9]{1,5})*")

_HEAD: Final = """\
# `pipeline config check` reports every problem of this file; docs/reference/settings.md explains every key.
# An environment variable overrides a key: PIPELINE_INGRESS__PORT=8088

"""
_KAFKA: Final = """\
[kafka]
bootstrap_servers = {servers}
# security_protocol and the tables [kafka.tls] and [kafka.sasl]: docs/reference/settings.md

"""
_NO_KAFKA: Final = """\
# [kafka]                       # `pipeline dev` starts its own broker; all other commands need Apache Kafka:
# bootstrap_servers = "kafka-0:9092,kafka-1:9092"

"""
_LOCAL_STORE: Final = """\
[store]                         # receipts and results of jobs, and the audit log
kind = "local"
path = "store"                  # on a persistent disk; several machines need a shared disk, or S3

"""
_S3_STORE: Final = """\
[store]                         # receipts and results of jobs, and the audit log
kind = "s3"
bucket = {bucket}
{prefix}# endpoint = "https://s3.example.com:9000"   # for a server that is not AWS
# region = "us-east-1"
# access_key_id_file = "secrets/s3-id"           # default: from the environment, as for every AWS client
# secret_access_key_file = "secrets/s3-key"

"""
_REST: Final = """\
[ingress]                       # receives the webhooks; a proxy in front of it terminates TLS
host = "127.0.0.1"
port = 8080

[management]                    # probes and metrics; port 0 picks a free port
port = 8081

[logging]
format = "auto"                 # text on a terminal, JSON lines elsewhere
"""


@click.command(
    epilog="""\b
Examples:
  pipeline init                                  # asks
  pipeline init try --sender ecs
  pipeline init shop --sender weavr --sender stripe --kafka kafka-0:9092 --store s3://shop-events"""
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".", metavar="[DIR]")
@click.option(
    "--sender",
    "senders",
    type=click.Choice(("ecs", "weavr", *SENDERS)),
    multiple=True,
    metavar="SENDER",
    help="Who sends the webhooks: ecs, weavr, github, stripe or another of docs/reference/senders.md; hmac or "
    "standard-webhooks for any other sender. Repeatable.",
)
@click.option("--name", help="Name of the integrations. Default: acme for ecs and weavr, otherwise the sender's name.")
@click.option("--kafka", metavar="SERVERS", help="embedded, or the brokers as HOST:PORT,HOST:PORT. Default: embedded.")
@click.option("--store", metavar="WHERE", help="folder, or s3://BUCKET[/PREFIX]. Default: folder.")
@base_url_option
@json_option
def init(
    *,
    folder: Path,
    senders: tuple[str, ...],
    name: str | None,
    kafka: str | None,
    store: str | None,
    base_url: str,
    as_json: bool,
) -> None:
    """Write a settings file to start from.

    Writes DIR/pipeline.toml, with comments; DIR is the current folder by default. On a terminal, it asks for each
    option that you leave out. Beside the file it writes a JSON Schema, which lets editors complete the keys, and new
    secrets in secrets/ (mode 0600). It never overwrites a file. Its last line is the next command to type.
    """
    file = folder / DEFAULT_FILE
    if file.exists():
        raise UsageRefused(
            "settings_exist", f"{file} already exists, and is never overwritten; add to it with `integration new`"
        )
    asks = sys.stdin.isatty() and not as_json
    chosen = senders or _asked_senders(asks=asks)
    brokers = kafka or _ask("Kafka: embedded, or HOST:PORT of the brokers", _EMBEDDED, asks=asks)
    location = store or _ask("Store: folder, or s3://BUCKET", _FOLDER, asks=asks)
    names = [name or ("acme" if sender in _ADDERS else sender) for sender in chosen]
    tables = [sender if sender in _ADDERS else "webhooks" for sender in chosen]
    ensure_addable(file, list(zip(tables, names, strict=True)))
    append_tables(file, "", _HEAD + _kafka(brokers) + _store(location) + _REST)
    added = [(sender, _add(sender, file, one, base_url)) for sender, one in zip(chosen, names, strict=True)]
    if as_json:
        print_json({"settings_file": str(file), "integrations": [sheet for _, sheet in added]})
        return
    for sender, sheet in added:
        _PRINTERS.get(sender, print_webhook_sheet)(sheet)
        click.echo()
    click.echo(f"Next command: {_next_command(file)}")


def _asked_senders(*, asks: bool) -> Sequence[str]:
    if not asks:
        raise UsageRefused("sender_missing", "give --sender, such as --sender ecs: who sends the webhooks")
    click.echo(f"Senders: ecs, weavr, {', '.join(SENDERS)}")
    answer = click.prompt("Who sends the webhooks? Separate several with commas", default="ecs", value_proc=_senders)
    return tuple(answer)


def _senders(text: str) -> Sequence[str]:
    found = [one.strip() for one in text.split(",")]
    wrong = [one for one in found if one not in ("ecs", "weavr", *SENDERS)]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not one of the senders above")
    return found


def _ask(question: str, default: str, *, asks: bool) -> str:
    return str(click.prompt(question, default=default)) if asks else default


def _kafka(servers: str) -> str:
    if servers == _EMBEDDED:
        return _NO_KAFKA
    if not _BROKERS.fullmatch(servers):
        raise UsageRefused("kafka_servers", "--kafka must be embedded, or brokers such as kafka-0:9092,kafka-1:9092")
    return _KAFKA.format(servers=toml_value(servers))


def _store(location: str) -> str:
    if location == _FOLDER:
        return _LOCAL_STORE
    url = urlsplit(location)
    if url.scheme != "s3" or not url.netloc or url.query or url.fragment or "@" in url.netloc:
        raise UsageRefused("store_option", "--store must be folder, or s3://BUCKET, or s3://BUCKET/PREFIX")
    prefix = url.path.strip("/")
    return _S3_STORE.format(bucket=toml_value(url.netloc), prefix=f"prefix = {toml_value(prefix)}\n" if prefix else "")


def _add(sender: str, file: Path, name: str, base_url: str) -> Sheet:
    add = _ADDERS.get(sender)
    return add(file, name, base_url=base_url) if add else add_webhook(file, name, sender=sender, base_url=base_url)


def _next_command(file: Path) -> str:
    config = "" if file == Path(DEFAULT_FILE) else f"--config {shlex.quote(str(file))} "
    return f"pipeline {config}config check"


_ADDERS: Final[dict[str, Callable[..., Sheet]]] = {"ecs": add_ecs, "weavr": add_weavr}
_PRINTERS: Final = {"ecs": print_ecs_sheet, "weavr": print_weavr_sheet}

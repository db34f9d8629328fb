"""``pipeline sandbox send-events``: send signed, repeated and broken Weavr events, and check each answer."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.integration_writer import append_tables
from pipeline.cli.output import json_option, print_fields, print_json, print_table
from pipeline.sandbox import weavr_snippet
from pipeline.sandbox.weavr import (
    Entry,
    Pace,
    SendPlan,
    SigningKeys,
    Totals,
    integration_in,
    mix,
    send_events,
    write_entry,
)

_SHARE: Final = click.FloatRange(0, 1)
_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options of the command."""

    url: str | None
    key_file: Path | None
    count: int
    rate: float | None
    connections: int
    weights: str | None
    entities: int
    call_refs: float
    repeats: float
    out_of_order: float
    new_fields: float
    broken: float
    rotate_to: Path | None
    compress_retries: float
    seed: int
    ledger: Path | None
    folder: Path | None
    integration: str | None
    as_json: bool


def _share(name: str, usual: str, text: str) -> Callable[..., Any]:
    """Return an option with an optional value: 0 without the option, ``usual`` with the option but no value."""
    return click.option(
        name,
        type=_SHARE,
        is_flag=False,
        flag_value=usual,
        default="0",
        show_default=True,
        metavar="[SHARE]",
        help=f"{text} If you leave out SHARE: {usual}.",
    )


@click.command(
    "send-events",
    epilog="""\b
Examples:
  pipeline sandbox send-events --write-settings acme
  pipeline sandbox send-events --url http://127.0.0.1:8080/webhooks/weavr/acme \\
      --key-file acme/secrets/acme-weavr-key --count 10000 --repeats 0.05 --broken
  pipeline sandbox send-events ... --mix 'managed_cards/*=3,login=1' --rate 200 --out-of-order --json
Exit 0: every answer was correct. Exit 1: at least one was wrong. Exit 2: wrong options.""",
)
@click.option("--url", help="URL of the webhook: .../webhooks/weavr/NAME, including its secret segment if it has one.")
@click.option("--key-file", type=_FILE, help="File of the API key that signs the events.")
@click.option(
    "--count", type=click.IntRange(1), default=1000, show_default=True, help="Number of events, not counting repeats."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Events per second. Default: the next as soon as one is answered.",
)
@click.option(
    "--connections", type=click.IntRange(1, 1000), default=16, show_default=True, help="Number of parallel connections."
)
@click.option("--mix", "weights", help="PATH=WEIGHT,...; a path may contain *. Default: all 32 kinds equally often.")
@click.option(
    "--entities",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="Number of cards, of accounts, and so on.",
)
@click.option("--call-refs", type=_SHARE, default=0.8, show_default=True, help="Share of events with a call-ref.")
@_share("--repeats", "0.05", "Share of events to send again after they were accepted.")
@_share("--out-of-order", "0.05", "Share of events to send after the next event of the same entity.")
@_share("--new-fields", "0.1", "Share of events with unknown fields, and share with unknown enum values.")
@_share("--broken", "0.01", "Share of broken events, of every kind of fault.")
@click.option("--rotate-to", type=_FILE, help="File of the key that signs the second half of the events.")
@click.option(
    "--compress-retries",
    type=click.FloatRange(1),
    default=1000.0,
    show_default=True,
    help="Divide Weavr's pauses before retries, which are 10 s to 3.6 h, by this.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Equal seeds make equal events.")
@click.option("--ledger", type=_FILE, help="Write the result of each event into this file, one JSON document per line.")
@click.option(
    "--write-settings",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Send nothing; only write pipeline.toml and keys for this Weavr into a folder.",
)
@click.option("--integration", help="Name of the integration. Default: taken from the URL, otherwise acme.")
@json_option
@click.pass_context
def send_weavr_events(ctx: click.Context, /, **options: Any) -> None:
    """Send Weavr's events as Weavr does, and check every answer."""
    asked = _Asked(**options)
    if asked.folder is not None:
        print_fields(_write_settings(asked.folder, asked.integration or "acme"))
        return
    url, integration = _webhook(asked)
    plan, keys = _plan(asked), _keys(asked)
    pace = Pace(asked.connections, asked.rate, asked.compress_retries)
    events = plan.events(integration, keys, now_ms=time.time_ns() // 1_000_000)
    began = time.monotonic()
    with ExitStack() as stack:
        record = stack.enter_context(_recorder(asked.ledger))
        watch = stack.enter_context(_watching(plan.count))
        totals = asyncio.run(send_events(url, events, pace, record, watch=watch))
    seconds = time.monotonic() - began
    if asked.as_json:
        print_json(totals.view() | {"seconds": round(seconds, 2), "ok": not totals.wrong})
    else:
        _show(totals, seconds)
    ctx.exit(ExitCode.FINDING if totals.wrong else ExitCode.OK)


def _write_settings(folder: Path, integration: str) -> dict[str, object]:
    if not _NAME.fullmatch(integration):
        raise UsageRefused(
            "integration_name",
            f"{integration!r} is not a valid name; write 1 to 63 lower case letters, digits and dashes",
        )
    file = folder / "pipeline.toml"
    if file.exists():
        raise UsageRefused("settings_exist", f"{file} already exists, and is never overwritten")
    snippet = weavr_snippet(integration, folder=folder / "secrets")
    append_tables(file, "", f'[logging]\nformat = "console"\n\n{snippet.toml}')
    return {"settings": file, "key file": snippet.key_file, "next key file": snippet.next_key_file}


def _webhook(asked: _Asked) -> tuple[str, str]:
    if not asked.url:
        raise UsageRefused("url_missing", "give --url, such as http://127.0.0.1:8080/webhooks/weavr/acme")
    parts = urlsplit(asked.url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise UsageRefused(
            "url_invalid", "--url must begin with http:// or https://, name a host, and contain no ? or #"
        )
    name = asked.integration or integration_in(asked.url)
    if not name:
        raise UsageRefused("url_invalid", "--url names no integration (.../webhooks/weavr/NAME); give --integration")
    return asked.url, name


def _plan(asked: _Asked) -> SendPlan:
    try:
        weights = mix(dict(_weights(asked.weights or "")))
    except ValueError as error:
        raise UsageRefused("mix_invalid", f"--mix: {error}") from error
    return SendPlan(
        count=asked.count,
        weights=weights,
        seed=asked.seed,
        entities=asked.entities,
        call_refs=asked.call_refs,
        repeats=asked.repeats,
        out_of_order=asked.out_of_order,
        new_fields=asked.new_fields,
        new_enum_values=asked.new_fields,
        broken=asked.broken,
    )


def _keys(asked: _Asked) -> SigningKeys:
    if asked.key_file is None:
        raise UsageRefused("key_missing", "give --key-file, the file of the API key that signs the events")
    then = _key(asked.rotate_to) if asked.rotate_to else None
    return SigningKeys(_key(asked.key_file), then, rotate_at=asked.count // 2)


def _weights(text: str) -> Iterator[tuple[str, float]]:
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, weight = part.rpartition("=")
        try:
            yield pattern if equals else part, float(weight) if equals else 1.0
        except ValueError:
            raise ValueError(f"{part!r} is not PATH=WEIGHT, such as managed_cards/*=3") from None


def _key(file: Path) -> bytes:
    try:
        key = file.read_bytes().removesuffix(b"\n")
    except OSError as error:
        raise UsageRefused("key_unreadable", f"{file} cannot be read ({error.strerror})") from error
    if not key:
        raise UsageRefused("key_unreadable", f"{file} is empty")
    return key


@contextmanager
def _recorder(file: Path | None) -> Iterator[Callable[[Entry], None]]:
    """Yield a function that writes an entry to the file, or does nothing without a file."""
    if file is None:
        yield lambda _entry: None
        return
    try:
        opened = file.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageRefused("ledger_unwritable", f"{file} cannot be written ({error.strerror})") from error
    with opened:
        yield lambda entry: write_entry(opened, entry)


@contextmanager
def _watching(count: int) -> Iterator[Callable[[Totals], None] | None]:
    """Yield a function that shows progress; None without a terminal."""
    if not _at_terminal():
        yield None
        return
    with click.progressbar(length=count, label="events", file=sys.stderr, show_pos=True) as bar:
        yield lambda totals: bar.update(totals.events - bar.pos)


def _at_terminal() -> bool:
    return sys.stderr.isatty()


def _show(totals: Totals, seconds: float) -> None:
    print_fields(
        {
            "events": totals.events,
            "sent": f"{totals.sent} ({totals.repeats} repeats)",
            "requests": f"{totals.requests} ({totals.requests / max(seconds, 1e-9):.0f} per second)",
            "accepted": f"{totals.outcomes['accepted']} ({totals.quarantined} of them for quarantine)",
            "refused": totals.outcomes["refused"],
            "given up": totals.outcomes["given up"],
        }
    )
    answers = sorted(totals.statuses.items(), key=str)
    print_table(("answer", "requests"), [(status or "none", number) for status, number in answers])
    for finding in totals.findings:
        click.echo(f"WRONG: {finding}")
    if totals.wrong > len(totals.findings):
        click.echo(f"and {totals.wrong - len(totals.findings)} more")

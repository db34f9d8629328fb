"""``pipeline audit``: verify the audit log, and print its heads to keep them elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.audit import Head, PublicKeys, Report, dump_heads, load_heads, load_public_keys, read_heads
from pipeline.audit.verify import verify as verify_log
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.output import json_option, print_fields, print_json, print_table
from pipeline.errors import PipelineError

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def audit() -> None:
    """Verify the audit log."""


@audit.command(
    epilog="""\b
Examples:
  pipeline audit verify --json
  pipeline audit verify --heads heads.json --public-key audit.pem
prints
  {"ok": false, "partition": 3, "segment": 12, "line": 7, "kind": "changed", ...}"""
)
@click.option("--heads", "heads_file", type=_file, help="File with the output of an earlier `audit head --json`.")
@click.option(
    "--public-key", "key_files", multiple=True, type=_file, help="File with an Ed25519 public key (PEM). Repeatable."
)
@json_option
@pass_setup
@click.pass_context
def verify(
    ctx: click.Context, setup: Setup, *, heads_file: Path | None, key_files: tuple[Path, ...], as_json: bool
) -> None:
    """Read the whole log and report any line that was changed, removed, swapped, forked or cut. Exit 1 on damage.

    Only --heads can find out that somebody removed the end of a chain. --heads and --public-key each find out that
    somebody rewrote a whole chain.
    """
    heads, keys = _given(heads_file, key_files)
    report = asyncio.run(_verify(setup, keys, heads))
    if as_json:
        print_json(report.model_dump(mode="json"))
    elif report.ok:
        click.echo(f"ok: {report.events} events in {report.segments} segments; {report.heads} heads compared")
        if not report.events:
            click.echo("warning: the log is empty; check that [store] in the settings names the right store", err=True)
    else:
        print_fields(report.model_dump(mode="json"))
    ctx.exit(ExitCode.OK if report.ok else ExitCode.FINDING)


@audit.command(epilog="Example: pipeline audit head --json > heads-$(date +%F).json   # keep it elsewhere")
@json_option
@pass_setup
def head(setup: Setup, *, as_json: bool) -> None:
    """Print the end of every chain. Keep it where the log's writers cannot change it; `verify --heads` reads it."""
    heads = asyncio.run(_heads(setup))
    if as_json:
        click.echo(dump_heads(heads), nl=False)
        return
    columns = ("topic", "partition", "epoch", "segment", "events", "hash")
    print_table(columns, [tuple(getattr(one, column) for column in columns) for one in heads])


def _given(heads_file: Path | None, key_files: Sequence[Path]) -> tuple[list[Head], PublicKeys | None]:
    try:
        heads = load_heads(heads_file.read_bytes()) if heads_file else []
        keys = load_public_keys(path.read_bytes() for path in key_files) if key_files else None
    except PipelineError as error:
        raise UsageRefused(error.code, error.message) from error
    return heads, keys


async def _verify(setup: Setup, keys: PublicKeys | None, heads: Sequence[Head]) -> Report:
    store = setup.ports.store(setup.settings().store)
    try:
        return await verify_log(store, keys=keys, heads=heads)
    finally:
        await store.close()


async def _heads(setup: Setup) -> list[Head]:
    store = setup.ports.store(setup.settings().store)
    try:
        return await read_heads(store)
    finally:
        await store.close()

"""``pipeline store``: find objects in the job store that nobody needs any more, and delete them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from datetime import timedelta
from typing import Any, Final, cast

import click

from pipeline.app import open_jobs
from pipeline.cli.commands import Command, Order, bulk_order_options, recorded
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode
from pipeline.cli.output import json_option, print_json, print_line
from pipeline.cli.times import now
from pipeline.contracts import AuditAction
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.store_check import KINDS, Finding, Kind, StoreCheck
from pipeline.storage import is_key

_BATCH: Final = 1000
"""How many objects one request deletes."""

_MOST_HOURS: Final = 87_600

_SAFE: Final[tuple[Kind, ...]] = tuple(kind for kind in KINDS if kind != "foreign")


def _choice(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "--hours",
        type=click.IntRange(1, _MOST_HOURS),
        default=24,
        show_default=True,
        help="Skip objects that are younger than this: running workers may still use them.",
    )(function)
    return click.option(
        "--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only findings of this kind. Repeatable."
    )(function)


@click.group()
def store() -> None:
    """Find orphans and leftovers in the job store, and delete them. Objects that an open job needs always stay."""


@store.command(epilog="Example: pipeline store check --json")
@_choice
@json_option
@pass_setup
@click.pass_context
def check(ctx: click.Context, setup: Setup, *, kinds: tuple[Kind, ...], hours: int, as_json: bool) -> None:
    """Print each object that nobody needs any more. Exit 1 if there is one."""
    ctx.exit(ExitCode.FINDING if asyncio.run(_Look(setup, kinds or KINDS, hours, as_json).run(None)) else ExitCode.OK)


@store.command(
    epilog="""\b
Examples:
  pipeline store clean
  pipeline store clean --kind part --kind leftover --yes --reason "after the outage of May 3"
Without --yes, nothing changes. Foreign objects are deleted only with --kind foreign."""
)
@_choice
@bulk_order_options
@json_option
@pass_setup
def clean(setup: Setup, *, kinds: tuple[Kind, ...], hours: int, order: Order, as_json: bool) -> None:
    """Delete the objects that `store check` finds. A dry run, unless you give --yes.

    You may run it while workers run, interrupt it, and repeat it. The audit log gets an entry for each
    1,000 deleted objects.
    """
    asyncio.run(_Look(setup, kinds or _SAFE, hours, as_json).run(order))


class _Look:
    """One search of the store. It deletes its findings if the operator asks for it."""

    def __init__(self, setup: Setup, kinds: tuple[Kind, ...], hours: int, as_json: bool) -> None:  # noqa: FBT001
        self._setup = setup
        self._kinds = kinds
        self._hours = hours
        self._as_json = as_json
        self._counts: Counter[str] = Counter()
        self._bytes = 0
        self._staying = 0

    async def run(self, order: Order | None) -> int:
        """Return how many objects were found. Delete them, unless it is a dry run.

        Args:
            order: The operator's options; None: only search.
        """
        settings = self._setup.settings()
        async with AsyncExitStack() as stack:
            jobs = await stack.enter_async_context(open_jobs(settings, self._setup.ports))
            command = None
            if order is not None and not order.dry_run:
                about = {"kinds": list(self._kinds), "hours": self._hours}
                opened = recorded(self._setup, jobs.objects, order, "store clean", cast("Any", about))
                command = await stack.enter_async_context(opened)
            look = StoreCheck(
                jobs,
                now,
                receipts_kept=timedelta(days=settings.retention.receipts_days),
                failed_parts_kept=timedelta(days=settings.retention.failed_parts_days),
                age=timedelta(hours=self._hours),
            )
            await self._through(look, jobs, command, cleans=order is not None)
            self._sum_up(order)
            return self._counts.total()

    async def _through(self, look: StoreCheck, jobs: JobStore, command: Command | None, *, cleans: bool) -> None:
        batch: list[Finding] = []
        async with aclosing(look.findings()) as findings:
            async for finding in findings:
                if finding.kind not in self._kinds:
                    continue
                self._report(finding)
                if cleans and not is_key(finding.key):
                    self._staying += 1
                    continue
                self._counts[finding.kind] += 1
                self._bytes += finding.size
                batch.append(finding)
                if len(batch) == _BATCH:
                    await _delete(jobs, command, batch)
                    batch = []
        await _delete(jobs, command, batch)

    def _report(self, finding: Finding) -> None:
        written = finding.modified and finding.modified.isoformat(timespec="seconds")
        if self._as_json:
            print_json({"kind": finding.kind, "key": finding.key, "bytes": finding.size, "written": written})
        else:
            print_line(f"{finding.kind:<8}  {finding.key}  {finding.size}  {written}")

    def _sum_up(self, order: Order | None) -> None:
        total = self._counts.total()
        if order is None:
            text = f"{total} objects that nobody needs, {self._bytes} bytes"
        elif order.dry_run:
            text = f"would delete {total} objects, {self._bytes} bytes; --yes does it"
        else:
            text = f"deleted {total} objects, {self._bytes} bytes"
        click.echo(text, err=True)
        if self._staying:
            click.echo(f"{self._staying} objects stay, because of their names: delete them with other tools", err=True)


async def _delete(jobs: JobStore, command: Command | None, batch: list[Finding]) -> None:
    """Delete findings, and say so in the audit log at once: the command may end before the next ones."""
    if command is None or not batch:
        return
    await jobs.delete_known([one.key for one in batch])
    counts = Counter[str](one.kind for one in batch)
    detail: dict[str, int] = {"objects": len(batch), "bytes": sum(one.size for one in batch), **counts}
    await command.audit(AuditAction.STORE_CLEANED, batch[0].key, detail=detail)

"""``pipeline dead-letters``: show records that nobody could handle; replay them after a fix, or discard them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from typing import Any, Final

import click
from pydantic import TypeAdapter, ValidationError

from pipeline.app import open_jobs
from pipeline.cli.commands import Command, Order, bulk_order_options, recorded
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.dead_letter_view import (
    Mark,
    Wanted,
    What,
    ensure_known,
    find_letter,
    letter_document,
    letter_row,
    mark_key,
    marked_letters,
    read_letters,
    read_mark,
)
from pipeline.cli.event_view import position
from pipeline.cli.exits import ExitCode, UsageRefused
from pipeline.cli.output import json_option, print_json, print_line, print_table
from pipeline.cli.times import Time, now
from pipeline.contracts import AuditAction, IntegrationName, parse_job_key
from pipeline.errors import PermanentError
from pipeline.kafka import StoredDeadLetter
from pipeline.storage import ObjectStore

_COLUMNS: Final = ("id", "at", "group", "topic", "key", "code", "message", "state")
_NAME: Final[TypeAdapter[str]] = TypeAdapter(IntegrationName)
_JOB_TOPICS: Final = "card-batch."


def _filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose dead letters to a command, which takes them as one ``wanted``."""

    @click.option(
        "--group",
        "groups",
        multiple=True,
        help="Only dead letters of this group: a stage, or a subscriber's group. Repeatable.",
    )
    @click.option("--topic", "topics", multiple=True, help="Only records that came from this topic. Repeatable.")
    @click.option("--code", "codes", multiple=True, help="Only dead letters with this error code. Repeatable.")
    @click.option("--integration", metavar="NAME", help="Only records of this integration or source.")
    @click.option("--key", help="Only records with this key.")
    @click.option(
        "--since",
        type=Time(),
        help="Only dead letters written since: ISO 8601 with a zone, or e.g. 2h for two hours ago.",
    )
    @click.option("--until", type=Time(), help="Only dead letters written before this time.")
    @functools.wraps(function)
    def filtered(
        *args: Any,
        groups: tuple[str, ...],
        topics: tuple[str, ...],
        codes: tuple[str, ...],
        integration: str | None,
        key: str | None,
        since: datetime | None,
        until: datetime | None,
        item_ids: tuple[str, ...] = (),
        **others: Any,
    ) -> Any:
        wanted = Wanted(item_ids, groups, topics, codes, integration, key, since, until)
        return function(*args, wanted=wanted, **others)

    return filtered


@click.group()
def dead_letters() -> None:
    """Look at dead letters (records that nobody could handle); replay or discard them.

    Both stages and subscribers write dead letters. A dead letter does not block its group. Values are shown masked.
    """


@dead_letters.command("list", epilog="Example: pipeline dead-letters list --group billing --code handler_poison")
@_filters
@click.option("--all", "everything", is_flag=True, help="Also print dead letters that were replayed or discarded.")
@json_option
@pass_setup
def list_letters(setup: Setup, *, wanted: Wanted, everything: bool, as_json: bool) -> None:
    """Print the dead letters that were neither replayed nor discarded. With --json, one per line."""
    rows = asyncio.run(_rows(setup, wanted, everything=everything))
    if as_json:
        for row in rows:
            print_json(row)
        return
    print_table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])


@dead_letters.command(epilog="Example: pipeline dead-letters show 0f3c...")
@click.argument("item_id", metavar="ID")
@pass_setup
def show(setup: Setup, *, item_id: str) -> None:
    """Print one dead letter: the reason, the record's headers, and its masked value. Always JSON."""
    print_json(asyncio.run(_document(setup, item_id)))


@dead_letters.command(
    epilog="""\b
Examples:
  pipeline dead-letters replay --group billing --code attempts_exhausted
  pipeline dead-letters replay --group billing --code attempts_exhausted --yes --reason "INC-7: database fixed"
Without --yes, nothing changes."""
)
@click.argument("item_ids", metavar="[ID...]", nargs=-1)
@_filters
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Replay at most this many.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=50.0,
    show_default=True,
    help="Replay at most this many per second.",
)
@bulk_order_options
@json_option
@pass_setup
@click.pass_context
def replay(
    ctx: click.Context, setup: Setup, *, wanted: Wanted, limit: int, rate: float, order: Order, as_json: bool
) -> None:
    """Publish records again to their original topics, for the one group that failed to handle them.

    A dry run, unless you give --yes. Other groups of the topic skip the copy. A dead letter is replayed once, even if
    you give the command again. A record that fails again becomes a new dead letter. Exit 1 if a dead letter cannot be
    replayed.
    """
    act = _Acting(setup, wanted, order, "replayed", as_json=as_json)
    ctx.exit(ExitCode.OK if asyncio.run(act.run(limit, rate)) else ExitCode.FINDING)


@dead_letters.command(
    epilog="""\b
Examples:
  pipeline dead-letters discard 0f3c... --yes --reason "written by a load test"
Without --yes, nothing changes."""
)
@click.argument("item_ids", metavar="[ID...]", nargs=-1)
@_filters
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Discard at most this many.",
)
@bulk_order_options
@json_option
@pass_setup
@click.pass_context
def discard(ctx: click.Context, setup: Setup, *, wanted: Wanted, limit: int, order: Order, as_json: bool) -> None:
    """Mark dead letters as settled: `list` hides them and `replay` skips them. A dry run, unless you give --yes.

    The topic still keeps them until its retention time ends.
    """
    act = _Acting(setup, wanted, order, "discarded", as_json=as_json)
    ctx.exit(ExitCode.OK if asyncio.run(act.run(limit, None)) else ExitCode.FINDING)


class _Acting:
    """Replays or discards dead letters one after another, and reports each.

    For each letter it publishes the record, writes the audit entry, then creates the mark. If the command dies in
    between, at most one letter is replayed twice; the group recognises the second copy by ``replayed_from``, or by the
    receipts of the job.
    """

    def __init__(self, setup: Setup, wanted: Wanted, order: Order, what: What, *, as_json: bool) -> None:
        if wanted == Wanted():
            raise UsageRefused(
                "dead_letters_which",
                "name IDs, or at least one of --group, --topic, --code, --integration, --key, --since",
            )
        self._setup = setup
        self._wanted = wanted
        self._order = order
        self._what: What = what
        self._as_json = as_json

    async def run(self, limit: int, rate: float | None) -> bool:
        """Return whether all chosen letters are settled, or in a dry run: would be.

        Args:
            limit: Maximum number of letters.
            rate: Maximum letters per second.
        """
        async with AsyncExitStack() as stack:
            objects = (await stack.enter_async_context(open_jobs(self._setup.settings(), self._setup.ports))).objects
            await ensure_known(self._setup.settings(), self._wanted.ids)
            marked = await marked_letters(objects)
            command = None
            if not self._order.dry_run:
                name = "dead-letters replay" if self._what == "replayed" else "dead-letters discard"
                opened = recorded(self._setup, objects, self._order, name, self._wanted.about)
                command = await stack.enter_async_context(opened)
            return await self._each(objects, marked, command, limit, rate)

    async def _each(
        self, objects: ObjectStore, marked: frozenset[str], command: Command | None, limit: int, rate: float | None
    ) -> bool:
        begun, count, complete = asyncio.get_running_loop().time(), 0, True
        async with aclosing(read_letters(self._setup.settings(), self._wanted)) as letters:
            async for letter in letters:
                if letter.id in marked:
                    continue
                if count == limit:
                    click.echo(
                        "warning: stopped at --limit; more dead letters match, so give the command again", err=True
                    )
                    break
                if rate is not None and command is not None:
                    await asyncio.sleep(begun + count / rate - asyncio.get_running_loop().time())
                problem = await self._settle(letter, objects, command)
                complete = complete and problem is None
                count += 1
                self._report(letter, problem, command)
        would = "" if command else "would be "
        ending = "" if command else " (dry run, nothing changed; add --yes to do it)"
        click.echo(f"{count} dead letters {would}{self._what}{ending}", err=True)
        return complete

    async def _settle(self, letter: StoredDeadLetter, objects: ObjectStore, command: Command | None) -> str | None:
        """Replay or discard one letter; return the reason if that is not possible."""
        replaying = self._what == "replayed"
        try:
            outgoing = letter.replay() if replaying else None
            if command is None:
                return None
            if outgoing is not None:
                await command.publisher.publish(outgoing)
        except PermanentError as error:
            return f"{error.code}: {error.message}"
        action = AuditAction.DEAD_LETTER_REPLAYED if replaying else AuditAction.DEAD_LETTER_DISCARDED
        job = parse_job_key(letter.record.key) if letter.record.topic.startswith(_JOB_TOPICS) else None
        await command.audit(
            action,
            letter.id,
            detail={"dead_letter": letter.id, "group": letter.group, "code": letter.code, **position(letter.record)},
            integration=_valid_name(letter.integration),
            job_guid=job[1] if job else None,
        )
        receipt = command.receipt
        mark = Mark(what=self._what, at=now(), actor=receipt.actor, reason=receipt.reason, command=receipt.id)
        await objects.create(mark_key(letter.id), mark.model_dump_json().encode())
        return None

    def _report(self, letter: StoredDeadLetter, problem: str | None, command: Command | None) -> None:
        if self._as_json:
            done = command is not None and problem is None
            what = {"id": letter.id, self._what: done, "problem": problem, "command": command.id if command else None}
            print_json(
                what | {"group": letter.group, "code": letter.code, "key": letter.record.key} | position(letter.record)
            )
            return
        would = "" if command else "would be "
        text = f"{would}{self._what}" if problem is None else problem
        print_line(f"{letter.id}  {letter.group}  {letter.record.topic}  {letter.record.key}  {letter.code}: {text}")


async def _rows(setup: Setup, wanted: Wanted, *, everything: bool) -> list[dict[str, Any]]:
    settings = setup.settings()
    async with open_jobs(settings, setup.ports) as jobs:
        marked = await marked_letters(jobs.objects)
        rows = []
        async for letter in read_letters(settings, wanted):
            if letter.id not in marked:
                rows.append(letter_row(letter, "open"))
            elif everything:
                mark = await read_mark(jobs.objects, letter.id)
                rows.append(letter_row(letter, mark.what if mark else "open"))
    return sorted(rows, key=lambda row: row["at"])


async def _document(setup: Setup, item_id: str) -> dict[str, Any]:
    settings = setup.settings()
    letter = await find_letter(settings, item_id)
    async with open_jobs(settings, setup.ports) as jobs:
        return letter_document(letter, await read_mark(jobs.objects, letter.id))


def _valid_name(name: str | None) -> str | None:
    try:
        return _NAME.validate_python(name)
    except ValidationError:
        return None

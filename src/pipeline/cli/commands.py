"""What the commands share that change something: a reason, a receipt in the store first, an audit entry last."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import click
from pydantic import AwareDatetime, BaseModel, ConfigDict, JsonValue, ValidationError

from pipeline.cli.context import Setup, actor
from pipeline.cli.exits import UsageRefused
from pipeline.cli.times import now
from pipeline.contracts import AuditAction, AuditEvent, audit_record
from pipeline.errors import PermanentError
from pipeline.jobs.wording import shorten
from pipeline.kafka import Publisher
from pipeline.storage import ObjectNotFound, ObjectStore

REASON_LIMIT: Final = 500
"""Longest reason, in characters; it goes into each audit entry of the command."""


class CommandRefused(PermanentError):
    """There is no such command to repeat, or its receipt cannot be read."""


class CommandReceipt(BaseModel):
    """``commands/<id>.json``: who gave which command, when and why. Created once, before the command acts.

    Attributes:
        id: Milliseconds of the time and eight hex digits: a listing is in the order of time.
        command: As on the command line, e.g. ``job cancel``.
        about: What it is about, e.g. the job; decides whether a repetition is the same command.
        targets: What it acts on, if the store was asked for that: a repetition acts on the same.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    at: AwareDatetime
    actor: str
    reason: str
    command: str
    about: dict[str, JsonValue]
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator gives with every command that changes something.

    Attributes:
        reason: Why; empty for a dry run.
        dry_run: Whether only to say what would be done.
        yes: Whether to act without a question.
        repeat: Id of the earlier command to repeat, or None.
    """

    reason: str
    dry_run: bool
    yes: bool
    repeat: str | None

    def ask(self, question: str) -> None:
        """Ask the operator unless ``--yes`` was given.

        Raises:
            click.Abort: The answer was no.
        """
        if not self.yes:
            click.confirm(question, abort=True, err=True)


def order_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--reason``, ``--dry-run``, ``--yes`` and ``--id`` to a command, which takes them as one ``order``."""
    return _with_options(function, "Do not ask.", dry_unless_yes=False)


def bulk_order_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the same options to a command that acts on many things at once: it is a dry run unless ``--yes`` is given."""
    return _with_options(function, "Do it. Default: a dry run.", dry_unless_yes=True)


def _with_options(function: Callable[..., Any], about_yes: str, *, dry_unless_yes: bool) -> Callable[..., Any]:
    @click.option("--reason", default="", help="Why: goes to the audit log. Needed, except for a dry run.")
    @click.option("--dry-run", is_flag=True, help="Only say what would be done.")
    @click.option("--yes", is_flag=True, help=about_yes)
    @click.option("--id", "repeat", metavar="ID", help="Repeat the command of this id, e.g. after it was interrupted.")
    @functools.wraps(function)
    def ordered(*args: Any, reason: str, dry_run: bool, yes: bool, repeat: str | None, **others: Any) -> Any:
        dry = dry_run or (dry_unless_yes and not yes)
        if not reason.strip() and not dry:
            raise UsageRefused(
                "reason_missing", "--reason is needed: why the command is given; or --dry-run, which changes nothing"
            )
        order = Order(shorten(reason, REASON_LIMIT), dry, yes, repeat)
        return function(*args, order=order, **others)

    return ordered


@dataclass(frozen=True, slots=True)
class Command:
    """A command that is on record. It acts, then audits what it did.

    Attributes:
        receipt: As stored; of a repeated command, that of the first time.
        publisher: For the audit entries, and for what the command publishes.
    """

    receipt: CommandReceipt
    publisher: Publisher

    @property
    def id(self) -> str:
        """Return the id that repeats the command."""
        return self.receipt.id

    async def audit(
        self,
        action: AuditAction,
        *facts: str,
        detail: Mapping[str, JsonValue],
        integration: str | None = None,
        job_guid: UUID | None = None,
    ) -> None:
        """Add an entry to the audit log; returns when it is durable. A repeated command repeats the same entry.

        Args:
            action: The step.
            facts: Text that distinguishes this entry from the command's others, e.g. the job.
            detail: Counts, codes, hashes; the command's id and reason are added.
            integration: The integration that it is about.
            job_guid: The job that it is about.
        """
        receipt = self.receipt
        event = AuditEvent(
            id=AuditEvent.id_of(action, receipt.id, *facts),
            action=action,
            at=receipt.at,
            actor=receipt.actor,
            integration=integration,
            job_guid=job_guid,
            detail={**detail, "command": receipt.id, "reason": receipt.reason},
        )
        await self.publisher.publish(audit_record(event))


@asynccontextmanager
async def recorded(
    setup: Setup,
    objects: ObjectStore,
    order: Order,
    name: str,
    about: Mapping[str, JsonValue],
    *,
    targets: Sequence[str] = (),
) -> AsyncIterator[Command]:
    """Connect to the broker, put the command on record, and yield it. Its id goes to stderr before it acts.

    A command that was interrupted can be repeated by that id: it has the same receipt, and so the same audit entries.
    What it does itself needs to be safe to repeat.

    Args:
        setup: Settings and ports.
        objects: The store of the receipts.
        order: What the operator gave.
        name: The command as on the command line, e.g. ``job cancel``.
        about: What it is about; equal for a repetition.
        targets: What it acts on. Of a repeated command, the receipt has those of the first time.

    Raises:
        CommandRefused: There is no command of the id to repeat, or its receipt is damaged.
        UsageRefused: The id is that of another command.
    """
    async with setup.ports.publisher(setup.settings().cluster, client_id="card-pipeline-cli") as publisher:
        if order.repeat is None:
            receipt = await _record(objects, order, name, about, targets)
            click.echo(f"command {receipt.id}", err=True)
        else:
            receipt = await _earlier(objects, order.repeat, name, about)
        yield Command(receipt, publisher)


async def _record(
    objects: ObjectStore, order: Order, name: str, about: Mapping[str, JsonValue], targets: Sequence[str]
) -> CommandReceipt:
    at = now()
    receipt = CommandReceipt(
        id=f"{int(at.timestamp() * 1000):013d}-{uuid4().hex[:8]}",
        at=at,
        actor=actor(),
        reason=order.reason,
        command=name,
        about=dict(about),
        targets=tuple(targets),
    )
    if not await objects.create(_key(receipt.id), receipt.model_dump_json().encode()):
        raise CommandRefused("command_exists", f"another command has the id {receipt.id}; give the command again")
    return receipt


async def _earlier(objects: ObjectStore, command_id: str, name: str, about: Mapping[str, JsonValue]) -> CommandReceipt:
    try:
        receipt = CommandReceipt.model_validate_json(await objects.get(_key(command_id)))
    except (ObjectNotFound, ValueError) as error:
        if isinstance(error, ValidationError):
            raise CommandRefused("command_unreadable", f"{_key(command_id)} is damaged; leave out --id") from None
        raise CommandRefused(
            "command_unknown", f"no command has the id {command_id!r}; give the id that the command printed"
        ) from None
    if (receipt.command, receipt.about) != (name, dict(about)):
        raise UsageRefused(
            "command_differs",
            f"the id {command_id} is that of another command: {receipt.command}; repeat the same command, or leave out "
            "--id",
        )
    return receipt


def _key(command_id: str) -> str:
    return f"commands/{command_id}.json"

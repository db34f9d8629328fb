"""Shared by the commands that change something: they take a reason, store a receipt first and an audit entry last."""

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
    """The command to repeat does not exist, or its receipt cannot be read."""


class CommandReceipt(BaseModel):
    """Contents of ``commands/<id>.json``: who gave which command, when and why. Stored once, before the command acts.

    Attributes:
        id: Milliseconds since 1970 and eight hex digits, so that a listing is in the order of time.
        command: As on the command line, e.g. ``job cancel``.
        about: Its subject, e.g. the job. A repetition must have the same subject.
        targets: What it acts on, if it looked that up in the store. A repetition acts on the same targets.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    id: str
    at: AwareDatetime
    actor: str
    reason: str
    command: str
    about: dict[str, JsonValue]
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """The options that every command with an effect takes.

    Attributes:
        reason: Why; empty for a dry run.
        dry_run: Whether to only say what the command would do.
        yes: Whether to act without asking.
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
    @click.option(
        "--reason", default="", help="Why you give the command; the audit log keeps it. Required, except for a dry run."
    )
    @click.option("--dry-run", is_flag=True, help="Only say what the command would do.")
    @click.option("--yes", is_flag=True, help=about_yes)
    @click.option("--id", "repeat", metavar="ID", help="Repeat the command with this id, e.g. after an interruption.")
    @functools.wraps(function)
    def ordered(*args: Any, reason: str, dry_run: bool, yes: bool, repeat: str | None, **others: Any) -> Any:
        dry = dry_run or (dry_unless_yes and not yes)
        if not reason.strip() and not dry:
            raise UsageRefused(
                "reason_missing", "give --reason, which the audit log keeps, or --dry-run, which changes nothing"
            )
        order = Order(shorten(reason, REASON_LIMIT), dry, yes, repeat)
        return function(*args, order=order, **others)

    return ordered


@dataclass(frozen=True, slots=True)
class Command:
    """A command whose receipt is stored. It acts, then writes to the audit log what it did.

    Attributes:
        receipt: The stored receipt. A repeated command has the receipt of its first run.
        publisher: For the audit entries, and for what the command publishes.
    """

    receipt: CommandReceipt
    publisher: Publisher

    @property
    def id(self) -> str:
        """Return the id for ``--id``."""
        return self.receipt.id

    async def audit(
        self,
        action: AuditAction,
        *facts: str,
        detail: Mapping[str, JsonValue],
        integration: str | None = None,
        job_guid: UUID | None = None,
    ) -> None:
        """Add an entry to the audit log; return when it is durable. A repeated command repeats the same entry.

        Args:
            action: The step.
            facts: Text that distinguishes this entry from the command's others, e.g. the job.
            detail: Counts, codes, hashes. The method adds the command's id and reason.
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
    """Connect to the broker, store the command's receipt, and yield the command. Prints its id on stderr first.

    An operator repeats an interrupted command by that id. It then has the same receipt, and so writes the same audit
    entries. The command's own effects must be safe to repeat.

    Args:
        setup: Settings and ports.
        objects: The store of the receipts.
        order: The operator's options.
        name: The command as on the command line, e.g. ``job cancel``.
        about: Its subject; equal for a repetition.
        targets: What it acts on. A repeated command acts on the targets in its receipt instead.

    Raises:
        CommandRefused: No command has the id to repeat, or its receipt is damaged.
        UsageRefused: The id belongs to another command.
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
        raise CommandRefused(
            "command_exists", f"another command already has the id {receipt.id}; give the command again"
        )
    return receipt


async def _earlier(objects: ObjectStore, command_id: str, name: str, about: Mapping[str, JsonValue]) -> CommandReceipt:
    try:
        receipt = CommandReceipt.model_validate_json(await objects.get(_key(command_id)))
    except (ObjectNotFound, ValueError) as error:
        if isinstance(error, ValidationError):
            raise CommandRefused(
                "command_unreadable", f"{_key(command_id)} cannot be read; give the command again without --id"
            ) from None
        raise CommandRefused(
            "command_unknown", f"no command has the id {command_id!r}; give the id that the command printed"
        ) from None
    if (receipt.command, receipt.about) != (name, dict(about)):
        raise UsageRefused(
            "command_differs",
            f"the id {command_id} belongs to another command: {receipt.command}; repeat that command, or leave out "
            "--id",
        )
    return receipt


def _key(command_id: str) -> str:
    return f"commands/{command_id}.json"

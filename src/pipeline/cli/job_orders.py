"""Commands that change jobs: delete card data, send a refused callback again."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from pipeline.cli.commands import Order, order_options, recorded
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.job_view import all_attempts, job_argument, job_name, with_job
from pipeline.cli.output import json_option, print_json
from pipeline.contracts import AuditAction
from pipeline.errors import PermanentError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.messages import outcome_record


class Refused(PermanentError):
    """The job's state does not allow it."""


@click.command(
    epilog="Example: pipeline job purge acme/cffde776-1d2a-4614-8023-a5148e411462 --reason 'erasure request 17'"
)
@job_argument
@order_options
@json_option
@pass_setup
def purge(setup: Setup, *, job_text: str, order: Order, as_json: bool) -> None:
    """Delete a decided job's card data (its result parts); receipts stay. Recorded in the audit log."""
    gone = asyncio.run(with_job(setup, job_text, lambda jobs, ref: _purge(setup, jobs, ref, order)))
    if as_json:
        print_json(gone)
        return
    click.echo(f"{gone['job']}: {gone['objects']} objects {'would be ' if order.dry_run else ''}deleted")


@click.command(
    epilog="Example: pipeline job notify acme/cffde776-1d2a-4614-8023-a5148e411462 --reason 'new token is in place'"
)
@job_argument
@order_options
@json_option
@pass_setup
def notify(setup: Setup, *, job_text: str, order: Order, as_json: bool) -> None:
    """Send a callback again that ECS refused, with the same body. Exit 1 if it was not refused."""
    sent = asyncio.run(with_job(setup, job_text, lambda jobs, ref: _notify(setup, jobs, ref, order)))
    if as_json:
        print_json(sent)
        return
    would = "would be" if order.dry_run else "will be"
    click.echo(f"{sent['job']}: the callback {would} sent again")


async def _purge(setup: Setup, jobs: JobStore, latest: JobRef, order: Order) -> dict[str, Any]:
    name = job_name(latest)
    if await jobs.outcome(latest) is None:
        raise Refused("job_undecided", f"{name} is in work; its parts go when it is decided")
    attempts = all_attempts(latest)
    if order.dry_run:
        return {"job": name, "objects": sum([await jobs.count_parts(ref) for ref in attempts]), "command": None}
    order.ask(f"Delete all card data of {name}?")
    async with recorded(setup, jobs.objects, order, "job purge", {"job": name}) as command:
        gone = sum([await jobs.drop_parts(ref) for ref in attempts])
        await command.audit(
            AuditAction.JOB_PURGED,
            detail={"objects": gone},
            integration=latest.integration,
            job_guid=latest.job_guid,
        )
    return {"job": name, "objects": gone, "command": command.id}


async def _notify(setup: Setup, jobs: JobStore, ref: JobRef, order: Order) -> dict[str, Any]:
    name, outcome, result = job_name(ref), await jobs.outcome(ref), await jobs.final_result(ref)
    if outcome is None or result is None:
        raise Refused("job_not_notified", f"ECS has not been notified of {name} yet; the confirm stage will do it")
    if result.told != "refused":
        raise Refused("callback_confirmed", f"{name}: ECS has confirmed its outcome")
    if order.dry_run:
        return {"job": name, "outcome": outcome.outcome, "again": None, "command": None}
    async with recorded(setup, jobs.objects, order, "job notify", {"job": name}) as command:
        again = f"cli-{command.id}"
        await command.publisher.publish(outcome_record(ref, await jobs.newest(ref), outcome, None, again))
        await command.audit(
            AuditAction.CALLBACK_REPEATED,
            name,
            detail={"attempt": ref.attempt, "again": again},
            integration=ref.integration,
            job_guid=ref.job_guid,
        )
    return {"job": name, "outcome": outcome.outcome, "again": again, "command": command.id}

"""Commands that change jobs: retry, cancel, notify ECS again, delete card data."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final, get_args

import click
from pydantic import JsonValue

from pipeline.cli.commands import Command, Order, order_options, recorded
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import UsageRefused
from pipeline.cli.job_batch import Action, Batch, Result, rules_of
from pipeline.cli.job_list import ENDED
from pipeline.cli.job_view import State, all_attempts, job_argument, job_name, with_job, with_jobs
from pipeline.cli.output import json_option, print_json
from pipeline.cli.times import now
from pipeline.contracts import AuditAction
from pipeline.jobs.erasure import erase_texts
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.operations import CANCELLED, Operations, Refused, check_cancel, check_notify, check_retry
from pipeline.jobs.parking import Parking

OPEN: Final[tuple[State, ...]] = tuple(state for state in get_args(State) if state not in ENDED)
"""The states of jobs that `job cancel --all-open` cancels."""

optional_job = click.argument("job_text", metavar="[JOB]", required=False)


@click.command(
    epilog="Example: pipeline job purge acme/cffde776-1d2a-4614-8023-a5148e411462 --reason 'erasure request 17'"
)
@job_argument
@order_options
@json_option
@pass_setup
def purge(setup: Setup, *, job_text: str, order: Order, as_json: bool) -> None:
    """Delete the card data of a decided job: its result parts, and texts, tags and URLs in its receipts.

    The receipts themselves stay, with the outcome. Texts also stay until ECS has been notified, because all callbacks
    of a job must be equal; `texts` is then null in the JSON. Give the command again after that.
    """
    gone = asyncio.run(with_job(setup, job_text, lambda jobs, ref: _purge(setup, jobs, ref, order)))
    if as_json:
        print_json(gone)
        return
    would = "would be " if order.dry_run else ""
    click.echo(f"{gone['job']}: {gone['objects']} objects {would}deleted, {gone['texts'] or 0} {would}erased in part")
    if gone["texts"] is None:
        click.echo("ECS is not notified yet, so the texts stay: give the command again after that", err=True)


async def _purge(setup: Setup, jobs: JobStore, latest: JobRef, order: Order) -> dict[str, Any]:
    name = job_name(latest)
    if await jobs.outcome(latest) is None:
        raise Refused("job_undecided", f"{name} has no outcome yet; purge it when it is completed or failed")
    attempts = all_attempts(latest)
    notified = await jobs.final_result(latest) is not None
    if notified and latest.integration in setup.settings().job_names:
        notified = not any([await jobs.notifies_again(ref) for ref in attempts])

    async def gone(*, dry_run: bool) -> dict[str, Any]:
        objects = sum([await jobs.drop_parts(ref, dry_run=dry_run) for ref in attempts])
        texts = await erase_texts(jobs, attempts, now(), dry_run=dry_run) if notified else None
        return {"objects": objects, "texts": texts}

    if order.dry_run:
        return {"job": name} | await gone(dry_run=True) | {"command": None}
    order.ask(f"Delete all card data of {name}?")
    async with recorded(setup, jobs.objects, order, "job purge", {"job": name}) as command:
        done = await gone(dry_run=False)
        await command.audit(
            AuditAction.JOB_PURGED, name, detail=done, integration=latest.integration, job_guid=latest.job_guid
        )
    return {"job": name} | done | {"command": command.id}


@click.command(
    epilog="""\b
Examples:
  pipeline job notify acme/cffde776-1d2a-4614-8023-a5148e411462 --reason 'ECS fixed its side'
  pipeline job notify --all-refused --integration acme --reason 'new token is in place'"""
)
@optional_job
@click.option("--all-refused", "every", is_flag=True, help="All jobs whose callback ECS refused.")
@click.option("--integration", metavar="NAME", help="With --all-refused: only jobs of this integration.")
@order_options
@json_option
@pass_setup
def notify(
    setup: Setup, *, job_text: str | None, every: bool, integration: str | None, order: Order, as_json: bool
) -> None:
    """Send a refused callback to ECS again, with the same body. Exit 1 if ECS has not refused it.

    The confirm stage sends it. With --all-refused and --json, prints one line per job.
    """

    async def check(jobs: JobStore, ref: JobRef) -> Result:
        return {"job": job_name(ref), "outcome": (await check_notify(jobs, ref)).outcome, "again": None}

    async def act(operations: Operations, command: Command, ref: JobRef) -> Result:
        again = f"cli-{command.id}"
        return {"job": job_name(ref), "outcome": (await operations.notify(ref, again)).outcome, "again": again}

    action = Action(
        name="job notify",
        audited=AuditAction.CALLBACK_REPEATED,
        question="Send {count} callbacks again?",
        question_for_one="",
        done="the callback will be sent again",
        planned="the callback would be sent again",
        check=check,
        act=act,
    )
    Batch(setup, order, action, as_json).run(job_text, ("refused",) if every else (), integration)


@click.command(
    epilog="""\b
Examples:
  pipeline job cancel acme/cffde776-1d2a-4614-8023-a5148e411462 --reason 'wrong file, INC-7'
  pipeline job cancel --all-open --integration acme --reason 'the integration was removed'"""
)
@optional_job
@click.option("--all-open", "every", is_flag=True, help="All open jobs of the integration that --integration names.")
@click.option("--integration", metavar="NAME", help="With --all-open: the integration.")
@order_options
@json_option
@pass_setup
def cancel(
    setup: Setup, *, job_text: str | None, every: bool, integration: str | None, order: Order, as_json: bool
) -> None:
    """Fail a job with the reason `cancelled` and notify ECS. You cannot undo it. Exit 1 if the job has an outcome.

    Running work stops before its next chunk or upload. If the settings lack the job's integration, the job is closed
    without a callback, because the pipeline cannot reach the partner: inform the partner yourself.
    """
    if every and not integration:
        raise UsageRefused("which_jobs", "--all-open needs --integration NAME")
    configured = setup.settings().job_names

    async def check(jobs: JobStore, ref: JobRef) -> Result:
        await check_cancel(jobs, ref, configured)
        return {
            "job": job_name(ref),
            "outcome": "failed",
            "reason": CANCELLED,
            "notified": ref.integration in configured,
        }

    async def act(operations: Operations, _: Command, ref: JobRef) -> Result:
        outcome = await operations.cancel(ref)
        notified = ref.integration in configured
        decided = outcome.outcome if outcome else None
        return {"job": job_name(ref), "outcome": decided, "reason": CANCELLED, "notified": notified}

    action = Action(
        name="job cancel",
        audited=AuditAction.JOB_CANCELLED,
        question="Cancel {count} jobs? You cannot undo it.",
        question_for_one="Cancel {job}? You cannot undo it.",
        done="cancelled",
        planned="would be cancelled",
        check=check,
        act=act,
    )
    Batch(setup, order, action, as_json).run(job_text, OPEN if every else (), integration)


@click.command(
    epilog="""\b
Examples:
  pipeline job retry acme/cffde776-1d2a-4614-8023-a5148e411462 --reason 'input host is back'
  pipeline job retry --all-waiting --integration acme --code source_unavailable --reason 'input host is back'"""
)
@optional_job
@click.option("--all-waiting", "every", is_flag=True, help="All jobs that wait.")
@click.option("--integration", metavar="NAME", help="With --all-waiting: only jobs of this integration.")
@click.option("--code", help="With --all-waiting: only jobs that wait because of this error code.")
@order_options
@json_option
@pass_setup
def retry(
    setup: Setup,
    *,
    job_text: str | None,
    every: bool,
    integration: str | None,
    code: str | None,
    order: Order,
    as_json: bool,
) -> None:
    """Let a waiting job continue now, or start a failed job again. Exit 1, with the reason, if neither is possible.

    A failed job starts again as a new attempt, if its URLs have not expired and the integration allows a second
    outcome. With --all-waiting, the JSON is one document with the number of jobs that continue.
    """
    if bool(job_text) == every or (job_text and (integration or code)):
        raise UsageRefused("which_jobs", "name one JOB, or --all-waiting")
    if job_text is None:
        done = asyncio.run(with_jobs(setup, lambda jobs: _resume(setup, jobs, integration, code, order)))
        if as_json:
            print_json(done)
            return
        click.echo(f"{done['resumed']} jobs {'would continue' if order.dry_run else 'continue'} now")
        return

    async def check(jobs: JobStore, ref: JobRef) -> Result:
        return {"job": job_name(ref), "how": await check_retry(jobs, Parking(jobs, now), ref, rules_of(setup), now())}

    async def act(operations: Operations, command: Command, ref: JobRef) -> Result:
        return {"job": job_name(ref)} | await operations.retry(ref, command.id)

    action = Action(
        name="job retry",
        audited=AuditAction.JOB_RETRIED,
        question="",
        question_for_one="",
        done="retried now",
        planned="would be retried now",
        check=check,
        act=act,
    )
    Batch(setup, order, action, as_json).run(job_text, (), None)


async def _resume(
    setup: Setup, jobs: JobStore, integration: str | None, code: str | None, order: Order
) -> dict[str, Any]:
    parking = Parking(jobs, now)
    waiting: Counter[str] = Counter()
    async for marker in parking.parked():
        if integration in (None, marker.ref.integration) and code in (None, marker.code):
            waiting[marker.ref.integration] += 1
    if order.dry_run:
        return {"resumed": waiting.total(), "integrations": dict(waiting), "command": None}
    order.ask(f"Let {waiting.total()} waiting jobs continue now?")
    about: dict[str, JsonValue] = {"integration": integration, "code": code}
    async with recorded(setup, jobs.objects, order, "job retry", about, targets=sorted(waiting)) as command:
        resumed = {name: await parking.resume(name, code=code) for name in command.receipt.targets}
        for name, count in resumed.items():
            await command.audit(
                AuditAction.JOB_RETRIED, name, detail={"resumed": count, "code": code}, integration=name
            )
    return {"resumed": sum(resumed.values()), "integrations": resumed, "command": command.id}

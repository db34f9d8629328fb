"""``pipeline job``: how far a job is, its result, deleting its cards, sending its callback again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pipeline.app import open_jobs
from pipeline.cli.commands import Order, order_options, recorded
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode
from pipeline.cli.job_view import (
    JobView,
    NotFound,
    all_attempts,
    decided_parts,
    find_job,
    job_name,
    parse_job,
    view_job,
)
from pipeline.cli.local_files import Aside
from pipeline.cli.output import json_option, print_fields, print_json, print_table
from pipeline.contracts import AuditAction
from pipeline.errors import PermanentError, TransientError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.messages import outcome_record

_POLL_SECONDS: Final = 1.0
_ENDS: Final = frozenset({"confirmed", "refused"})
_COLUMNS: Final = ("job", "attempt", "state", "deadline", "records", "ok", "failed", "reason")

R = TypeVar("R")

job_argument = click.argument("job_text", metavar="JOB")


class Refused(PermanentError):
    """The job's state does not allow it."""


class FollowTimeout(TransientError):
    """The job did not end in the time given."""


@click.group()
def job() -> None:
    """Look at jobs, notify ECS again, delete card data. JOB is INTEGRATION/GUID, or only the GUID."""


@job.command("list", epilog="Example: pipeline job list --json | jq 'select(.state == \"refused\")'")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=1), help="Most jobs to print.")
@click.option("--integration", help="Only jobs of this integration.")
@json_option
@pass_setup
def list_jobs(setup: Setup, *, limit: int, integration: str | None, as_json: bool) -> None:
    """Print the open jobs, by deadline: those whose outcome ECS has not confirmed. With --json one object per line."""

    async def listed(jobs: JobStore) -> list[JobView]:
        views: list[JobView] = []
        async for marker in jobs.filed("open"):
            if integration in (None, marker.ref.integration):
                views.append(await view_job(jobs, marker.ref))
            if len(views) == limit:
                break
        return views

    views = asyncio.run(_with_jobs(setup, listed))
    if as_json:
        for view in views:
            print_json(view.as_json())
        return
    print_table(_COLUMNS, [_row(view) for view in views])
    if not views:
        click.echo("no open jobs; `pipeline job show JOB` also finds those that ECS has confirmed", err=True)


@job.command(epilog="Example: pipeline job show acme/cffde776-1d2a-4614-8023-a5148e411462 --json")
@job_argument
@json_option
@pass_setup
def show(setup: Setup, *, job_text: str, as_json: bool) -> None:
    """Print what is known of a job. Exit 1 if there is none."""
    view = asyncio.run(_with_job(setup, job_text, view_job))
    if as_json:
        print_json(view.as_json())
        return
    print_fields(_summary(view))


@job.command(
    epilog="""\b
Example:
  pipeline job follow acme/cffde776-1d2a-4614-8023-a5148e411462 --timeout 600
Exit 0: completed and confirmed. Exit 1: failed or refused. Exit 4: no end in the time given."""
)
@job_argument
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds to wait at the most. Default: for ever.")
@json_option
@pass_setup
@click.pass_context
def follow(ctx: click.Context, setup: Setup, *, job_text: str, timeout: float | None, as_json: bool) -> None:
    """Wait for the end of a job and print one line per change. The job need not exist yet."""

    def show(view: JobView) -> None:
        if as_json:
            print_json(view.as_json())
        else:
            pairs = zip(_COLUMNS, _row(view), strict=True)
            click.echo("  ".join(f"{name}={'-' if value is None else value}" for name, value in pairs))

    view = asyncio.run(_with_jobs(setup, lambda jobs: follow_job(jobs, _wanted(setup, job_text), show, timeout)))
    fine = view.state == "confirmed" and view.outcome is not None and view.outcome.outcome == "completed"
    ctx.exit(ExitCode.OK if fine else ExitCode.FINDING)


@job.command(epilog="Example: pipeline job result acme/cffde776-1d2a-4614-8023-a5148e411462 --output result.csv")
@job_argument
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Result file; appears only when it is complete.",
)
@json_option
@pass_setup
def result(setup: Setup, *, job_text: str, output: Path, as_json: bool) -> None:
    """Write the result of each card; of an unfinished job, the results up to the first gap.

    Results of confirmed jobs are deleted: ECS has them. Exit 1 if nothing is left.
    """
    report = asyncio.run(_with_job(setup, job_text, lambda jobs, ref: write_result(jobs, ref, output)))
    if as_json:
        print_json(report)
        return
    print_fields(report)


@job.command(
    epilog="Example: pipeline job purge acme/cffde776-1d2a-4614-8023-a5148e411462 --reason 'erasure request 17'"
)
@job_argument
@order_options
@json_option
@pass_setup
def purge(setup: Setup, *, job_text: str, order: Order, as_json: bool) -> None:
    """Delete a decided job's card data (its result parts); receipts stay. Recorded in the audit log."""
    gone = asyncio.run(_with_job(setup, job_text, lambda jobs, ref: _purge(setup, jobs, ref, order)))
    if as_json:
        print_json(gone)
        return
    click.echo(f"{gone['job']}: {gone['objects']} objects {'would be ' if order.dry_run else ''}deleted")


@job.command(
    epilog="Example: pipeline job notify acme/cffde776-1d2a-4614-8023-a5148e411462 --reason 'new token is in place'"
)
@job_argument
@order_options
@json_option
@pass_setup
def notify(setup: Setup, *, job_text: str, order: Order, as_json: bool) -> None:
    """Send a callback again that ECS refused, with the same body. Exit 1 if it was not refused."""
    sent = asyncio.run(_with_job(setup, job_text, lambda jobs, ref: _notify(setup, jobs, ref, order)))
    if as_json:
        print_json(sent)
        return
    would = "would be" if order.dry_run else "will be"
    click.echo(f"{sent['job']}: the callback {would} sent again")


async def follow_job(
    jobs: JobStore,
    wanted: list[JobRef],
    show: Callable[[JobView], object],
    timeout: float | None,  # noqa: ASYNC109 - the option's name; applied by asyncio.timeout
    *,
    pause: float = _POLL_SECONDS,
) -> JobView:
    """Return a job's last view, after showing every change.

    Raises:
        FollowTimeout: It did not end in ``timeout`` seconds.
    """
    before: object = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    view = await view_job(jobs, await find_job(jobs, wanted))
                except NotFound:
                    view = None
                if view is not None and (now := (view.ref, view.state, view.chunks, view.tries)) != before:
                    before = now
                    show(view)
                if view is not None and view.state in _ENDS:
                    return view
                await asyncio.sleep(pause)
    except TimeoutError:
        raise FollowTimeout("follow_timeout", f"the job did not end within {timeout:g} s; it goes on") from None


async def write_result(jobs: JobStore, ref: JobRef, output: Path) -> dict[str, Any]:
    """Write the decided cards' result lines to a file; return counts and hash.

    Raises:
        NotFound: No part is left.
    """
    manifests = await decided_parts(jobs, ref)
    if not manifests:
        raise NotFound("result_gone", f"{job_name(ref)}: no result part is in the store (any more)")
    with Aside(output) as aside:
        async for piece in jobs.stream(manifests):
            await aside.write(piece)
        sha256 = await aside.keep()
    return {
        "job": job_name(ref),
        "records": manifests[-1].end.record,
        "ok": sum(one.ok for one in manifests),
        "failed": sum(one.failed for one in manifests),
        "complete": await jobs.processed(ref) is not None,
        "bytes": aside.size,
        "sha256": sha256,
    }


async def _purge(setup: Setup, jobs: JobStore, latest: JobRef, order: Order) -> dict[str, Any]:
    name = job_name(latest)
    if await jobs.outcome(latest) is None:
        raise Refused("job_undecided", f"{name} is in work; its parts go when it is decided")
    attempts = await all_attempts(jobs, latest)
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


async def _with_jobs(setup: Setup, work: Callable[[JobStore], Awaitable[R]]) -> R:
    async with open_jobs(setup.settings(), setup.ports) as jobs:
        return await work(jobs)


async def _with_job(setup: Setup, text: str, work: Callable[[JobStore, JobRef], Awaitable[R]]) -> R:
    async with open_jobs(setup.settings(), setup.ports) as jobs:
        return await work(jobs, await find_job(jobs, _wanted(setup, text)))


def _wanted(setup: Setup, text: str) -> list[JobRef]:
    return parse_job(text, setup.settings().job_names)


def _row(view: JobView) -> tuple[object, ...]:
    counts = view.outcome or view.processed
    return (
        job_name(view.ref),
        view.ref.attempt,
        view.state,
        view.announcements[-1].deadline.isoformat(timespec="seconds"),
        counts.records if counts else None,
        counts.ok if counts else None,
        counts.failed if counts else None,
        view.outcome.reason if view.outcome else None,
    )


def _summary(view: JobView) -> dict[str, object]:
    fields: dict[str, object] = dict(zip(_COLUMNS, _row(view), strict=True))
    return fields | {
        "announced": len(view.announcements),
        "chunks": view.chunks,
        "message": view.outcome.message if view.outcome else None,
        "tries": view.tries,
        "notified": f"{view.told.told} ({view.told.status} {view.told.code})" if view.told else None,
    }

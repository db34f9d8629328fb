"""``pipeline job``: list jobs, show the state and the result of a job, and the commands that change jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_args

import click

from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import ExitCode
from pipeline.cli.job_follow import ending, follow_job, showing
from pipeline.cli.job_list import AT_ONCE, Listed, Wanted, list_jobs
from pipeline.cli.job_orders import cancel, notify, purge, retry
from pipeline.cli.job_view import (
    JobView,
    NotFound,
    State,
    decided_parts,
    job_argument,
    job_name,
    named_job,
    view_with_progress,
    with_job,
    with_jobs,
)
from pipeline.cli.local_files import Aside
from pipeline.cli.output import json_option, on_terminal, print_fields, print_json, print_line, print_table
from pipeline.cli.times import Time, now, shown_duration
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef

_COLUMNS: Final = ("job", "attempt", "state", "deadline", "records", "ok", "failed", "reason")
_SHORT_COLUMNS: Final = ("job", "state", "deadline", "why")


@click.group()
def job() -> None:
    """Look at jobs, retry or cancel them, notify ECS again, delete card data.

    JOB is INTEGRATION/GUID, or only the GUID.
    """


for order in (cancel, notify, purge, retry):
    job.add_command(order)


@job.command(
    "list",
    epilog="""\b
Examples:
  pipeline job list --state waiting --state refused
  pipeline job list --since 2h --integration acme
  pipeline job list --state confirmed --json | jq 'select(.outcome.outcome == "failed")'
States: announced, processing, processed, completed, failed, waiting, damaged, refused,
confirmed, closed.
Costs one listing of the store for each job, and with --json, --state or --since, or once it has
a result, up to ten reads more.""",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(get_args(State)),
    metavar="STATE",
    help="Only jobs in this state. Repeatable. Default: all states except confirmed and closed.",
)
@click.option(
    "--since",
    type=Time(),
    help="Only jobs with a change since then, also ended ones. A time with a zone, or e.g. 2h.",
)
@click.option("--integration", help="Only jobs of this integration.")
@click.option(
    "--limit", default=AT_ONCE, show_default=True, type=click.IntRange(min=1), help="Maximum number of jobs to print."
)
@click.option(
    "--after", metavar="CURSOR", help="Print the next page. CURSOR is the cursor of the last job on this page."
)
@json_option
@pass_setup
def list_(
    setup: Setup,
    *,
    states: tuple[State, ...],
    since: datetime | None,
    integration: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """Print jobs: first open ones by deadline, then ended ones, the latest first. With --json, one per line.

    Ended jobs are printed where --state or --since asks for them; without --since, those of the last day.
    """
    wanted = Wanted(states, integration, since, now(), after, glance=not as_json)

    async def listed(jobs: JobStore) -> list[Listed]:
        return [one async for one in list_jobs(jobs, wanted, limit)]

    found = asyncio.run(with_jobs(setup, listed))
    if as_json:
        for one in found:
            print_json(one.view.as_json() | {"cursor": one.cursor})
    elif on_terminal():
        print_table(_SHORT_COLUMNS, [_short_row(one.view, wanted.until) for one in found], whole=_SHORT_COLUMNS[:3])
    else:
        print_table(_COLUMNS, [_row(one.view) for one in found])
    if len(found) == limit:
        click.echo(f"there may be more: add --after {found[-1].cursor}", err=True)
    if not found and not after:
        click.echo("no such jobs; `pipeline job list --since 1d` also lists those that ended", err=True)


@job.command(epilog="Example: pipeline job show acme/cffde776-1d2a-4614-8023-a5148e411462 --json")
@job_argument
@json_option
@pass_setup
def show(setup: Setup, *, job_text: str, as_json: bool) -> None:
    """Print the state of a job. Exit 1 if the job is unknown."""
    view = asyncio.run(with_job(setup, job_text, view_with_progress))
    if as_json:
        print_json(view.as_json())
        return
    print_fields(_summary(view, now()))
    click.echo()
    for step, at in view.steps:
        click.echo(f"{at.isoformat(timespec='seconds')}  {step.replace('_', ' ')}")


@job.command(
    epilog="""\b
Example:
  pipeline job follow acme/cffde776-1d2a-4614-8023-a5148e411462 --timeout 600
Exit 0: completed and confirmed. Exit 1: failed or refused. Exit 4: no end before --timeout."""
)
@job_argument
@click.option("--timeout", type=click.FloatRange(min=0), help="Maximum seconds to wait. Default: no limit.")
@json_option
@pass_setup
@click.pass_context
def follow(ctx: click.Context, setup: Setup, *, job_text: str, timeout: float | None, as_json: bool) -> None:
    """Wait for the end of a job and print how it ended. The job may not exist yet.

    A terminal shows one bar for the whole job; elsewhere each change is a line.
    """

    async def followed(jobs: JobStore) -> JobView:
        def find() -> Awaitable[JobRef]:
            return named_job(jobs, job_text, setup.settings().job_names)

        if as_json:
            return await follow_job(jobs, find, lambda view: print_json(view.as_json()), timeout)
        with showing() as (show, every_look):
            return await follow_job(jobs, find, show, timeout, every_look=every_look)

    view = asyncio.run(with_jobs(setup, followed))
    if not as_json:
        print_line(ending(view))
    fine = view.state == "confirmed" and view.outcome is not None and view.outcome.outcome == "completed"
    ctx.exit(ExitCode.OK if fine else ExitCode.FINDING)


@job.command(epilog="Example: pipeline job result acme/cffde776-1d2a-4614-8023-a5148e411462 --output result.csv")
@job_argument
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Result file. Written only when it is complete.",
)
@json_option
@pass_setup
def result(setup: Setup, *, job_text: str, output: Path, as_json: bool) -> None:
    """Write the result of each card. For an unfinished job, write the results up to the first gap.

    Results of confirmed jobs are deleted: ECS has them. Exit 1 if nothing is left.
    """
    write = with_job(setup, job_text, lambda jobs, ref: write_result(jobs, ref, output), with_parts=True)
    report = asyncio.run(write)
    if as_json:
        print_json(report)
        return
    print_fields(report)


async def write_result(jobs: JobStore, ref: JobRef, output: Path) -> dict[str, Any]:
    """Write the result lines of all cards with a result to a file; return counts and hash.

    Raises:
        NotFound: No part is left.
    """
    manifests = await decided_parts(jobs, ref)
    if not manifests:
        raise NotFound("result_gone", f"{job_name(ref)}: no result part is in the store (any more)")
    with Aside(output) as aside:
        async with aclosing(jobs.stream(manifests)) as pieces:
            async for piece in pieces:
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


def _row(view: JobView) -> tuple[object, ...]:
    counts = view.outcome or view.processed
    return (
        job_name(view.ref),
        view.ref.attempt,
        view.state,
        view.deadline and view.deadline.isoformat(timespec="seconds"),
        counts.records if counts else None,
        counts.ok if counts else None,
        counts.failed if counts else None,
        view.why,
    )


def _short_row(view: JobView, until: datetime) -> tuple[object, ...]:
    """Return a row for a terminal of 80 columns: the full name of the job, and the time until its deadline."""
    return job_name(view.ref), view.state, _from_now(view.deadline, until), view.why


def _from_now(at: datetime | None, until: datetime) -> str | None:
    if at is None:
        return None
    return f"in {shown_duration(at - until)}" if at > until else f"{shown_duration(until - at)} ago"


_MEANS: Final[Mapping[State, str]] = {
    "announced": "PROCESS has not finished a chunk of it yet",
    "processing": "PROCESS works on its file",
    "processed": "UPLOAD has to upload the result",
    "completed": "CONFIRM has to notify ECS",
    "failed": "CONFIRM has to notify ECS",
    "waiting": "it is tried again by itself; `pipeline job retry` tries it now",
    "damaged": "an object of it cannot be read",
    "refused": "ECS refused the callback; `pipeline job notify` sends it again",
    "confirmed": "ECS confirmed the outcome; nothing is left to do",
    "closed": "ECS was not notified, because its integration is not in the settings",
}
"""The meaning of each state for an operator."""


def _summary(view: JobView, until: datetime) -> dict[str, object]:
    """Return the fields of a job for people, without those that it does not have."""
    counts, left = view.outcome or view.processed, _from_now(view.deadline, until)
    ended = view.notification
    fields: dict[str, object] = {
        "job": job_name(view.ref),
        "attempt": view.ref.attempt if view.ref.attempt > 1 else None,
        "state": f"{view.state}: {_MEANS[view.state]}",
        "deadline": view.deadline and f"{view.deadline.isoformat(timespec='seconds')} ({left})",
        "announcements": len(view.announcements),
        "chunks": None if view.progress else view.chunks,
        "cards": f"{counts.records:,}: {counts.ok:,} ok, {counts.failed:,} failed" if counts else None,
        "reason": None if view.waiting else view.why,
        "message": view.outcome.message if view.outcome else None,
        "callbacks sent": view.tries or None,
        "answer of ECS": f"{ended.told} ({ended.status} {ended.code})" if ended else None,
    }
    if waiting := view.waiting:
        fields |= {
            "waits in": f"{waiting.stage}, since {waiting.first_at.isoformat(timespec='seconds')} (wait "
            f"{waiting.count}, parked by {waiting.worker})",
            "last error": f"{waiting.code}: {waiting.message}",
            "next try": f"{waiting.due.isoformat(timespec='seconds')} ({_from_now(waiting.due, until)})",
        }
    if view.progress:
        fields |= view.progress.fields(until)
    elif view.held:
        fields["worker"] = f"{view.held.host or '-'}, since {view.held.at.isoformat(timespec='seconds')}"
    for conflict in view.conflicts:
        differences = ", ".join(f"{one.field} {one.later} (first: {one.first})" for one in conflict.differences)
        fields[f"conflicting announcement {conflict.id}"] = differences
    if view.damage:
        fields["cannot be read"] = ", ".join(view.damage)
    return {name: value for name, value in fields.items() if value is not None}

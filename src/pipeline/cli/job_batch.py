"""Runs an operator's action on one job or on many, a few at a time, with an audit entry for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import click
from pydantic import JsonValue

from pipeline.cli.commands import Command, Order, recorded
from pipeline.cli.context import Setup, actor
from pipeline.cli.exits import UsageRefused
from pipeline.cli.job_list import Wanted, in_order, list_jobs
from pipeline.cli.job_view import State, job_name, named_job, with_jobs
from pipeline.cli.output import print_json, print_line
from pipeline.cli.times import now
from pipeline.contracts import AuditAction
from pipeline.jobs.announcements import JobRules
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.operations import Operations, Refused
from pipeline.jobs.parking import Parking
from pipeline.jobs.stage import StageContext
from pipeline.kafka import Publisher
from pipeline.observability import Metrics

Result = dict[str, Any]
"""What a command prints about one job."""


@dataclass(frozen=True, slots=True)
class Action:
    """What a command does to a job, and the texts for it.

    Attributes:
        name: The command, e.g. ``job cancel``.
        audited: The audit action to record for each changed job.
        question: Asked before many jobs are changed; ``{count}`` becomes their number.
        question_for_one: Asked before one job is changed; ``{job}`` becomes its name. Empty: do not ask.
        done: What happened to a job, for people.
        planned: The same in a dry run: what would happen.
        check: Returns the planned result; raises Refused if the job's state does not allow the action.
        act: Changes the job; returns the result to print. Safe to repeat.
    """

    name: str
    audited: AuditAction
    question: str
    question_for_one: str
    done: str
    planned: str
    check: Callable[[JobStore, JobRef], Awaitable[Result]]
    act: Callable[[Operations, Command, JobRef], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Batch:
    """One run of an action."""

    setup: Setup
    order: Order
    action: Action
    as_json: bool

    def run(self, job_text: str | None, states: Sequence[State], integration: str | None) -> None:
        """Run the action on the named job, or on all open jobs in the given states.

        Raises:
            UsageRefused: The command line gives both, or neither.
            Refused: The named job's state does not allow it. A run on many jobs skips such a job.
        """
        if bool(job_text) == bool(states) or (integration and job_text):
            raise UsageRefused("which_jobs", "name one JOB, or choose many with an option (see --help)")
        if job_text:
            asyncio.run(with_jobs(self.setup, lambda jobs: self._one(jobs, job_text)))
        else:
            asyncio.run(with_jobs(self.setup, lambda jobs: self._many(jobs, states, integration)))

    async def _one(self, jobs: JobStore, text: str) -> None:
        ref = await named_job(jobs, text, self.setup.settings().job_names)
        if self.order.repeat is None or self.order.dry_run:
            planned = await self.action.check(jobs, ref)
            if self.order.dry_run:
                self._print(planned | {"command": None})
                return
        if self.action.question_for_one:
            self.order.ask(self.action.question_for_one.format(job=job_name(ref)))
        about: dict[str, JsonValue] = {"job": job_name(ref)}
        async with recorded(
            self.setup, jobs.objects, self.order, self.action.name, about, targets=[_written(ref)]
        ) as command:
            (first,) = command.receipt.targets
            self._print(await self._act(_operations(self.setup, jobs, command.publisher), command, _read(first)))

    async def _many(self, jobs: JobStore, states: Sequence[State], integration: str | None) -> None:
        found: list[tuple[JobRef, Result]] = []
        if self.order.repeat is None or self.order.dry_run:
            planned = in_order(_refs(jobs, states, integration), lambda ref: self._planned(jobs, ref))
            found = [one async for one in planned if one]
        if self.order.dry_run:
            for _, result in found:
                self._print(result | {"command": None})
            self._print_count(len(found))
            return
        if found:
            self.order.ask(self.action.question.format(count=len(found)))
        if found or self.order.repeat:
            about: dict[str, JsonValue] = {"states": [*states], "integration": integration}
            self._print_count(await self._act_on(jobs, [ref for ref, _ in found], about))
        else:
            self._print_count(0)

    def _print_count(self, count: int) -> None:
        verb = self.action.planned if self.order.dry_run else self.action.done
        click.echo(f"{count} job{'' if count == 1 else 's'}: {verb}", err=True)

    async def _planned(self, jobs: JobStore, ref: JobRef) -> tuple[JobRef, Result] | None:
        try:
            return ref, await self.action.check(jobs, ref)
        except Refused:
            return None  # its state has changed since it was listed

    async def _act_on(self, jobs: JobStore, refs: Sequence[JobRef], about: dict[str, JsonValue]) -> int:
        changed = 0
        written = [_written(ref) for ref in refs]
        async with recorded(self.setup, jobs.objects, self.order, self.action.name, about, targets=written) as command:
            operations = _operations(self.setup, jobs, command.publisher)

            async def act(ref: JobRef) -> Result:
                try:
                    return await self._act(operations, command, ref)
                except Refused as error:
                    return {"job": job_name(ref), "refused": error.code, "command": command.id}

            async for result in in_order(_each(command.receipt.targets), act):
                self._print(result)
                changed += "refused" not in result
        return changed

    async def _act(self, operations: Operations, command: Command, ref: JobRef) -> Result:
        result = await self.action.act(operations, command, ref)
        await command.audit(
            self.action.audited,
            job_name(ref),
            str(ref.attempt),
            detail={"attempt": ref.attempt, **{name: value for name, value in result.items() if name != "job"}},
            integration=ref.integration,
            job_guid=ref.job_guid,
        )
        return result | {"command": command.id}

    def _print(self, result: Result) -> None:
        if self.as_json:
            print_json(result)
            return
        said = self.action.planned if self.order.dry_run else self.action.done
        if "refused" in result:
            said = f"left as it is ({result['refused']})"
        elif result.get("notified") is False:
            said += "; ECS is not notified, because the settings lack its integration"
        print_line(f"{result['job']}: {said}")


async def _each(targets: Sequence[str]) -> AsyncIterator[JobRef]:
    for target in targets:
        yield _read(target)


def _written(ref: JobRef) -> str:
    """Return an attempt of a job as text for a receipt."""
    return f"{job_name(ref)}.{ref.attempt}"


def _read(written: str) -> JobRef:
    name, _, attempt = written.rpartition(".")
    integration, _, guid = name.partition("/")
    return JobRef(integration, UUID(guid), int(attempt))


async def _refs(jobs: JobStore, states: Sequence[State], integration: str | None) -> AsyncIterator[JobRef]:
    """Yield all open jobs in the given states."""
    async for one in list_jobs(jobs, Wanted(states, integration, None, now(), None), limit=None):
        yield one.view.ref


def rules_of(setup: Setup) -> dict[str, JobRules]:
    """Return the rules of the configured integrations."""
    return {
        name: JobRules(partner=one.partner, limits=one.limits, policies=one.policies)
        for name, one in setup.settings().job_integrations().items()
    }


def _operations(setup: Setup, jobs: JobStore, publisher: Publisher) -> Operations:
    keep = timedelta(days=setup.settings().retention.failed_parts_days)
    context = StageContext(actor(), jobs, publisher, now, Metrics())
    return Operations(context, rules_of(setup), keep, Parking(jobs, now))

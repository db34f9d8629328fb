"""``pipeline integration pause`` and ``resume``: stop work on the jobs of an integration for some time."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import click
from pydantic import JsonValue

from pipeline.cli.commands import Order, order_options, recorded
from pipeline.cli.context import Setup, pass_setup
from pipeline.cli.exits import UsageRefused
from pipeline.cli.job_view import with_jobs
from pipeline.cli.output import json_option, print_json
from pipeline.cli.times import Time, now, parse_duration
from pipeline.contracts import AuditAction
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.parking import Parking
from pipeline.jobs.switches import PAUSED, Switches


class Until(Time):
    """A future time: ISO 8601 with a zone, or a duration from now."""

    def __init__(self) -> None:
        super().__init__(future=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware datetime after now."""
        duration = parse_duration(value) if isinstance(value, str) else None
        time = now() + duration if duration else super().convert(value, param, ctx)
        if not isinstance(time, datetime) or time <= now():
            self.fail(f"{value!r} is not in the future; write e.g. 2h, or a time with a zone", param, ctx)
        return time


@click.command(
    epilog="Example: pipeline integration pause acme --until 2h --reason 'the card service is in maintenance, INC-7'"
)
@click.argument("name")
@click.option(
    "--until",
    required=True,
    type=Until(),
    help="When the pause ends: e.g. 2h for two hours from now, or a time with a zone.",
)
@order_options
@json_option
@pass_setup
def pause(setup: Setup, *, name: str, until: datetime, order: Order, as_json: bool) -> None:
    """Stop work on all jobs of integration NAME. The ingress still accepts webhooks.

    Workers notice the pause within 5 seconds and finish the job in hand first. The pause does NOT extend the deadlines
    of the jobs: a job whose deadline passes fails, and ECS is notified after the pause. A new pause replaces this one.
    """
    _run(setup, name, order, until=until, as_json=as_json)


@click.command(epilog="Example: pipeline integration resume acme --reason 'the card service is back'")
@click.argument("name")
@order_options
@json_option
@pass_setup
def resume(setup: Setup, *, name: str, order: Order, as_json: bool) -> None:
    """End the pause of integration NAME now. The waiting jobs continue at once."""
    _run(setup, name, order, until=None, as_json=as_json)


def _run(setup: Setup, name: str, order: Order, *, until: datetime | None, as_json: bool) -> None:
    if name not in setup.settings().job_names:
        raise UsageRefused("integration_unknown", f"the settings have no job integration {name!r}")
    done = asyncio.run(with_jobs(setup, lambda jobs: _switch(setup, jobs, name, order, until)))
    if as_json:
        print_json(done)
        return
    verb = "would be" if order.dry_run else "is"
    if until is None:
        click.echo(f"{name}: {verb} resumed; {done['resumed']} waiting jobs continue now")
    else:
        click.echo(f"{name}: {verb} paused until {until.isoformat(timespec='seconds')}")


async def _switch(setup: Setup, jobs: JobStore, name: str, order: Order, until: datetime | None) -> dict[str, Any]:
    parking = Parking(jobs, now)
    paused = until is not None
    if order.dry_run:
        waits = [one async for one in parking.parked() if (one.ref.integration, one.code) == (name, PAUSED)]
        return {"integration": name, "paused": paused, "until": until, "resumed": len(waits), "command": None}
    what = "integration pause" if paused else "integration resume"
    about: dict[str, JsonValue] = {"integration": name}
    async with recorded(setup, jobs.objects, order, what, about) as command:
        receipt = command.receipt
        switch = await Switches(jobs.objects, now).turn(
            name,
            paused=paused,
            until=until or receipt.at,
            reason=receipt.reason,
            actor=receipt.actor,
            command=command.id,
        )
        resumed = 0 if paused else await parking.resume(name, code=PAUSED)
        action = AuditAction.INTEGRATION_PAUSED if paused else AuditAction.INTEGRATION_RESUMED
        detail: dict[str, JsonValue] = {"until": switch.until.isoformat()} if paused else {}
        await command.audit(action, name, detail=detail, integration=name)
    return {"integration": name, "paused": paused, "until": until, "resumed": resumed, "command": command.id}

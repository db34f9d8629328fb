"""What a person sees of the demo: bars or lines while it runs, a table at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.sandbox.demo.events import EventsOutcome, WatchEvents
from pipeline.sandbox.demo.plan import EVENTS, PLAN, DemoJob
from pipeline.sandbox.demo.running import Outcome, Watch
from pipeline.sandbox.jobs import Job

_WIDTH_WITHOUT_TERMINAL: Final = 120
_QUARTER: Final = 0.25
_EVENTS_TITLE: Final = f"deliver {EVENTS.count:,} events of 32 kinds"


def new_console() -> Console:
    """Return a console on stdout; without a terminal it is wide enough for the table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)


@contextmanager
def watching(console: Console) -> Iterator[tuple[Watch, WatchEvents]]:
    """Give functions that show how far jobs and events are: bars on a terminal, else a line where something changed."""
    if not console.is_terminal:
        lines = _Lines(console)
        yield lines.jobs, lines.events
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = {plan.integration: progress.add_task(plan.title, total=1.0) for plan in PLAN}
        events = progress.add_task(_EVENTS_TITLE, total=1.0, start=False)

        def show(jobs: Sequence[tuple[DemoJob, Job | None, float]]) -> None:
            for plan, _, done in jobs:
                progress.update(bars[plan.integration], completed=done)

        def show_share(done: float) -> None:
            progress.start_task(events)
            progress.update(events, completed=done)

        yield show, show_share


class _Lines:
    """One line per job, and for all events, and quarter."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, float] = {}

    def jobs(self, jobs: Sequence[tuple[DemoJob, Job | None, float]]) -> None:
        """Show the jobs that have begun."""
        for plan, job, done in jobs:
            if job is not None:
                self._show(plan.title, done)

    def events(self, done: float) -> None:
        """Show the events."""
        self._show(_EVENTS_TITLE, done)

    def _show(self, title: str, done: float) -> None:
        step = done // _QUARTER * _QUARTER
        if step > self._shown.get(title, -1.0):
            self._shown[title] = step
            self._console.print(f"{title}: {step:.0%}")


def show_table(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print one row per job."""
    table = Table("job", title_justify="left")
    for name in ("cards", "ok", "failed", "result bytes", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("ECS was told, and answered")
    for one in outcomes:
        table.add_row(
            one.job,
            f"{one.cards:,}",
            f"{one.ok:,}",
            f"{one.failed:,}",
            "-" if one.result_bytes is None else f"{one.result_bytes:,}",
            "-" if one.seconds is None else f"{one.seconds:.1f}",
            _told(one),
        )
    console.print(table)


def _told(outcome: Outcome) -> str:
    if outcome.told is None:
        return outcome.answer
    body = json.loads(outcome.told)
    words = "completed" if body["success"] else f"failed: {body['error_message']}"
    return f"{words} -> {outcome.answer}"


def show_events(console: Console, outcome: EventsOutcome) -> None:
    """Print one row per category, and their sum."""
    table = Table("events", title_justify="left")
    for name in ("sent", "accepted", "refused", "quarantined", "repeats found", "delivered"):
        table.add_column(name, justify="right")
    for row in (*outcome.rows, outcome.total):
        numbers = (row.sent, row.accepted, row.refused, row.quarantined, row.repeats, row.delivered)
        table.add_row(row.category, *(f"{number:,}" for number in numbers), end_section=row is outcome.rows[-1])
    console.print(table)

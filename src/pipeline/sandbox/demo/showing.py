"""What a person sees of the demo: bars or lines while it runs, a table at its end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.sandbox.demo.plan import PLAN, DemoJob
from pipeline.sandbox.demo.running import Outcome, Watch
from pipeline.sandbox.jobs import Job

_WIDTH_WITHOUT_TERMINAL: Final = 120
_QUARTER: Final = 0.25


def new_console() -> Console:
    """Return a console on stdout; without a terminal it is wide enough for the table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)


@contextmanager
def watching(console: Console) -> Iterator[Watch]:
    """Give a function that shows how far the jobs are: bars on a terminal, else a line where something has changed."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = {plan.integration: progress.add_task(plan.title, total=1.0) for plan in PLAN}

        def show(jobs: Sequence[tuple[DemoJob, Job | None, float]]) -> None:
            for plan, _, done in jobs:
                progress.update(bars[plan.integration], completed=done)

        yield show


class _Lines:
    """One line per job and quarter."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, float] = {}

    def __call__(self, jobs: Sequence[tuple[DemoJob, Job | None, float]]) -> None:
        for plan, job, done in jobs:
            step = done // _QUARTER * _QUARTER
            if job is not None and step > self._shown.get(plan.integration, -1.0):
                self._shown[plan.integration] = step
                self._console.print(f"{plan.title}: {step:.0%}")


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

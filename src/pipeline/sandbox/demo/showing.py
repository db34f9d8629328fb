"""The output of the demo: progress bars or lines while it runs, tables and a hint at its end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline.sandbox.demo.events import EventsOutcome, WatchEvents
from pipeline.sandbox.demo.plan import EVENTS, PLAN, DemoJob
from pipeline.sandbox.demo.running import Outcome, Watch
from pipeline.sandbox.jobs import Job

_WIDTH_WITHOUT_TERMINAL: Final = 120
_WIDE: Final = 110
"""Width of the console from which the table of jobs shows the callbacks. Below it, they have their own table."""
_QUARTER: Final = 0.25
_EVENTS_TITLE: Final = f"deliver {EVENTS.count:,} events of 32 kinds"
_CALLBACK_TITLE: Final = "callback -> answer of ECS"


def new_console() -> Console:
    """Return a console on stdout. Without a terminal, it is wide enough for the table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL)


@contextmanager
def logs_in(file: Path) -> Iterator[None]:
    """Redirect stderr of the whole process, including C libraries, into a file."""
    with file.open("w", buffering=1, encoding="utf-8") as log, redirect_stderr(log):
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextmanager
def watching(console: Console) -> Iterator[tuple[Watch, WatchEvents]]:
    """Yield functions that show the progress: bars on a terminal, otherwise a line for each change."""
    if not console.is_interactive:
        lines = _Lines(console)
        yield lines.jobs, lines.events
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    # otherwise rich would print stderr, which has the logs, above the bars
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
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
    """Prints a line at each quarter of a job, and at each quarter of the events."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, float] = {}

    def jobs(self, jobs: Sequence[tuple[DemoJob, Job | None, float]]) -> None:
        """Print the progress of the jobs that have begun."""
        for plan, job, done in jobs:
            if job is not None:
                self._show(plan.title, done)

    def events(self, done: float) -> None:
        """Print the progress of the events."""
        self._show(_EVENTS_TITLE, done)

    def _show(self, title: str, done: float) -> None:
        step = done // _QUARTER * _QUARTER
        if step > self._shown.get(title, -1.0):
            self._shown[title] = step
            self._console.print(f"{title}: {step:.0%}")


def show_jobs(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print one row per job. On a narrow console, a second table shows the callbacks."""
    wide = console.width >= _WIDE
    table, callbacks = _table(console, "job"), _table(console, "job")
    for name in ("cards", "ok", "failed", "result bytes", "seconds"):
        table.add_column(name, justify="right")
    (table if wide else callbacks).add_column(_CALLBACK_TITLE)
    for one in outcomes:
        numbers = (
            f"{one.cards:,}",
            f"{one.ok:,}",
            f"{one.failed:,}",
            "-" if one.result_bytes is None else f"{one.result_bytes:,}",
            "-" if one.seconds is None else f"{one.seconds:.1f}",
        )
        table.add_row(one.job, *numbers, *([_callback(one)] if wide else []))
        callbacks.add_row(one.job, _callback(one))
    console.print("", table)
    if not wide:
        console.print("", callbacks)


def show_events(console: Console, outcome: EventsOutcome) -> None:
    """Print one row per category, and the sum."""
    table = _table(console, "events")
    for name in ("sent", "accepted", "refused", "quarantined", "repeats", "handled"):
        table.add_column(name, justify="right")
    for row in (*outcome.rows, outcome.total):
        numbers = (row.sent, row.accepted, row.refused, row.quarantined, row.repeats, row.delivered)
        table.add_row(row.category, *(f"{number:,}" for number in numbers), end_section=row is outcome.rows[-1])
    console.print("", table)


def show_findings(console: Console, findings: Sequence[str], log: Path) -> None:
    """Print all findings, and where the logs are."""
    console.print()
    for finding in findings:
        console.print(f"WRONG: {finding}", soft_wrap=True, markup=False)
    console.print(f"Logs: {log}", soft_wrap=True, markup=False)


def show_end(console: Console, first: Outcome, seconds: float, folder: Path, log: Path) -> None:
    """Print that everything was verified, where the logs are, and a command that looks at one of the jobs."""
    command = Path(sys.executable).with_name("pipeline")  # works even if the virtual environment is not active
    if command.is_relative_to(Path.cwd()):
        command = command.relative_to(Path.cwd())
    lines = (
        "",
        f"Verified in {seconds:.1f} s: result files, callbacks, audit log, answers, topics.",
        f"Logs: {log}",
        "Look at a job:",
        f"  {command} --config {folder}/pipeline.toml \\",
        f"    job show {first.integration}/{first.job_guid}",
    )
    console.print("\n".join(lines), soft_wrap=True, markup=False)


def _table(console: Console, first: str) -> Table:
    """Return an empty table whose rows fit into 80 columns. A wider console gets more space between columns."""
    padding = (0, 1 if console.width >= _WIDE else 0)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=padding)
    table.add_column(first)
    return table


def _callback(outcome: Outcome) -> str:
    if outcome.callback is None:
        return outcome.answer
    body = json.loads(outcome.callback)
    words = "completed" if body["success"] else f"failed: {body['error_message']}"
    return f"{words} -> {outcome.answer}"

"""Waiting for the end of a job: a progress bar on a terminal, a line for each change elsewhere, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pipeline.cli.job_progress import shown_rate
from pipeline.cli.job_view import JobView, NotFound, job_name, view_with_progress
from pipeline.cli.output import on_terminal, print_line
from pipeline.cli.times import now, shown_duration
from pipeline.errors import TransientError
from pipeline.jobs.job_store import JobStore
from pipeline.jobs.job_tree import JobRef
from pipeline.jobs.receipts import NotificationResult, Outcome

if TYPE_CHECKING:
    from rich.progress import Progress

POLL_SECONDS: Final = 1.0
_PATIENCE: Final = 4.0
"""A look at a large job takes long: the pause after it is at least so many times as long."""

_ENDS: Final = frozenset({"confirmed", "refused", "closed"})
_DECIDED: Final = frozenset({"processed", "completed", "confirmed"})
"""States in which all cards are decided."""

_NOTHING: Final = timedelta()

Show = Callable[[JobView], object]


class FollowTimeout(TransientError):
    """The job did not end in the time given."""


async def follow_job(
    jobs: JobStore,
    find: Callable[[], Awaitable[JobRef]],
    show: Show,
    timeout: float | None,  # noqa: ASYNC109 - the option's name; applied by asyncio.timeout
    *,
    pause: float = POLL_SECONDS,
    every_look: bool = False,
) -> JobView:
    """Return a job's last view, after showing every change.

    Args:
        jobs: The job store.
        find: Returns the job's latest attempt.
        show: Called with each view that differs from the one before.
        timeout: The most seconds to wait.
        pause: Seconds between two looks.
        every_look: Whether ``show`` gets every view.

    Raises:
        FollowTimeout: It did not end in ``timeout`` seconds.
    """
    loop = asyncio.get_running_loop()
    before: object = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                began = loop.time()
                try:
                    view = await view_with_progress(jobs, await find())
                except NotFound:
                    view = None
                if view is not None:
                    seen = view.ref, view.state, view.chunks, view.tries, view.waiting
                    if every_look or seen != before:
                        before = seen
                        show(view)
                    if view.state in _ENDS:
                        return view
                await asyncio.sleep(max(pause, _PATIENCE * (loop.time() - began)))
    except TimeoutError:
        raise FollowTimeout("follow_timeout", f"the job did not end within {timeout:g} s; it goes on") from None


@contextmanager
def showing() -> Iterator[tuple[Show, bool]]:
    """Give a function that shows a job's views to a person, and whether it wants every view."""
    if on_terminal():
        # rich takes a fifth of a second to import: only a terminal pays for it
        from rich.console import Console  # noqa: PLC0415

        console = Console(highlight=False)
        if console.is_interactive:
            from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

            texts = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("cards", "rate", "left")]
            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), *texts)
            with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False, expand=True) as bar:
                yield _Bar(bar), True
            return
    yield lambda view: print_line(_line(view)), False


class _Bar:
    """One bar for the whole job: the share of its cards that are decided."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=1.0, start=False, cards="", rate="", left="")
        self._share = 0.0

    def __call__(self, view: JobView) -> None:
        """Show a view."""
        found = view.progress
        if view.state in _DECIDED:
            self._share = 1.0
        elif found and found.cards_total:
            self._share = found.cards / found.cards_total
        if self._share:
            self._progress.start_task(self._task)  # before, the bar moves to and fro
        name = f"waits: {view.why}" if view.state == "waiting" else view.state
        left = shown_duration(max(found.end - now(), _NOTHING)) if found and found.end else ""
        self._progress.update(
            self._task,
            description=name,
            completed=self._share,
            cards=f"{self._share:.0%}" + (f" of {found.cards_total:,} cards" if found and found.cards_total else ""),
            rate=f"{shown_rate(found.rate)}/s" if found and found.rate else "",
            left=(f"{left} left" if found and found.in_time is not False else f"{left} left, TOO LATE") if left else "",
            refresh=True,
        )


def _line(view: JobView) -> str:
    """Return one line for scripts and logs."""
    counts = view.outcome or view.processed
    pairs: dict[str, object] = {
        "job": job_name(view.ref),
        "attempt": view.ref.attempt,
        "state": view.state,
        "deadline": view.deadline and view.deadline.isoformat(timespec="seconds"),
        "records": counts.records if counts else None,
        "ok": counts.ok if counts else None,
        "failed": counts.failed if counts else None,
        "reason": view.why,
    }
    if found := view.progress:
        pairs |= {
            "chunks": found.done if found.total is None else f"{found.done}/{found.total}",
            "cards": found.cards if found.cards_total is None else f"{found.cards}/{found.cards_total}",
            "cards_per_second": found.rate and f"{found.rate:.1f}",
            "expected_end": found.end and found.end.isoformat(timespec="seconds"),
        }
    return "  ".join(f"{name}={'-' if value is None else value}" for name, value in pairs.items())


def ending(view: JobView) -> str:
    """Return a sentence about how a job ended."""
    return f"{job_name(view.ref)} {_outcome(view.outcome)}; {_notified(view)}"


def _outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return "ended without an outcome"
    if outcome.outcome == "completed":
        return f"completed: {outcome.records:,} cards, {outcome.ok:,} ok, {outcome.failed:,} failed"
    return f"failed ({outcome.reason}): {(outcome.message or '-').rstrip('.')}"


def _notified(view: JobView) -> str:
    ended: NotificationResult | None = view.notification
    if ended is None or view.state == "closed":
        return "ECS was not notified"
    if ended.told == "confirmed":
        return "ECS confirmed it"
    again = f"`pipeline job notify {job_name(view.ref)}` sends it again"
    return f"ECS refused the callback ({ended.status} {ended.code}): {again}"

"""Exit codes, and error output for people: ``error: <code>: <message>`` on stderr, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import IO, Any, Final

import click

from pipeline.errors import PipelineError, TransientError, most_severe
from pipeline.jobs.csv_engine import CsvError
from pipeline.settings import ConfigError


class ExitCode(IntEnum):
    """The exit codes on which scripts may rely (docs/reference/cli.md)."""

    OK = 0
    FINDING = 1
    """Damage, a failed verification, or a named thing that does not exist."""
    USAGE = 2
    """A wrong command line or wrong settings: the command did nothing."""
    REFUSED = 3
    """The input file is not a valid card file of this integration."""
    UNAVAILABLE = 4
    """The broker, the store or another server is unavailable: try again later."""
    INTERRUPTED = 130


_SETTINGS_CODES: Final = frozenset({"processor_unknown", "processor_options", "processor_invalid"})
"""Errors of other packages that only another setting can fix."""


class UsageRefused(PipelineError):
    """The command cannot be carried out as given."""


def exit_code(error: PipelineError) -> ExitCode:
    """Return the exit code of a process that ends with this error."""
    if isinstance(error, ConfigError | UsageRefused) or error.code in _SETTINGS_CODES:
        return ExitCode.USAGE
    if isinstance(error, CsvError):
        return ExitCode.REFUSED
    if isinstance(error, TransientError):
        return ExitCode.UNAVAILABLE
    return ExitCode.FINDING


class Failed(click.ClickException):
    """An expected error in the form in which click shows it."""

    def __init__(self, error: PipelineError) -> None:
        super().__init__(error.message)
        self.error = error
        self.exit_code = exit_code(error)  # type: ignore[misc]  # as click's own errors do

    def show(self, file: IO[Any] | None = None) -> None:
        """Print one line for each problem."""
        problems = self.error.problems if isinstance(self.error, ConfigError) else (self.error.message,)
        for problem in problems:
            click.echo(f"error: {self.error.code}: {problem}", file=file, err=True)


@contextmanager
def expected_errors(ctx: click.Context) -> Iterator[None]:
    """Turn an expected error into one line on stderr and an exit code.

    An unexpected error passes: it ends the process with a masked traceback and exit code 1.
    """
    try:
        yield
    except PipelineError as error:
        raise Failed(error) from error
    except KeyboardInterrupt:
        ctx.exit(ExitCode.INTERRUPTED)
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            raise Failed(
                UsageRefused("nobody_answers", "cannot ask for confirmation without a terminal; give --yes")
            ) from abort
        if isinstance(abort.__context__, KeyboardInterrupt):
            ctx.exit(ExitCode.INTERRUPTED)
        raise  # the answer was no
    except BaseExceptionGroup as group:
        expected = most_severe(group)
        if not isinstance(expected, PipelineError):
            raise
        raise Failed(expected) from group

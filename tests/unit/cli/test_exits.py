"""How each kind of error ends a command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from pipeline.cli.exits import ExitCode, UsageRefused, exit_code
from pipeline.cli.root import Root
from pipeline.errors import FatalError, PermanentError, PipelineError, TransientError
from pipeline.jobs.csv_engine import CsvError
from pipeline.settings import ConfigError
from pipeline.storage import StoreUnavailable


def ending_by(work: Callable[[], object]) -> click.Group:
    group = Root(name="x", callback=lambda: None)
    group.add_command(click.Command("go", callback=work))
    return group


def raising(error: BaseException) -> Callable[[], object]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(["a"]), 2),
        (UsageRefused("a_code", "a"), 2),
        (FatalError("processor_unknown", "a"), 2),
        (CsvError("csv_fault", "a"), 3),
        (StoreUnavailable("a"), 4),
        (TransientError("a_code", "a"), 4),
        (PermanentError("a_code", "a"), 1),
        (FatalError("a_code", "a"), 1),
    ],
)
def test_the_kind_of_error_decides_the_exit_code(error: PipelineError, code: int) -> None:
    assert exit_code(error) == code
    result = CliRunner().invoke(ending_by(raising(error)), ["go"])
    assert result.exit_code == code
    assert result.stderr == f"error: {error.code}: a\n"


def test_each_problem_is_a_line() -> None:
    result = CliRunner().invoke(ending_by(raising(ConfigError(["a: b", "c: d"]))), ["go"])
    assert result.stderr == "error: config_invalid: a: b\nerror: config_invalid: c: d\n"


def test_an_error_of_a_task_group_is_reported_as_itself() -> None:
    async def fail() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
            raise StoreUnavailable("away")

    result = CliRunner().invoke(ending_by(lambda: asyncio.run(fail())), ["go"])
    assert (result.exit_code, result.stderr) == (4, "error: store_unavailable: away\n")


def asking() -> None:
    """Ask as `job purge` does."""
    click.confirm("Sure?", abort=True)


def test_an_interrupted_question_ends_like_any_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_prompt: str) -> str:
        raise KeyboardInterrupt

    runner = CliRunner()
    with runner.isolation():
        monkeypatch.setattr("click.termui.visible_prompt_func", interrupt)
        assert ending_by(asking).main(["go"], prog_name="x", standalone_mode=False) == ExitCode.INTERRUPTED


def test_a_question_that_nobody_can_answer_is_refused() -> None:
    """A script without --yes learns what to give."""
    result = CliRunner().invoke(ending_by(asking), ["go"], input="")
    assert result.exit_code == 2
    assert "error: nobody_answers: cannot ask for confirmation without a terminal; give --yes" in result.stderr


def test_the_answer_no_is_no_interruption() -> None:
    assert CliRunner().invoke(ending_by(asking), ["go"], input="n\n").exit_code == 1


def test_what_nobody_expected_passes_with_its_traceback() -> None:
    for error in (ValueError("x"), ExceptionGroup("x", [StoreUnavailable("away"), ValueError("x")])):
        result = CliRunner().invoke(ending_by(raising(error)), ["go"])
        assert result.exit_code == 1
        assert result.exception is error


def test_an_interrupted_command_is_130() -> None:
    result = CliRunner().invoke(ending_by(raising(KeyboardInterrupt())), ["go"])
    assert result.exit_code == 130

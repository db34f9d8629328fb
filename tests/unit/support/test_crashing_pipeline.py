"""The launcher: a process dies right before or right after an effect, or says that it was never there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.crashing_pipeline import NEVER_THERE, Crash, died_at
from support.flow_process import environment

PROGRAM = """
import sys
from support.crashing_pipeline import Crash
crash = Crash(sys.argv[1])
for number in range(3):
    with crash.around("put.result"):
        print(f"put {number}", flush=True)
    print(f"done {number}", flush=True)
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_error_within_an_effect_passes_through() -> None:
    with pytest.raises(ValueError, match="inside"), Crash("before:post.callback").around("put.result"):
        raise ValueError("inside")


def test_an_effect_that_is_not_in_the_list_is_refused() -> None:
    with pytest.raises(LookupError, match=r"put\.resullt is missing"), Crash("before:put.result").around("put.resullt"):
        pytest.fail("not surrounded")


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("before:put.result", ""),
        ("after:put.result", "put 0\n"),
        ("before:put.result#3", "put 0\ndone 0\nput 1\ndone 1\n"),
    ],
)
def test_the_process_dies_at_its_point_and_says_where(point: str, said: str, tmp_path: Path) -> None:
    ended = run("-c", PROGRAM, point, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGKILL, said, died_at(point))


def test_the_point_of_another_effect_is_passed_by(tmp_path: Path) -> None:
    ended = run("-c", PROGRAM, "before:post.callback", cwd=tmp_path)
    assert (ended.returncode, ended.stdout.count("done")) == (0, 3)


def test_a_point_that_does_not_exist_is_refused_at_the_start(tmp_path: Path) -> None:
    ended = run("-m", "support.crashing_pipeline", "before:put.resullt", "--version", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "before:put.resullt is no crash point" in ended.stderr


def test_a_command_that_is_never_at_its_point_fails(tmp_path: Path) -> None:
    ended = run("-m", "support.crashing_pipeline", "before:put.result", "--version", cwd=tmp_path)
    assert ended.returncode == NEVER_THERE
    assert ended.stdout.startswith("pipeline, version")
    assert "never at before:put.result" in ended.stderr

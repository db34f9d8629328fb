"""Effects are crash points: a process can be made to die right before or right after each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pipeline.effects import CRASH_POINTS, EFFECTS, effect

PROGRAM = """
from pipeline.effects import effect
for number in range(3):
    with effect("put.result"):
        print(f"put {number}", flush=True)
    print(f"done {number}", flush=True)
"""


def run(point: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PIPELINE_CRASH_AT": point}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_without_being_armed_an_effect_does_nothing_of_its_own() -> None:
    with effect("put.result"):
        pass


def test_an_error_within_an_effect_passes_through() -> None:
    with pytest.raises(ValueError, match="inside"), effect("put.result"):
        raise ValueError("inside")


def test_every_effect_can_be_crashed_before_and_after() -> None:
    assert len(set(EFFECTS)) == len(EFFECTS)
    assert set(CRASH_POINTS) == {f"{side}:{name}" for name in EFFECTS for side in ("before", "after")}


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("before:put.result", ""),
        ("after:put.result", "put 0\n"),
        ("before:put.result#3", "put 0\ndone 0\nput 1\ndone 1\n"),
    ],
)
def test_the_process_dies_at_its_point_without_a_word(point: str, said: str) -> None:
    ended = run(point)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGKILL, said, "")


def test_the_point_of_another_effect_is_passed_by() -> None:
    ended = run("before:post.callback")
    assert (ended.returncode, ended.stdout.count("done")) == (0, 3)


def test_a_point_that_does_not_exist_is_refused_at_the_start() -> None:
    ended = run("before:put.resullt")
    assert ended.returncode != 0
    assert "PIPELINE_CRASH_AT=before:put.resullt is no crash point" in ended.stderr

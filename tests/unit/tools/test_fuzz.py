"""``make fuzz``: rounds with new seeds until the time is used up, or until one fails."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from support.paths import ROOT

from tools.fuzz import SELECTION, command, fuzz, main


class Rounds:
    """Rounds of ten seconds each; ``codes`` are their exit codes."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.commands: list[Sequence[str]] = []

    def run(self, words: Sequence[str]) -> int:
        self.commands.append(words)
        return self.codes.pop(0) if self.codes else 0

    def monotonic(self) -> float:
        return 10.0 * len(self.commands)


def test_rounds_go_on_until_the_time_is_used_up() -> None:
    rounds = Rounds()
    assert fuzz(25, [], run=rounds.run, monotonic=rounds.monotonic) == 0
    assert len(rounds.commands) == 3
    assert len({next(one for one in words if "seed" in one) for words in rounds.commands}) == 3


def test_the_first_failure_ends_it_and_its_seed_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = Rounds(0, 1)
    assert fuzz(1000, [], run=rounds.run, monotonic=rounds.monotonic) == 1
    seed = next(one for one in rounds.commands[1] if one.startswith("--hypothesis-seed="))
    assert f"round 2, {seed}" in capsys.readouterr().out
    assert len(rounds.commands) == 2


def test_one_round_runs_however_short_the_time_is() -> None:
    rounds = Rounds()
    assert fuzz(0, [], run=rounds.run, monotonic=rounds.monotonic) == 0
    assert len(rounds.commands) == 1


def test_a_path_replaces_the_selection() -> None:
    assert set(SELECTION) <= set(command(7, ["-k", "splitter"]))
    assert not set(SELECTION) & set(command(7, [str(ROOT / "tests" / "unit" / "audit")]))
    assert all((ROOT / path).exists() for path in SELECTION)


def test_the_command_line_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--seconds" in capsys.readouterr().out

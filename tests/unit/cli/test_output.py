"""Tables for people, plain lines for everybody else."""

from __future__ import annotations

import json
import sys

import pytest

from pipeline.cli.output import print_fields, print_json, print_table


def test_without_a_terminal_a_table_is_separated_by_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), [(1, None), ("x", "y")])
    assert capsys.readouterr().out == "a\tb\n1\t-\nx\ty\n"


def test_at_a_terminal_a_table_is_drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("a", "b"), [(1, None)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "1" in lines[3]
    assert "-" in lines[3]


def test_a_narrow_terminal_shows_whole_what_people_copy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    print_table(("job", "why"), [("j" * 30, "word " * 10)], whole=("job",))
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert "job" in first
    assert (second.split()[0], len(rest) > 1) == ("j" * 30, True)


def test_fields_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"a": 1, "long": None})
    assert capsys.readouterr().out == "a     1\nlong  -\n"


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "é\n"})
    assert capsys.readouterr().out == '{"a": "é\\n"}\n'


def test_json_steers_no_terminal_and_can_always_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    """A parser gets what was there all the same: half a surrogate pair, C1 controls, text that turns round."""
    received = {"a": "é\x1b[2J\x9b2J\x7f\u202e\ud800\U000e0001"}
    print_json(received)
    shown = capsys.readouterr().out.removesuffix("\n")
    assert shown == '{"a": "é\\u001b[2J\\u009b2J\\u007f\\u202e\\ud800\\udb40\\udc01"}'
    assert json.loads(shown) == received


@pytest.mark.parametrize("tty", [True, False])
def test_what_others_wrote_cannot_steer_the_terminal(
    tty: bool,  # noqa: FBT001 - a parameter of the test
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ids of quarantined records come from a topic: control sequences and markup are shown as what they are."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: tty)
    print_table(("a",), [("x\x1b[2Jy",), ("[/b]\u202e\n",)])
    print_fields({"a": "x\x1b]0;t\x07 é"})
    shown = capsys.readouterr().out
    assert "\\x1b[2Jy" in shown
    assert "[/b]\\u202e\\n" in shown
    assert "\\x1b]0;t\\x07 é" in shown
    assert not {"\x07", "\u202e"} & set(shown)

"""Tables for people, plain lines for everybody else."""

from __future__ import annotations

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


def test_fields_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"a": 1, "long": None})
    assert capsys.readouterr().out == "a     1\nlong  -\n"


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "é\n"})
    assert capsys.readouterr().out == '{"a": "é\\n"}\n'

"""What is wrong with a file's TOML is said with its line and in words, and without a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import ConfigError, parse_toml

FILE = Path("pipeline.toml")
CASES = [
    ("a = 1\na = 2", "line 2: a is set twice in this table (first in line 1); delete one"),
    ("[t]\na = 1\n[u]\na = 1\n\na = 2", "line 6: a is set twice in this table (first in line 4); delete one"),
    ('tls.a = "x"\ntls = 1', "line 2: tls is set twice in this table; delete one"),
    ("a = {b = 1, b = 2}", "line 1: a { table } has the same key twice; delete one"),
    ("[k]\nx=1\n[k]", "line 3: the table [k] occurs twice (first in line 1); write all its keys below one heading"),
    ("a.b = 1\n[a]", "line 2: the table [a] occurs twice; write all its keys below one heading"),
    ('a = "planted\nb = 1', "line 1, column 13: a quoted text has no closing quote in its line; add it"),
    ('a = 1\nb = "planted', "line 2: a quoted text has no closing quote; add it"),
    ("a = 'planted\nb = 1", "line 1: a quoted text has no closing quote; add it"),
    ('a = 1\nb = """planted\nc = 1\n', "line 2: a quoted text has no closing quote; add it"),
    ("a = 'x\ty\x01'", "line 1, column 9: the line contains a control character; delete it"),
    ("a planted", "line 1, column 3: the key is not followed by =; write KEY = VALUE"),
    (
        "a = 10s",
        "line 1, column 7: more text follows the value; write one KEY = VALUE per line, and put text in quotes",
    ),
    (
        "a = planted",
        (
            'line 1, column 5: this is not a value; write text in quotes ("..."), a number, true, false, [list] or '
            "{ table }"
        ),
    ),
    ("a = [1,\n2", "line 2: a list is not closed; write ] after its last value"),
    ("a = {b = 1", "line 1: a table in braces is not closed; write } after its last value"),
    (
        "a = {b = 1,}",
        "line 1, column 12: a key is missing; write { table } on one line, without a comma after the last value",
    ),
    (
        'a = "C:\\planted"',
        "line 1, column 10: TOML interprets a backslash in double quotes; use single quotes: '...'",
    ),
    ("[a", "line 1: the name of a table is not closed; write [NAME]"),
    ("= 1", "line 1, column 1: this is neither KEY = VALUE nor [TABLE]"),
    ("a = [{b = 1}]\n[[a]]", "line 2, column 4: this table is already defined above, as a value; write it once"),
]


def problem(raw: bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_toml(FILE, raw)
    assert caught.value.code == "config_unreadable"
    assert "planted" not in str(caught.value)
    return caught.value.problems[0].removeprefix("pipeline.toml: is not TOML: ")


@pytest.mark.parametrize(("text", "said"), CASES)
def test_a_fault_is_named_with_line_and_remedy(text: str, said: str) -> None:
    assert problem(text.encode()) == said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\xef\xbb\xbfa = 1", "it begins with a byte order mark; save it as UTF-8 without a BOM"),
        ("a = 1".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (b"a = 1\nb = '\xe9'", "line 2 holds a byte that is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_file_in_another_encoding_is_named(raw: bytes, said: str) -> None:
    assert problem(raw) == said


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"a = " + b"7" * 5000, "a number is far too long"),
        (b"a = " + b"[" * 5000, "lists or tables are nested too deeply"),
        (b"a = " + b"{a=" * 5000, "lists or tables are nested too deeply"),
    ],
    ids=["number", "lists", "tables"],
)
def test_what_the_parser_cannot_hold_is_refused(raw: bytes, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as caught:
        parse_toml(FILE, raw)
    assert caught.value.code == "config_unreadable"
    assert "777" not in str(caught.value)


def test_windows_line_ends_are_line_ends() -> None:
    assert parse_toml(FILE, b"a = 1\r\n[t]\r\nb = 2\r\n") == {"a": 1, "t": {"b": 2}}

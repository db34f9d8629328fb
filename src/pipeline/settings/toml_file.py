"""Reads the settings file. Explains faults of its TOML with their line and a remedy, without showing a value."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pipeline.settings.refusals import ConfigError

CONFIG_VARIABLE: Final = "PIPELINE_CONFIG"

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_POSITION: Final = re.compile(r" \((?:at line (?P<line>\d+), column (?P<column>\d+)|at end of document)\)$")
_DECLARED: Final = re.compile(r"Cannot declare \((?P<keys>.*?),?\) twice")
_HEADER: Final = re.compile(r"\s*\[\[?\s*(?P<name>[^\[\]]+?)\s*\]")
_KEY: Final = re.compile(r"""\s*(?P<key>[A-Za-z0-9_."'-]+)\s*=""")
_OPEN_TEXT: Final = re.compile(r"""=\s*\[?\s*(?:'[^']*|"(?:[^"\\]|\\.)*)$""")
_TRIPLE: Final = re.compile(r"\"{3}|'{3}")

_EXPLAINED: Final = (
    (r"Illegal character '\\n'", "a quoted text has no closing quote in its line; add it"),
    (r"(Unterminated string|Expected [\"']+$)", "a quoted text has no closing quote; add it"),
    (r"(Illegal|Found invalid) character", "the line contains a control character; delete it"),
    (r"Expected '=' after a key", "the key is not followed by =; write KEY = VALUE"),
    (
        r"Expected newline or end of document",
        "more text follows the value; write one KEY = VALUE per line, and put text in quotes",
    ),
    (r"Invalid value", 'this is not a value; write text in quotes ("..."), a number, true, false, [list] or { table }'),
    (r"Unclosed array", "a list is not closed; write ] after its last value"),
    (r"Unclosed inline table", "a table in braces is not closed; write } after its last value"),
    (
        r"Invalid initial character for a key part",
        "a key is missing; write { table } on one line, without a comma after the last value",
    ),
    (r"Unescaped", "TOML interprets a backslash in double quotes; use single quotes: '...'"),
    (r"Expected '\]", "the name of a table is not closed; write [NAME]"),
    (r"Invalid statement", "this is neither KEY = VALUE nor [TABLE]"),
    (r"Cannot mutate immutable namespace", "this table is already defined above, as a value; write it once"),
)
"""Messages of Python's parser, with our explanation and remedy."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a settings file.

    Raises:
        ConfigError: The file cannot be read, or is not TOML (``config_unreadable``).
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); name the settings file with --config or {CONFIG_VARIABLE}"
        raise _unreadable(path, problem) from None
    return parse_toml(path, raw)


def parse_toml(path: Path, raw: bytes) -> dict[str, Any]:
    """Return the tables in the bytes of a settings file; raise as :func:`read_toml`."""
    if raw.startswith(_BYTE_ORDER_MARK):
        raise _unreadable(path, "is not TOML: it begins with a byte order mark; save it as UTF-8 without a BOM")
    if raw.startswith(_UTF_16):
        raise _unreadable(path, "is not TOML: it is UTF-16; save it as UTF-8")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = f"is not TOML: line {line} holds a byte that is not UTF-8; save the file as UTF-8"
    except tomllib.TOMLDecodeError as error:
        problem = f"is not TOML: {_explained(raw.decode(), str(error))}"
    except ValueError:  # Python refuses to convert a number of more than 4,300 digits
        problem = "is not TOML: a number is far too long; put it in quotes if it is not a number"
    except RecursionError:
        problem = "is not TOML: lists or tables are nested too deeply"
    raise _unreadable(path, problem)


def _unreadable(path: Path, problem: str) -> ConfigError:
    return ConfigError([f"{path}: {problem}"], code="config_unreadable")


def _explained(text: str, message: str) -> str:
    """Return line, explanation and remedy for a message of Python's parser."""
    lines = text.split("\n")
    found = _POSITION.search(message)
    rule = message[: found.start()] if found else message
    number = int(found["line"]) if found and found["line"] else len(lines)
    if rule.startswith("Cannot overwrite"):
        return _doubled_key(lines, number)
    if declared := _DECLARED.match(rule):
        return _doubled_table(lines, number, declared["keys"])
    if rule.startswith("Duplicate inline table key"):
        return f"line {number}: a {{ table }} has the same key twice; delete one"
    if rule.startswith(("Unterminated", "Expected \"'", "Expected '\"")):
        number = _opened(lines) or number
    meaning = next((words for pattern, words in _EXPLAINED if re.match(pattern, rule)), rule)
    at = f"line {number}"
    return f"{at}, column {found['column']}: {meaning}" if found and found["column"] else f"{at}: {meaning}"


def _doubled_key(lines: list[str], number: int) -> str:
    number = min(number, len(lines))
    key = _KEY.match(lines[number - 1])
    if key is None:
        return f"line {number}: a key is set twice; delete one"
    earlier = next((line for line, name in _above(lines, number) if name == key["key"]), None)
    first = f" (first in line {earlier})" if earlier else ""
    return f"line {number}: {key['key']} is set twice in this table{first}; delete one"


def _above(lines: list[str], number: int) -> Iterator[tuple[int, str]]:
    """Yield line number and key of the settings above a line in the same table, nearest first."""
    for line in range(number - 1, 0, -1):
        if _HEADER.match(lines[line - 1]):
            return
        if key := _KEY.match(lines[line - 1]):
            yield line, key["key"]


def _doubled_table(lines: list[str], number: int, keys: str) -> str:
    name = ".".join(re.findall(r"'([^']*)'", keys))
    headers = [line for line, text in enumerate(lines, start=1) if (one := _HEADER.match(text)) and one["name"] == name]
    first = f" (first in line {headers[0]})" if headers and headers[0] < number else ""
    return f"line {number}: the table [{name}] occurs twice{first}; write all its keys below one heading"


def _opened(lines: list[str]) -> int | None:
    """Return the line where the unclosed text begins; None if no such line is found."""
    marks = [line for line, text in enumerate(lines, start=1) for _ in _TRIPLE.finditer(text)]
    if len(marks) % 2:
        return marks[-1]
    return next((line for line, text in enumerate(lines, start=1) if _OPEN_TEXT.search(text)), None)

"""Reads the beginning of a file: Excel's separator line and the column names. Describes values without quoting them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from pipeline.jobs.csv_engine.errors import CsvError

MAX_COLUMNS: Final = 1024
"""The result pads a record that lacks fields: with 100,000 columns, a record of two bytes would grow to 100,000."""

_SEPARATOR_LINE: Final = re.compile(
    rb'(?:sep=(?P<plain>[^"\r\n\0\x80-\xff])|"sep=(?P<quoted>[^"\r\n\0\x80-\xff])")(?:\r?\n|\Z)', re.IGNORECASE
)
_CARD_NUMBER: Final = re.compile(r"(?:\d[\W_]?){12,}")
_PERHAPS_VALUE: Final = re.compile(r"(?:\d[\W_]?){6,}|\A\W*\d{3,}\W*\Z")
_SHOWN: Final = 30


def separator_line(text: bytes) -> bytes:
    """Return Excel's separator line (``sep=;``) with its line end; empty if the text does not begin with one."""
    found = _SEPARATOR_LINE.match(text)
    return found[0] if found else b""


def delimiter_of(text: bytes, default: str) -> str:
    """Return the delimiter that the separator line of a file names; the default if the file has no such line."""
    found = _SEPARATOR_LINE.match(text)
    return (found["plain"] or found["quoted"]).decode() if found else default


def line_end(record: bytes) -> bytes:
    """Return the record's line end; LF if it has none."""
    return b"\r\n" if record.endswith(b"\r\n") else b"\n"


def split_fields(record: bytes, delimiter: bytes) -> list[bytes]:
    """Return the fields of one record unchanged, with their quotes. Pass the record without its line end."""
    fields: list[bytes] = []
    pieces: list[bytes] = []
    for index, part in enumerate(record.split(b'"')):
        if index & 1:
            pieces += (b'"', part, b'"')
            continue
        head, *others = part.split(delimiter)
        pieces.append(head)
        for other in others:
            fields.append(b"".join(pieces))
            pieces = [other]
    return [*fields, b"".join(pieces)]


def content(record: bytes) -> bytes:
    """Return the record without its line end."""
    return record.removesuffix(b"\n").removesuffix(b"\r")


def numbered_header(record: bytes, delimiter: str) -> bytes:
    """Return ``column_1,column_2,...`` for a file without header: as many names as its first record has fields.

    It contains none of the record's values, so it may be stored. It has the line end of the record.
    """
    count = len(split_fields(content(record), delimiter.encode()))
    return delimiter.join(f"column_{number}" for number in range(1, count + 1)).encode() + line_end(record)


def names_of(header: bytes, delimiter: str, encoding: str, *, line: int = 1) -> tuple[str, ...]:
    """Return the column names of a header record.

    Raises:
        CsvError: There are more than 1,024 names;
            a name is empty, appears twice, is not text in the file's encoding, has text after its closing quote, or
            looks like a card number: then the file has no header, its first card would be lost, and its number shown.
    """
    fields = split_fields(content(header), delimiter.encode())
    if len(fields) > MAX_COLUMNS:
        raise CsvError(
            "csv_too_many_columns",
            f"The header names {len(fields)} columns; at most {MAX_COLUMNS} are read.",
            line=line,
        )
    texts = [_decoded(field, number, encoding, line) for number, field in enumerate(fields, start=1)]
    _refuse_values(texts, _CARD_NUMBER, line)
    names = [_unquoted(text, number, line) for number, text in enumerate(texts, start=1)]
    doubled = next((name for name, times in Counter(names).items() if times > 1), None)
    if doubled is not None:
        numbers = [str(number) for number, name in enumerate(names, start=1) if name == doubled]
        raise CsvError("csv_header_duplicate", f"Columns {_joined(numbers)} have the same name.", line=line)
    return tuple(names)


def refuse_what_may_be_values(names: Sequence[str], *, line: int = 1) -> None:
    """Refuse a header if a name in it may be a value, because it has three digits or more.

    Call this when no expected name proves that the line is a header.

    Raises:
        CsvError: The line may be the first record of a file without a header.
    """
    _refuse_values(names, _PERHAPS_VALUE, line)


def _refuse_values(names: Sequence[str], looks_like: re.Pattern[str], line: int) -> None:
    for number, name in enumerate(names, start=1):
        if looks_like.search(name):
            raise CsvError(
                "csv_header_looks_like_data",
                f"The header has a value instead of a name (column {number}: {described(name)}). Set header = false if "
                "the file has no header, or card_column to the name of the column with the card number.",
                line=line,
            )


def _decoded(field: bytes, number: int, encoding: str, line: int) -> str:
    try:
        return field.decode(encoding)
    except UnicodeDecodeError:
        pass  # not chained: the exception holds the field
    raise CsvError("csv_header_invalid", f"Column name {number} is not valid {encoding}.", line=line)


def _unquoted(name: str, number: int, line: int) -> str:
    if name.startswith('"'):
        if not name.endswith('"') or '"' in name[1:-1].replace('""', ""):
            raise CsvError("csv_header_invalid", f"Column name {number} has text after its closing quote.", line=line)
        name = name[1:-1].replace('""', '"')
    if not name.strip():
        raise CsvError("csv_header_empty_name", f"Column {number} has no name in the header.", line=line)
    return name


_KINDS: Final = ("digits", "letters", "signs", "blanks", "invisible characters")


def described(value: str) -> str:
    """Return the length and the kind of a value, such as ``16 digits``: messages never quote a file's content."""
    kinds = [_KINDS[kind] for kind in sorted({_kind(letter) for letter in set(value)})]
    if not kinds:
        return "empty"
    if len(value) == 1:
        return f"1 {kinds[0].removesuffix('s')}"
    return f"{len(value)} {_joined(kinds)}"


def listed(values: Sequence[str]) -> str:
    """Describe the first fields of a record by number, length and kind."""
    shown = ", ".join(f"{number} ({described(value)})" for number, value in enumerate(values[:_SHOWN], start=1))
    more = len(values) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def count_of(number: int, what: str) -> str:
    """Return a number with its noun, such as ``2 fields``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _kind(letter: str) -> int:
    if letter.isdigit():
        return 0
    if letter.isalpha():
        return 1
    if letter in " \t":
        return 3
    return 2 if letter.isprintable() else 4


def _joined(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last

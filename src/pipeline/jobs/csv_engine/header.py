"""The header record of a file: its names, or made-up ones where the format has none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from pipeline.jobs.csv_engine.errors import CsvError
from pipeline.jobs.csv_engine.settings import CsvSettings

MAX_COLUMNS: Final = 1024
"""A record that lacks fields is echoed at full width: with 100,000 columns two bytes would become 100,000."""

_SHOWN_NAMES: Final = 30
_SHOWN_LETTERS: Final = 40
_CARD_NUMBER: Final = re.compile(r"(?:\d[ -]?){12,}")
_PERHAPS_DATA: Final = re.compile(r"(?:\d[ -]?){6,}")


def line_end(record: bytes) -> bytes:
    """Return the record's line end; LF where it has none."""
    return b"\r\n" if record.endswith(b"\r\n") else b"\n"


def split_fields(record: bytes, delimiter: bytes) -> list[bytes]:
    """Return the fields of one record as they stand, quotes and all; the record comes without its line end."""
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

    Nothing of the record's content is in it, so it may be stored. The line end is the record's.
    """
    count = len(split_fields(content(record), delimiter.encode()))
    return delimiter.join(f"column_{number}" for number in range(1, count + 1)).encode() + line_end(record)


def names_of(header: bytes, settings: CsvSettings) -> tuple[str, ...]:
    """Return the column names of a header record.

    Raises:
        CsvError: There are more than 1,024 names;
            a name is empty, stands twice, is no text in the file's encoding, has text after its closing quote, or
            holds what looks like a card number: the file has no header, and its first card would be lost and shown.
    """
    fields = split_fields(content(header), settings.delimiter.encode())
    if len(fields) > MAX_COLUMNS:
        raise CsvError(
            "csv_too_many_columns", f"The header names {len(fields)} columns; at most {MAX_COLUMNS} are read.", line=1
        )
    names: list[str] = []
    for number, field in enumerate(fields, start=1):
        try:
            name = field.decode(settings.encoding)
        except UnicodeDecodeError as error:
            raise CsvError(
                "csv_header_invalid", f"Column name {number} is not valid {settings.encoding}.", line=1
            ) from error
        if name.startswith('"'):
            if not name.endswith('"') or '"' in name[1:-1].replace('""', ""):
                raise CsvError("csv_header_invalid", f"Column name {number} has text after its closing quote.", line=1)
            name = name[1:-1].replace('""', '"')
        if not name.strip():
            raise CsvError("csv_header_empty_name", f"Column {number} has no name in the header.", line=1)
        names.append(name)
    if any(_CARD_NUMBER.search(name) for name in names):
        raise CsvError(
            "csv_header_looks_like_data",
            "The first line holds a card number, not column names: set header = false for files without header.",
            line=1,
        )
    doubled = sorted(name for name, times in Counter(names).items() if times > 1)
    if doubled:
        raise CsvError("csv_header_duplicate", f"Names that stand twice in the header: {shown(doubled)}.", line=1)
    return tuple(names)


def shown(names: Sequence[str]) -> str:
    """Return column names for an error message: cut when long or many, and none where they may be a card's data."""
    if any(_PERHAPS_DATA.search(name) for name in names):
        return "(not shown: they may be a card's data; set header = false if the file has no header)"
    quoted = [repr(name if len(name) <= _SHOWN_LETTERS else name[:_SHOWN_LETTERS] + "…") for name in names]
    more = len(quoted) - _SHOWN_NAMES
    return ", ".join(quoted[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")

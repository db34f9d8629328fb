"""The columns of a file: its header's names, the card number, dropped columns, and the columns that the result adds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pipeline.errors import PermanentError
from pipeline.jobs.csv_engine.errors import CsvError
from pipeline.jobs.csv_engine.header import (
    content,
    count_of,
    delimiter_of,
    line_end,
    listed,
    names_of,
    refuse_what_may_be_values,
    separator_line,
    split_fields,
)
from pipeline.jobs.csv_engine.settings import CsvSettings, is_position

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a spreadsheet read a cell as a formula (OWASP: CSV injection)."""

MESSAGE_LETTERS: Final = 1000
"""Longer messages are cut: people read them, and the limit bounds the memory of a result."""


class Author:
    """Writes the fields that the engine or a processor adds to the result.

    It quotes a field that holds a delimiter, a quote or a line end. It puts ``'`` in front of a field that a
    spreadsheet would read as a formula. Letters that the file's encoding lacks become ``?``; NUL bytes are left out.
    """

    def __init__(self, delimiter: str, encoding: str) -> None:
        self.delimiter: Final = delimiter.encode()
        self.encoding: Final = encoding
        self._special = frozenset(f'{delimiter}"\r\n')

    def field(self, text: str) -> bytes:
        """Return the field's bytes."""
        text = text.replace("\0", "")
        if text.startswith(_FORMULA):
            text = "'" + text
        if not self._special.isdisjoint(text):
            text = '"' + text.replace('"', '""') + '"'
        return text.encode(self.encoding, "replace")

    def message(self, text: str) -> bytes:
        """Return a message's bytes, cut to :data:`MESSAGE_LETTERS`."""
        return self.field(text if len(text) <= MESSAGE_LETTERS else text[: MESSAGE_LETTERS - 1] + "…")


_SECRET: Final = re.compile(
    r"(?:card)?(?:cvv|cvc|cvn|cid|csc|cav|cvd)[12]?(?:code|number|value)?"
    r"|(?:card)?(?:security|verification)(?:code|number|value)"
    r"|(?:card|debit|atm)?pin(?:block|code|number|no|offset)?|encrypted(?:pin|pinblock)"
    r"|track(?:[123]|one|two|three)?(?:data)?|track[123]?equivalentdata|magstripe(?:data)?|magneticstripe(?:data)?"
    r"|(?:mag)?swipe(?:data)?|fulltrack(?:data)?"
)
"""Names of columns whose values must not be stored after authorisation (PCI DSS 3.3), reduced to letters and digits."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one file, the same for each of its chunks.

    Attributes:
        columns: Names of all input columns, in order; empty if the file has no record.
        card: Index of the card number's column.
        dropped: Indexes of the columns that only the processor sees: they are neither stored nor returned.
        own: The processor's own result columns, by its names.
        result_header: First bytes of the result, Excel's separator line first; empty for a file without any record.
        line_end: Line end for a last record that has none.
        author: Writes the fields that the result adds.
    """

    RESERVED: ClassVar = ("__record", "__card_number", "__idempotency_key")
    """Names of the columns that the engine adds for a columnar processor."""

    columns: tuple[str, ...]
    card: int
    dropped: tuple[int, ...]
    own: tuple[str, ...]
    result_header: bytes
    line_end: bytes
    author: Author

    @classmethod
    def of(cls, header: bytes, settings: CsvSettings, *, result_columns: Sequence[str] = ()) -> Layout:
        """Return the layout of a file with this header.

        Args:
            header: See :attr:`Splitter.header`.
            settings: Format of the file.
            result_columns: The processor's own result columns.

        Raises:
            CsvError: A name in the header is empty, duplicate, not text or a card's value; the card column is missing;
                or a column that ``drop_columns`` gives by number is missing.
            PermanentError: Two columns of the result have the same name, or ``rename_result_columns`` names an unknown
                column.
        """
        separator = separator_line(header)
        delimiter = delimiter_of(header, settings.delimiter)
        author = Author(delimiter, settings.encoding)
        added = _added_names(settings, result_columns)
        if not header:
            return cls((), 0, (), tuple(result_columns), b"", b"\n", author)
        record, line = header[len(separator) :], 2 if separator else 1
        columns = names_of(record, delimiter, settings.encoding, line=line)
        for number, name in enumerate(columns, start=1):
            if name in cls.RESERVED:
                raise CsvError("csv_header_invalid", f"Column {number} has the reserved name {name}.", line=line)
        card = _card_index(columns, settings, delimiter, line)
        dropped = _dropped_indexes(columns, card, settings, line)
        _refuse_collisions(columns, added)
        end = line_end(record)
        result_header = separator
        if settings.header:
            fields = split_fields(content(record), author.delimiter)
            kept = [field for index, field in enumerate(fields) if index not in dropped]
            result_header += author.delimiter.join(kept + [author.field(name) for name in added]) + end
        return cls(columns, card, dropped, tuple(result_columns), result_header, end, author)

    @property
    def kept_runs(self) -> tuple[tuple[int, int], ...]:
        """Runs of neighbouring kept columns, each as first and last index."""
        runs: list[tuple[int, int]] = []
        for index in range(len(self.columns)):
            if index in self.dropped:
                continue
            if runs and runs[-1][1] == index - 1:
                runs[-1] = (runs[-1][0], index)
            else:
                runs.append((index, index))
        return tuple(runs)


def looks_secret(name: str) -> bool:
    """Return whether a column of this name holds a verification value, a PIN or track data."""
    return _SECRET.fullmatch(_letters(name)) is not None


def _letters(name: str) -> str:
    """Return only the letters and digits of a name, in one case, to compare names loosely."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def _added_names(settings: CsvSettings, own: Sequence[str]) -> list[str]:
    unknown = sorted(set(settings.rename_result_columns) - set(own))
    if unknown:
        raise PermanentError(
            "result_column_unknown",
            f"rename_result_columns names {_quoted(unknown)}; the processor's own columns are: "
            f"{_quoted(own) or 'none'}.",
        )
    added = [settings.status_column, settings.message_column]
    added += [settings.rename_result_columns.get(name, name) for name in own]
    doubled = sorted({name for name in added if added.count(name) > 1})
    if doubled:
        raise PermanentError("result_column_collision", f"Several result columns are named {_quoted(doubled)}.")
    return added


def _quoted(names: Sequence[str]) -> str:
    """Return names from the settings or a processor, quoted. Names that come only from a file are never quoted."""
    return ", ".join(map(repr, names))


def _refuse_collisions(columns: Sequence[str], added: Sequence[str]) -> None:
    taken = [name for name in added if name in columns]
    if taken:
        raise PermanentError(
            "result_column_collision",
            f"The input already has columns named {_quoted(taken)}: rename the result columns with"
            " status_column, message_column or rename_result_columns.",
        )


def _card_index(columns: Sequence[str], settings: CsvSettings, delimiter: str, line: int) -> int:
    wanted = settings.card_column
    if wanted in columns:
        return columns.index(wanted)
    index = _position(wanted, len(columns))
    if index is not None:
        if settings.header:
            refuse_what_may_be_values(columns, line=line)
        return index
    fields = count_of(len(columns), "field")
    if not settings.header:
        raise CsvError(
            "csv_card_column_missing",
            f"The file has no column {wanted!r} (card_column). Its first record has {fields}.",
            line=line,
        )
    advice = _advice(columns, wanted, delimiter, separated=line > 1)
    raise CsvError(
        "csv_card_column_missing",
        f"The file has no column {wanted!r} (card_column). {advice} The line read as header has {fields}: "
        f"{listed(columns)}.",
        line=line,
    )


def _position(wanted: str, width: int) -> int | None:
    """Return the index of a column given by its number from 1; None if that is not a number or over the width."""
    return int(wanted) - 1 if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= width else None


_SEPARATORS: Final = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas"}


def _advice(columns: Sequence[str], wanted: str, delimiter: str, *, separated: bool) -> str:
    """Return which setting to change, as far as the first line shows it."""
    alike = next((number for number, name in enumerate(columns, start=1) if _letters(name) == _letters(wanted)), None)
    if alike is not None and _letters(wanted):
        return (
            f"Column {alike} has that name except for case, blanks, signs or invisible characters: write it as in "
            f'the file, or card_column = "{alike}".'
        )
    if len(columns) == 1:
        remedy = "correct its sep= line" if separated else "set delimiter"
        for sign, name in _SEPARATORS.items():
            if sign != delimiter and sign in columns[0]:
                return f"Its fields seem to be separated by {name}: {remedy}."
    return (
        "Set card_column to the name or number of the column with the card number, or header = false if the file has "
        "no header."
    )


def _dropped_indexes(columns: Sequence[str], card: int, settings: CsvSettings, line: int) -> tuple[int, ...]:
    if settings.drop_columns is None:
        return tuple(index for index, name in enumerate(columns) if index != card and looks_secret(name))
    dropped: set[int] = set()
    for wanted in settings.drop_columns:
        named = {index for index, name in enumerate(columns) if _is_named(name, wanted)}
        index = _position(wanted, len(columns))
        dropped |= named or ({index} if index is not None else set())
        if not named and index is None and is_position(wanted):
            raise CsvError(
                "csv_drop_column_missing",
                f"The file has {count_of(len(columns), 'column')}, so it has no column {wanted} (drop_columns): a "
                "column may be missing, and data that must not be stored may be in another one.",
                line=line,
            )
    return tuple(sorted(dropped))


def _is_named(name: str, wanted: str) -> bool:
    letters = _letters(wanted)
    return name.strip().casefold() == wanted.strip().casefold() or (letters != "" and _letters(name) == letters)

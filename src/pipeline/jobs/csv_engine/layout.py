"""The columns of a file: its header's names, the card number, dropped columns, and the columns that the result adds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pipeline.errors import PermanentError
from pipeline.jobs.csv_engine.errors import CsvError
from pipeline.jobs.csv_engine.settings import CsvSettings

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a spreadsheet read a cell as a formula (OWASP: CSV injection)."""

MESSAGE_LETTERS: Final = 1000
"""A longer message is cut: it is for a person, and bounds the result's memory."""


class Author:
    """Writes one field of text that we, or a processor, made.

    Quoted when it holds a delimiter, a quote or a line end; guarded with a leading ``'`` when a spreadsheet would take
    it for a formula. Letters that the file's encoding lacks become ``?``, NUL bytes are left out.
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
            a name is empty, appears twice, is no text in the file's encoding, has text after its closing quote, or
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
        raise CsvError("csv_header_duplicate", f"Names that appear twice in the header: {shown(doubled)}.", line=1)
    return tuple(names)


def shown(names: Sequence[str]) -> str:
    """Return column names for an error message: cut when long or many, and none where they may be a card's data."""
    if any(_PERHAPS_DATA.search(name) for name in names):
        return "(not shown: they may be a card's data; set header = false if the file has no header)"
    quoted = [repr(name if len(name) <= _SHOWN_LETTERS else name[:_SHOWN_LETTERS] + "…") for name in names]
    more = len(quoted) - _SHOWN_NAMES
    return ", ".join(quoted[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


_SECRET: Final = re.compile(
    r"(?:card)?(?:cvv|cvc|cvn|cid|csc|cav|cvd)[12]?(?:code|number|value)?"
    r"|(?:card)?(?:security|verification)(?:code|number|value)"
    r"|(?:card|debit|atm)?pin(?:block|code|number|no|offset)?|encrypted(?:pin|pinblock)"
    r"|track(?:[123]|one|two|three)?(?:data)?|track[123]?equivalentdata|magstripe(?:data)?|magneticstripe(?:data)?"
    r"|(?:mag)?swipe(?:data)?|fulltrack(?:data)?"
)
"""Names of columns that hold what must not be stored after authorisation (PCI DSS 3.3): letters and digits only."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the engine knows about the columns of one file. Equal for every chunk.

    Attributes:
        columns: Names of all input columns, in order; none where the file has no record at all.
        card: Index of the card number's column.
        dropped: Indexes of the columns that the processor sees but nothing stores or echoes.
        own: The processor's own result columns, by its names.
        result_header: First bytes of the result; empty for a format without header and for a file without any record.
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
        """Work out the layout from :attr:`Splitter.header`.

        Args:
            header: The header record, or the made-up one of a file without header.
            settings: How the file looks.
            result_columns: The processor's own result columns.

        Raises:
            CsvError: The header's names are empty, doubled or not text; the card column is missing.
            PermanentError: A result column's name collides; a rename names no result column of the processor.
        """
        author = Author(settings.delimiter, settings.encoding)
        added = _added_names(settings, result_columns)
        if not header:
            return cls((), 0, (), tuple(result_columns), b"", b"\n", author)
        columns = names_of(header, settings)
        if not set(columns).isdisjoint(cls.RESERVED):
            raise CsvError("csv_header_invalid", f"Reserved column names: {shown(cls.RESERVED)}.", line=1)
        card = _card_index(columns, settings)
        dropped = _dropped_indexes(columns, card, settings)
        _refuse_collisions(columns, added)
        end = line_end(header)
        result_header = b""
        if settings.header:
            fields = split_fields(content(header), author.delimiter)
            kept = [field for index, field in enumerate(fields) if index not in dropped]
            result_header = author.delimiter.join(kept + [author.field(name) for name in added]) + end
        return cls(columns, card, dropped, tuple(result_columns), result_header, end, author)

    @property
    def dropped_names(self) -> tuple[str, ...]:
        """Names of the dropped columns, for the log line that says so."""
        return tuple(self.columns[index] for index in self.dropped)

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
    return _SECRET.fullmatch(re.sub(r"[\W_]+", "", name.casefold())) is not None


def _added_names(settings: CsvSettings, own: Sequence[str]) -> list[str]:
    unknown = sorted(set(settings.rename_result_columns) - set(own))
    if unknown:
        raise PermanentError(
            "result_column_unknown",
            f"rename_result_columns names {shown(unknown)}; the processor's own columns are: {shown(own) or 'none'}.",
        )
    added = [settings.status_column, settings.message_column]
    added += [settings.rename_result_columns.get(name, name) for name in own]
    doubled = sorted({name for name in added if added.count(name) > 1})
    if doubled:
        raise PermanentError("result_column_collision", f"Result columns with equal names: {shown(doubled)}.")
    return added


def _refuse_collisions(columns: Sequence[str], added: Sequence[str]) -> None:
    taken = [name for name in added if name in columns]
    if taken:
        raise PermanentError(
            "result_column_collision",
            f"The input already has columns named {shown(taken)}: rename the result's"
            " by status_column, message_column or rename_result_columns.",
        )


def _card_index(columns: Sequence[str], settings: CsvSettings) -> int:
    wanted = settings.card_column
    if wanted in columns:
        return columns.index(wanted)
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= len(columns):
        return int(wanted) - 1
    raise CsvError(
        "csv_card_column_missing",
        f"The file has no column {wanted!r} (card_column). It has {len(columns)}: {shown(columns)}.",
        line=1,
    )


def _dropped_indexes(columns: Sequence[str], card: int, settings: CsvSettings) -> tuple[int, ...]:
    if settings.drop_columns is None:
        return tuple(index for index, name in enumerate(columns) if index != card and looks_secret(name))
    wanted = {name.strip().casefold() for name in settings.drop_columns}
    return tuple(index for index, name in enumerate(columns) if name.strip().casefold() in wanted)

"""Which columns a file has, which one is the card number, which are dropped, and what the result adds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pipeline.errors import PermanentError
from pipeline.jobs.csv_engine.authored import Author
from pipeline.jobs.csv_engine.errors import CsvError
from pipeline.jobs.csv_engine.header import content, line_end, names_of, shown, split_fields
from pipeline.jobs.csv_engine.settings import CsvSettings

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

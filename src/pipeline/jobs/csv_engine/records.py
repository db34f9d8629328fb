"""The records of one chunk: which are sound, where their fields are, and their values as Arrow columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.jobs.csv_engine import scanning
from pipeline.jobs.csv_engine.header import count_of
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.scanning import QUOTE, Flags, Lines, Positions
from pipeline.jobs.csv_engine.splitter import Chunk

_OFFSET: Final = np.int32
"""Type of the offsets in Arrow's strings. Chunks are far smaller than its maximum."""


@dataclass(frozen=True, slots=True)
class FieldSpans:
    """Where the fields of the sound records are in a chunk's bytes, quotes included.

    Attributes:
        data: The bytes.
        starts: Where each record begins.
        delimiters: One row per record: where its delimiters are.
        stops: Where the content of each record ends.
    """

    data: bytes = field(repr=False)
    starts: Positions
    delimiters: Positions
    stops: Positions

    @classmethod
    def of(cls, lines: Lines, delimiters: Positions, counts: Positions, sound: Flags) -> FieldSpans:
        """Return the fields of the sound records; ``counts`` is the number of delimiters of each record."""
        starts, stops = lines.starts, lines.stops
        if not sound.all():
            delimiters = delimiters[np.repeat(sound, counts)]
            starts, stops = starts[sound], stops[sound]
        return cls(lines.data, starts, delimiters.reshape(starts.size, -1 if starts.size else 0), stops)

    def begins(self, column: int) -> Positions:
        """Return where the field of a column begins, for each record."""
        return self.starts if column == 0 else self.delimiters[:, column - 1] + 1

    def ends(self, column: int) -> Positions:
        """Return where the field of a column ends, for each record."""
        return self.stops if column == self.delimiters.shape[1] else self.delimiters[:, column]

    def values(self, column: int) -> pa.StringArray:
        """Return the values of a column, without outer quotes, and with one quote for each doubled quote.

        It lists the begin and the end of the first field, then those of the second field, and so on. Arrow reads this
        list as the offsets of an array whose values are, in turn, a field and the gap after it. ``take`` then copies
        only the fields, in C++.
        """
        if not self.starts.size:
            return pa.array([], pa.string())
        begins, ends = self.begins(column), self.ends(column)
        quotes = QUOTE in self.data
        if quotes:
            array = scanning.bytes_of(self.data)
            quoted = (ends > begins) & (array[np.minimum(begins, array.size - 1)] == QUOTE)
            begins, ends = begins + quoted, ends - quoted
        offsets = np.empty((begins.size, 2), _OFFSET)
        offsets[:, 0], offsets[:, 1] = begins, ends
        spans = pa.Array.from_buffers(
            pa.string(), offsets.size - 1, [None, pa.py_buffer(offsets), pa.py_buffer(self.data)]
        )
        values = spans.take(pa.array(np.arange(0, offsets.size, 2)))
        if not quotes or b'""' not in self.data:
            return values
        import pyarrow.compute as pc  # noqa: PLC0415 - it makes 300 functions in Python; an idle worker calls none

        return pc.replace_substring(values, '""', '"')


@dataclass(frozen=True, slots=True)
class Records:
    """One chunk, parsed.

    Attributes:
        lines: The chunk's bytes, and where each record begins and ends.
        sound: Indexes of the records that go to the processor.
        fields: Their fields.
        text: The same fields in the chunk's bytes converted to UTF-8.
        faulty: Index of each faulty record with the reason, in order.
    """

    lines: Lines = field(repr=False)
    sound: Positions
    fields: FieldSpans
    text: FieldSpans
    faulty: tuple[tuple[int, str], ...]


def parse(chunk: Chunk, layout: Layout) -> Records:
    """Parse a chunk. CPU work: call it in a thread.

    A record is faulty if it has too few or too many fields, text after a closing quote, or bytes that are not text in
    the file's encoding. The reason names its line.
    """
    data = chunk.data
    lines = Lines.of(data, final=True)
    records = lines.without_blanks()
    delimiter = layout.author.delimiter[0]
    delimiters = scanning.outside(scanning.find(data, delimiter), lines.quotes)
    counts = _counts(records, delimiters, len(layout.columns) - 1)
    faults = _faults(records, counts, layout)
    first_line = chunk.end.line - lines.feeds.size + 1
    faulty = tuple(
        (index, f"line {first_line + lines.before(int(records.starts[index]))}: {faults[index]}")
        for index in sorted(faults)
    )
    sound = np.ones(records.starts.size, np.bool_)
    sound[[index for index, _ in faulty]] = False
    fields = FieldSpans.of(records, delimiters, counts, sound)
    text = fields
    if not data.isascii():
        utf8 = data.decode(layout.author.encoding, "replace").encode()
        if utf8 != data:  # delimiters, quotes and line ends are ASCII: the same fields, at other offsets
            again = Lines.of(utf8, final=True)
            separators = scanning.outside(scanning.find(utf8, delimiter), again.quotes)
            text = FieldSpans.of(again.without_blanks(), separators, counts, sound)
    return Records(records, np.flatnonzero(sound), fields, text, faulty)


def _counts(lines: Lines, delimiters: Positions, expected: int) -> Positions:
    """Return the number of delimiters in each record. In the usual case, all as expected, this needs no search."""
    starts, stops = lines.starts, lines.stops
    if not starts.size:
        return scanning.NONE
    if delimiters.size == starts.size * expected:
        grid = delimiters.reshape(starts.size, expected)
        if not expected or ((grid[:, 0] >= starts) & (grid[:, -1] < stops)).all():
            return np.full(starts.size, expected)
    return np.searchsorted(delimiters, stops) - np.searchsorted(delimiters, starts)


def _faults(lines: Lines, counts: Positions, layout: Layout) -> dict[int, str]:
    data = lines.data
    faults: dict[int, str] = {}
    wanted = len(layout.columns)
    for index in np.flatnonzero(counts != wanted - 1).tolist():
        faults[index] = f"{count_of(int(counts[index]) + 1, 'field')} instead of {wanted}"
    if lines.quotes.size:
        after = scanning.text_after_quote(data, lines.quotes, layout.author.delimiter[0])
        for index in np.unique(np.searchsorted(lines.stops, after, "right")).tolist():
            faults.setdefault(index, "text after a closing quote")
    if not data.isascii() and not _decodes(data, layout.author.encoding):
        for index, (start, stop) in enumerate(zip(lines.starts.tolist(), lines.stops.tolist(), strict=True)):
            if not _decodes(data[start:stop], layout.author.encoding):
                faults.setdefault(index, f"not valid {layout.author.encoding}")
    return faults


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True

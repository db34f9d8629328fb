"""Finds quotes, lines and faults in raw CSV bytes with numpy: no decoding, no loop over bytes.

One rule decides: each quote switches between inside and outside, so a doubled quote switches twice. A byte is *outside*
if the number of quotes before it, from the beginning of its record, is even.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.jobs.csv_engine import errors
from pipeline.jobs.csv_engine.errors import CsvError
from pipeline.jobs.csv_engine.settings import CsvLimits

QUOTE: Final = ord('"')
LF: Final = ord("\n")
CR: Final = ord("\r")

Positions = NDArray[np.int64]
"""Ascending byte offsets."""

Flags = NDArray[np.bool_]

NONE: Final[Positions] = np.empty(0, np.int64)


def bytes_of(data: bytes) -> NDArray[np.uint8]:
    """Return the bytes as an array, without copying."""
    return np.frombuffer(data, np.uint8)


def find(data: bytes, byte: int) -> Positions:
    """Return the positions of ``byte``."""
    if data.find(byte) < 0:
        return NONE
    return np.flatnonzero(bytes_of(data) == byte).astype(np.int64, copy=False)


def outside(positions: Positions, quotes: Positions) -> Positions:
    """Return the positions outside quotes. Both arguments begin at the same record's beginning."""
    if not quotes.size or not positions.size:
        return positions
    free: Flags = np.searchsorted(quotes, positions) & 1 == 0
    return positions[free]


def first(positions: Positions, flags: Flags) -> int | None:
    """Return the first flagged position."""
    index = int(flags.argmax()) if flags.size else 0
    return int(positions[index]) if flags.size and flags[index] else None


def stray_quote(data: bytes, quotes: Positions, delimiter: int) -> int | None:
    """Return the first opening quote that is neither at the beginning of a field nor the second of a doubled quote."""
    opening = quotes[0::2]
    before = bytes_of(data)[np.maximum(opening - 1, 0)]
    fine: Flags = (before == delimiter) | (before == LF) | (before == QUOTE) | (opening == 0)
    return first(opening, ~fine)


def text_after_quote(data: bytes, quotes: Positions, delimiter: int) -> Positions:
    """Return the closing quotes before a byte that is neither a delimiter, nor part of a line end, nor a quote."""
    closing = quotes[1::2]
    closing = closing[closing + 1 < len(data)]
    after = bytes_of(data)[closing + 1]
    fine: Flags = (after == delimiter) | (after == LF) | (after == CR) | (after == QUOTE)
    return closing[~fine]


def lone_carriage_return(data: bytes, quotes: Positions, *, final: bool) -> int | None:
    """Return the first CR outside quotes without an LF after it, or None.

    A CR at the end of ``data`` counts only if the data is ``final``: otherwise the LF may follow.
    """
    returns = find(data, CR)
    if not final:
        returns = returns[returns + 1 < len(data)]
    after = bytes_of(data)[np.minimum(returns + 1, len(data) - 1)]
    lone = outside(returns[after != LF], quotes)
    return int(lone[0]) if lone.size else None


@dataclass(frozen=True, slots=True)
class Lines:
    """The whole lines of ``data``, which starts at the beginning of a record. A record is a line that is not blank.

    Attributes:
        data: The bytes. An unfinished line may follow the last whole line.
        quotes: Where quotes are.
        feeds: Where line feeds are, those inside quotes included.
        starts: Where each whole line begins.
        ends: Where each whole line ends, its line end included.
        stops: Where the content of each whole line ends, its line end excluded.
        blank: Which whole lines have no content.
    """

    data: bytes = field(repr=False)
    quotes: Positions
    feeds: Positions
    starts: Positions
    ends: Positions
    stops: Positions
    blank: Flags

    @classmethod
    def of(cls, data: bytes, *, final: bool) -> Lines:
        """Find the lines; with ``final`` the last needs no line end."""
        quotes = find(data, QUOTE)
        feeds = find(data, LF)
        ends = outside(feeds, quotes) + 1
        if final and not quotes.size & 1 and len(data) > (ends[-1] if ends.size else 0):
            ends = np.append(ends, len(data))
        starts = np.concatenate((NONE if not ends.size else np.zeros(1, np.int64), ends[:-1]))
        stops = _stops(data, starts, ends)
        return cls(data, quotes, feeds, starts, ends, stops, np.equal(starts, stops))

    def without_blanks(self) -> Lines:
        """Return the lines that are records."""
        if not self.blank.any():
            return self
        kept = ~self.blank
        starts, ends, stops = self.starts[kept], self.ends[kept], self.stops[kept]
        return Lines(self.data, self.quotes, self.feeds, starts, ends, stops, self.blank[kept])

    def before(self, offset: int) -> int:
        """Return the number of line feeds before ``offset``."""
        return int(np.searchsorted(self.feeds, offset))


def _stops(data: bytes, starts: Positions, ends: Positions) -> Positions:
    if not ends.size:
        return ends
    array = bytes_of(data)
    fed = array[ends - 1] == LF
    stops: Positions = ends - fed
    if b"\r" in data:
        stops -= fed & (stops > starts) & (array[np.maximum(stops - 1, 0)] == CR)
    return stops


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at: Offset of the byte that makes the fault certain; the lowest offset is the first fault.
        line_at: Offset in the line that the error names.
        error: Makes the error from the line number.
    """

    at: int
    line_at: int
    error: Callable[[int], CsvError]


def faults(lines: Lines, limits: CsvLimits, *, delimiter: int, room: int, final: bool) -> Iterator[Fault]:
    """Yield the first fault of each kind.

    Args:
        lines: The lines to check.
        limits: Bounds of fields and records.
        delimiter: The byte between fields.
        room: How many more records the file may have, including a header.
        final: Whether the file ends here.
    """
    data, quotes = lines.data, lines.quotes
    nul = data.find(b"\0")
    if nul >= 0:
        yield Fault(nul, nul, errors.nul_byte)
    lone = lone_carriage_return(data, quotes, final=final)
    if lone is not None:
        yield Fault(lone, lone, errors.lone_carriage_return)
    stray = stray_quote(data, quotes, delimiter) if quotes.size else None
    if stray is not None:
        yield Fault(stray, stray, errors.quote_in_unquoted_field)
    if final and quotes.size & 1:
        yield Fault(len(data), int(quotes[-1]), errors.unterminated_quote)
    yield from _sizes(lines, limits, delimiter)
    if lines.ends.size > room:
        yield from _count(lines, limits, room)


def _sizes(lines: Lines, limits: CsvLimits, delimiter: int) -> Iterator[Fault]:
    starts = np.append(lines.starts, lines.ends[-1] if lines.ends.size else 0)
    lengths = np.append(lines.ends, len(lines.data)) - starts
    longest = int(lengths.max())
    if longest > limits.max_field_bytes:
        yield from _field(lines, limits.max_field_bytes, delimiter)
    if longest > limits.max_record_bytes:
        start = int(starts[int((lengths > limits.max_record_bytes).argmax())])
        yield _record(lines, start, limits.max_record_bytes)


def _record(lines: Lines, start: int, limit: int) -> Fault:
    at = start + limit
    before = int(np.searchsorted(lines.quotes, at))
    if before & 1:
        opened = int(lines.quotes[before - 1])
        return Fault(at, opened, partial(errors.quote_over_limit, limit=limit))
    return Fault(at, start, partial(errors.record_too_large, limit=limit))


def _field(lines: Lines, limit: int, delimiter: int) -> Iterator[Fault]:
    delimiters = outside(find(lines.data, delimiter), lines.quotes)
    unfinished = len(lines.data) - lines.data.endswith(bytes([CR]))  # that CR may belong to the line end
    begins = np.sort(np.concatenate((np.zeros(1, np.int64), delimiters + 1, lines.ends)))
    stops = np.sort(np.concatenate((delimiters, lines.stops, np.array([unfinished]))))
    begin = first(begins, stops - begins > limit)
    if begin is not None:
        yield Fault(begin + limit, begin, partial(errors.field_too_large, limit=limit))


def _count(lines: Lines, limits: CsvLimits, room: int) -> Iterator[Fault]:
    index = int(np.searchsorted(np.cumsum(~lines.blank), room + 1))
    if index < lines.ends.size:
        at = int(lines.ends[index]) - 1
        yield Fault(at, int(lines.starts[index]), partial(errors.too_many_records, limit=limits.max_records))

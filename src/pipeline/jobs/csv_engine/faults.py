"""What fails a file, found in a piece of it.

Every fault has a place that the bytes up to it decide (one byte of look-ahead for a carriage return), so that the first
fault of a file is the same one however the file is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.jobs.csv_engine import errors, scanning
from pipeline.jobs.csv_engine.errors import CsvError
from pipeline.jobs.csv_engine.lines import Lines
from pipeline.jobs.csv_engine.scanning import CR
from pipeline.jobs.csv_engine.settings import CsvLimits


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at: Offset that orders faults: the byte that makes it one.
        line_at: Offset whose line is named.
        error: Makes the error of the line's number.
    """

    at: int
    line_at: int
    error: Callable[[int], CsvError]


def faults(lines: Lines, limits: CsvLimits, *, delimiter: int, room: int, final: bool) -> Iterator[Fault]:
    """Yield the first fault of each kind.

    Args:
        lines: What to look at.
        limits: Bounds of fields and records.
        delimiter: The byte between fields.
        room: How many more records, a header included, the file may hold.
        final: Nothing follows.
    """
    data, quotes = lines.data, lines.quotes
    nul = data.find(b"\0")
    if nul >= 0:
        yield Fault(nul, nul, errors.nul_byte)
    lone = scanning.lone_carriage_return(data, quotes, final=final)
    if lone is not None:
        yield Fault(lone, lone, errors.lone_carriage_return)
    stray = scanning.stray_quote(data, quotes, delimiter) if quotes.size else None
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
    delimiters = scanning.outside(scanning.find(lines.data, delimiter), lines.quotes)
    unfinished = len(lines.data) - lines.data.endswith(bytes([CR]))  # that CR may belong to the line end
    begins = np.sort(np.concatenate((np.zeros(1, np.int64), delimiters + 1, lines.ends)))
    stops = np.sort(np.concatenate((delimiters, lines.stops, np.array([unfinished]))))
    begin = scanning.first(begins, stops - begins > limit)
    if begin is not None:
        yield Fault(begin + limit, begin, partial(errors.field_too_large, limit=limit))


def _count(lines: Lines, limits: CsvLimits, room: int) -> Iterator[Fault]:
    index = int(np.searchsorted(np.cumsum(~lines.blank), room + 1))
    if index < lines.ends.size:
        at = int(lines.ends[index]) - 1
        yield Fault(at, int(lines.starts[index]), partial(errors.too_many_records, limit=limits.max_records))

"""The records of one chunk: which are sound, where their fields are, and their values as Arrow columns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.jobs.csv_engine import scanning
from pipeline.jobs.csv_engine.header import count_of
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.scanning import QUOTE, Lines, Positions
from pipeline.jobs.csv_engine.splitter import Chunk

Bounds = NDArray[np.int32]
"""One row per sound record: begin and end of each field, side by side."""


@dataclass(frozen=True, slots=True)
class Records:
    """One chunk, parsed.

    Attributes:
        data: The chunk's bytes.
        starts: Where each record begins.
        stops: Where its content ends.
        ends: Where its line end ends.
        sound: Indexes of the records that go to the processor.
        bounds: Their fields in ``data``, quotes included.
        values: Their fields' values, one array of strings per column.
        faulty: Index and reason of each other record, in order.
    """

    data: bytes = field(repr=False)
    starts: Positions
    stops: Positions
    ends: Positions
    sound: Positions
    bounds: Bounds
    values: tuple[pa.StringArray, ...] = field(repr=False)
    faulty: tuple[tuple[int, str], ...]


def parse(chunk: Chunk, layout: Layout) -> Records:
    """Parse a chunk. CPU work: call it in a thread.

    A record is unsound, and its reason names its line, when it has too few or too many fields, text after a closing
    quote, or bytes that are no text in the file's encoding.
    """
    data = chunk.data
    lines = Lines.of(data, final=True)
    lasting = ~lines.blank
    starts, stops, ends = lines.starts[lasting], lines.stops[lasting], lines.ends[lasting]
    delimiter = layout.author.delimiter[0]
    delimiters = scanning.outside(scanning.find(data, delimiter), lines.quotes)
    counts = _counts(starts, stops, delimiters, len(layout.columns) - 1)
    faults = _faults(lines, starts, stops, counts=counts, layout=layout)
    first_line = chunk.end.line - lines.feeds.size + 1
    faulty = tuple(
        (index, f"line {first_line + lines.before(int(starts[index]))}: {faults[index]}") for index in sorted(faults)
    )
    sound = np.ones(starts.size, np.bool_)
    sound[[index for index, _ in faulty]] = False
    bounds = _bounds(starts, stops, delimiters, counts, sound)
    text, text_bounds = data, bounds
    if not data.isascii():
        text = data.decode(layout.author.encoding, "replace").encode()
        if text != data:  # every byte that gives structure is ASCII, so records and fields are the same, only elsewhere
            again = Lines.of(text, final=True)
            separators = scanning.outside(scanning.find(text, delimiter), again.quotes)
            text_bounds = _bounds(again.starts[~again.blank], again.stops[~again.blank], separators, counts, sound)
    values = _values(text, text_bounds, len(layout.columns))
    return Records(data, starts, stops, ends, np.flatnonzero(sound), bounds, values, faulty)


def _counts(starts: Positions, stops: Positions, delimiters: Positions, expected: int) -> NDArray[np.int64]:
    """Return the number of delimiters in each record; the usual case, all as expected, is checked without a search."""
    if not starts.size:
        return np.zeros(0, np.int64)
    if delimiters.size == starts.size * expected:
        grid = delimiters.reshape(starts.size, expected)
        if not expected or ((grid[:, 0] >= starts) & (grid[:, -1] < stops)).all():
            return np.full(starts.size, expected)
    return np.searchsorted(delimiters, stops) - np.searchsorted(delimiters, starts)


def _faults(
    lines: Lines, starts: Positions, stops: Positions, *, counts: NDArray[np.int64], layout: Layout
) -> dict[int, str]:
    data = lines.data
    faults: dict[int, str] = {}
    wanted = len(layout.columns)
    for index in np.flatnonzero(counts != wanted - 1).tolist():
        faults[index] = f"{count_of(int(counts[index]) + 1, 'field')} instead of {wanted}"
    after = scanning.text_after_quote(data, lines.quotes, layout.author.delimiter[0])
    for index in np.unique(np.searchsorted(stops, after, "right")).tolist():
        faults.setdefault(index, "text after a closing quote")
    if not data.isascii() and not _decodes(data, layout.author.encoding):
        for index, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            if not _decodes(data[start:stop], layout.author.encoding):
                faults.setdefault(index, f"not valid {layout.author.encoding}")
    return faults


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _bounds(
    starts: Positions,
    stops: Positions,
    delimiters: Positions,
    counts: NDArray[np.int64],
    sound: NDArray[np.bool_],
) -> Bounds:
    if not sound.all():
        delimiters = delimiters[np.repeat(sound, counts)]
        starts, stops = starts[sound], stops[sound]
    width = delimiters.size // starts.size + 1 if starts.size else 1
    bounds = np.empty((starts.size, 2 * width), np.int32)
    grid = delimiters.reshape(starts.size, width - 1)
    bounds[:, 0] = starts
    bounds[:, 1:-1:2] = grid
    bounds[:, 2::2] = grid + 1
    bounds[:, -1] = stops
    return bounds


def _values(text: bytes, bounds: Bounds, width: int) -> tuple[pa.StringArray, ...]:
    """Return the columns' values: outer quotes taken off, doubled quotes halved."""
    if not bounds.size:
        return tuple(pa.array([], pa.string()) for _ in range(width))
    doubled = False
    if QUOTE in text:
        array = scanning.bytes_of(text)
        begins, ends = bounds[:, 0::2], bounds[:, 1::2]
        quoted = (ends > begins) & (array[np.minimum(begins, array.size - 1)] == QUOTE)
        bounds = bounds.copy()
        bounds[:, 0::2] += quoted
        bounds[:, 1::2] -= quoted
        doubled = b'""' in text
    columns = tuple(slices(text, bounds, first=index, last=index, kind=pa.string()) for index in range(width))
    if doubled:
        return tuple(pc.replace_substring(column, '""', '"') for column in columns)
    return columns


def slices(data: bytes, bounds: Bounds, *, first: int, last: int, kind: pa.DataType) -> pa.Array:
    """Return for each row the bytes from the begin of field ``first`` to the end of field ``last``.

    Begins and ends in turn are the offsets of an Arrow array over ``data`` itself, in which every second value is a
    gap: taking the others copies each value once, in C++.
    """
    if first == last or bounds.shape[1] == 2:  # noqa: PLR2004 - one begin, one end
        offsets, step, begin = bounds.reshape(-1), bounds.shape[1], 2 * first
    else:
        offsets, step, begin = np.ascontiguousarray(bounds[:, (2 * first, 2 * last + 1)]).reshape(-1), 2, 0
    spans = pa.Array.from_buffers(kind, offsets.size - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
    return spans.take(pa.array(np.arange(begin, offsets.size, step)))

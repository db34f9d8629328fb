"""Formats the result of one chunk: unchanged input fields, then status, message and the processor's own columns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.jobs.csv_engine.header import split_fields
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.records import FieldSpans, Records
from pipeline.jobs.csv_engine.scanning import Lines, Positions

_DISTINCT: Final = 1024
"""Neighbouring columns are merged into one if their values have at most this many combinations."""


@dataclass(frozen=True, slots=True)
class AddedField:
    """One column, or several neighbouring ones, as bytes.

    Attributes:
        distinct: The different values.
        which: For each row, the index of its value in ``distinct``.
    """

    distinct: list[bytes]
    which: NDArray[np.int64]

    @classmethod
    def of(cls, values: pa.Array, write: Callable[[str], bytes]) -> AddedField:
        """Write each distinct value of a string column once; null becomes an empty field."""
        encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        distinct = [write(value or "") for value in encoded.dictionary.to_pylist()]
        indices = encoded.indices
        if indices.null_count:
            indices = indices.cast(pa.int64()).fill_null(len(distinct))
            distinct.append(b"")
        return cls(distinct, indices.to_numpy().astype(np.int64))

    def beside(self, right: AddedField, between: bytes) -> AddedField | None:
        """Return both columns merged into one, or None if their values have too many combinations."""
        width = len(right.distinct)
        if min(len(self.distinct), width) > 1 and len(self.distinct) * width > _DISTINCT:
            return None
        distinct = [one + between + other for one in self.distinct for other in right.distinct]
        return AddedField(distinct, self.which * width + right.which)


def folded(columns: Iterable[AddedField], between: bytes) -> list[AddedField]:
    """Merge neighbouring columns whose values have few combinations. There must be at least one column."""
    first, *others = columns
    done = [first]
    for column in others:
        both = done[-1].beside(column, between)
        if both is None:
            done.append(column)
        else:
            done[-1] = both
    return done


OK: Final = "ok"
FAILED: Final = "failed"

_ENDS: Final = (b"", b"\n", b"\r\n")
_NUMBER: Final = np.int64


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The outcomes of a chunk's sound records, in order.

    Attributes:
        status: ``ok`` or ``failed``, dictionary-encoded.
        message: Text or null.
        own: The processor's own columns, in the layout's order: text or null.
    """

    status: pa.DictionaryArray
    message: pa.Array
    own: tuple[pa.Array, ...]

    @property
    def ok(self) -> int:
        """Number of records that are ok."""
        is_ok = np.array([value == OK for value in self.status.dictionary.to_pylist()], np.bool_)
        return int(np.count_nonzero(is_ok[self.status.indices.to_numpy()])) if len(self.status) else 0


def format_records(records: Records, outcomes: Outcomes, layout: Layout) -> bytes:
    """Return the result lines. CPU work: call it in a thread.

    Every record keeps its line end. If the file's last record has none, it gets the layout's.
    """
    runs = [_run(records.fields, first, last) for first, last in layout.kept_runs]
    texts = [b""]
    empty = sum(run.size for run in runs)  # index of the first text: the edges of all runs come before it
    lines = np.empty((records.sound.size, 0), _NUMBER)
    if records.sound.size:
        every_second = np.arange(0, 2 * records.sound.size, 2)
        columns = [every_second + number * 2 * records.sound.size for number in range(len(runs))]
        for field in _added(records, outcomes, layout):
            columns.append(field.which + (empty + len(texts)))
            texts += field.distinct
        lines = np.stack(columns, axis=1, dtype=_NUMBER)
    if records.faulty:
        sound, lines = lines, np.full((records.lines.starts.size, max(lines.shape[1], 1)), empty, _NUMBER)
        lines[records.sound, : sound.shape[1]] = sound
        for index, reason in records.faulty:
            lines[index, 0] = empty + len(texts)
            texts.append(_faulty_row(records.lines, index, reason, layout))
    return _pieced(records.fields.data, runs, texts, lines.reshape(-1))


def _run(fields: FieldSpans, first: int, last: int) -> Positions:
    """Return, for each record, where the fields ``first`` to ``last`` begin and end, with the delimiter after them."""
    edges = np.empty((fields.starts.size, 2), np.int64)
    if edges.size:
        edges[:, 0] = fields.begins(first)
        edges[:, 1] = fields.ends(last)
        edges[:, 1] += last < fields.delimiters.shape[1]
    return edges


def _added(records: Records, outcomes: Outcomes, layout: Layout) -> list[AddedField]:
    """Return the fields that the result adds to a record, with the line end as the last one."""
    author = layout.author
    added = [AddedField.of(outcomes.status, author.field), AddedField.of(outcomes.message, author.message)]
    added += [AddedField.of(column, author.field) for column in outcomes.own]
    fields = folded(added, author.delimiter)
    if layout.kept_runs and layout.kept_runs[-1][1] == len(layout.columns) - 1:
        fields[0].distinct[:] = [author.delimiter + text for text in fields[0].distinct]
    for field in fields[1:]:
        field.distinct[:] = [author.delimiter + text for text in field.distinct]
    line_ends = _line_ends(records, layout)
    closed = fields[-1].beside(line_ends, b"")
    return [*fields[:-1], closed] if closed else [*fields, line_ends]


def _pieced(data: bytes, runs: list[Positions], texts: list[bytes], numbers: NDArray[np.int64]) -> bytes:
    """Join pieces of the chunk and further texts into one byte string.

    All pieces are values of one Arrow array over the chunk's bytes followed by the texts. Arrow's ``take`` copies each
    piece once, in C++, into one buffer.

    Args:
        data: The chunk's bytes.
        runs: Begin and end of each piece. The array's values between two pieces are not used.
        texts: Further pieces.
        numbers: The pieces to join, as indexes of the array.
    """
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    offsets = np.concatenate([*(run.reshape(-1) for run in runs), [len(data)], len(data) + np.cumsum(sizes)])
    values = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join((data, *texts)))]
    array = pa.Array.from_buffers(pa.large_binary(), offsets.size - 1, values)
    _, edges, taken = array.take(pa.array(numbers)).buffers()
    if not numbers.size or taken is None:
        return b""
    size = int(np.frombuffer(edges, np.int64, count=numbers.size + 1)[-1])
    joined: bytes = taken.slice(0, size).to_pybytes()
    return joined


def _line_ends(records: Records, layout: Layout) -> AddedField:
    widths: NDArray[np.int64] = (records.lines.ends - records.lines.stops)[records.sound]
    widths[widths == 0] = len(layout.line_end)
    if (widths == widths[0]).all():
        return AddedField([_ENDS[int(widths[0])]], np.zeros_like(widths))
    return AddedField(list(_ENDS), widths)


def _faulty_row(lines: Lines, index: int, reason: str, layout: Layout) -> bytes:
    start, stop, end = (int(edge[index]) for edge in (lines.starts, lines.stops, lines.ends))
    fields = split_fields(lines.data[start:stop], layout.author.delimiter)
    echoed = _fitted(fields, layout)
    author = layout.author
    added = [author.field(FAILED), author.message(reason), *(b"" for _ in layout.own)]
    return author.delimiter.join(echoed + added) + (lines.data[stop:end] or layout.line_end)


def _fitted(fields: Sequence[bytes], layout: Layout) -> list[bytes]:
    """Pad or cut the fields to the input columns of the result.

    In a record of the wrong width, any field may have moved to another column. So each field that could be the value of
    a dropped column is left out too.
    """
    width = len(layout.columns)
    shift = width - len(fields)
    padded = [*fields, *[b""] * shift][:width]
    low, high = min(0, shift), max(0, shift)
    dropped = layout.dropped
    return [
        b"" if _any_within(dropped, index + low, index + high) else field
        for index, field in enumerate(padded)
        if not _any_within(dropped, index, index)
    ]


def _any_within(ascending: Sequence[int], low: int, high: int) -> bool:
    """Return whether any number is from ``low`` to ``high``; it runs once per field of a faulty record."""
    index = bisect_left(ascending, low)
    return index < len(ascending) and ascending[index] <= high

"""Result bytes of one chunk: input fields as they stand, then status, message and the processor's own columns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.jobs.csv_engine.header import split_fields
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.records import Records, slices

_DISTINCT: Final = 1024
"""So many combinations of values are written in advance, where neighbouring columns have few values each."""


@dataclass(frozen=True, slots=True)
class Fields:
    """One column, or several neighbouring ones, as bytes.

    Attributes:
        distinct: What rows may have.
        which: Which of them each row has.
    """

    distinct: list[bytes]
    which: NDArray[np.int64]

    @classmethod
    def of(cls, values: pa.Array, write: Callable[[str], bytes]) -> Fields:
        """Write each distinct value of a string column; null as an empty one."""
        encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        distinct = [write(value or "") for value in encoded.dictionary.to_pylist()]
        indices = encoded.indices
        if indices.null_count:
            indices = indices.cast(pa.int64()).fill_null(len(distinct))
            distinct.append(b"")
        return cls(distinct, indices.to_numpy().astype(np.int64))

    def beside(self, right: Fields, between: bytes) -> Fields | None:
        """Return both as one, or None where there are too many combinations."""
        width = len(right.distinct)
        if min(len(self.distinct), width) > 1 and len(self.distinct) * width > _DISTINCT:
            return None
        distinct = [one + between + other for one in self.distinct for other in right.distinct]
        return Fields(distinct, self.which * width + right.which)

    def rows(self) -> pa.BinaryArray:
        """Return each row's bytes."""
        return pa.array(self.distinct, pa.binary()).take(pa.array(self.which))


def folded(columns: Iterable[Fields], between: bytes) -> list[Fields]:
    """Return the columns with neighbours made one wherever their combinations are few; at least one goes in."""
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
_OFFSET_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the sound records of a chunk, in order.

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
        return int(pc.sum(pc.equal(self.status.cast(pa.string()), OK)).as_py() or 0)


def format_records(records: Records, outcomes: Outcomes, layout: Layout) -> bytes:
    """Return the result lines. CPU work: call it in a thread.

    Every record keeps its own line end; the layout's is added where the file's last record has none.
    """
    sound = _sound_rows(records, outcomes, layout)
    if not records.faulty:
        return _joined(sound)
    faulty = [_faulty_row(records, index, reason, layout) for index, reason in records.faulty]
    order = np.empty(records.starts.size, np.int64)
    order[records.sound] = np.arange(records.sound.size)
    order[[index for index, _ in records.faulty]] = np.arange(len(faulty)) + records.sound.size
    return _joined(pa.concat_arrays([sound, pa.array(faulty, pa.binary())]).take(pa.array(order)))


def _sound_rows(records: Records, outcomes: Outcomes, layout: Layout) -> pa.BinaryArray:
    if not records.sound.size:
        return pa.array([], pa.binary())
    author = layout.author
    echoed = [
        slices(records.data, records.bounds, first=first, last=last, kind=pa.binary())
        for first, last in layout.kept_runs
    ]
    added = [Fields.of(outcomes.status, author.field), Fields.of(outcomes.message, author.message)]
    added += [Fields.of(column, author.field) for column in outcomes.own]
    *others, last_field = folded(added, author.delimiter)
    line_ends = _line_ends(records, layout)
    closed = last_field.beside(line_ends, b"")
    fields = [*others, closed or last_field]
    rows = pc.binary_join_element_wise(*echoed, *(field.rows() for field in fields), author.delimiter)
    return rows if closed else pc.binary_join_element_wise(rows, line_ends.rows(), b"")


def _line_ends(records: Records, layout: Layout) -> Fields:
    widths: NDArray[np.int64] = (records.ends - records.stops)[records.sound]
    widths[widths == 0] = len(layout.line_end)
    if (widths == widths[0]).all():
        return Fields([_ENDS[int(widths[0])]], np.zeros_like(widths))
    return Fields(list(_ENDS), widths)


def _faulty_row(records: Records, index: int, reason: str, layout: Layout) -> bytes:
    start, stop, end = (int(edge[index]) for edge in (records.starts, records.stops, records.ends))
    fields = split_fields(records.data[start:stop], layout.author.delimiter)
    echoed = _fitted(fields, layout)
    author = layout.author
    added = [author.field(FAILED), author.message(reason), *(b"" for _ in layout.own)]
    return author.delimiter.join(echoed + added) + (records.data[stop:end] or layout.line_end)


def _fitted(fields: Sequence[bytes], layout: Layout) -> list[bytes]:
    """Return as many fields as the result has input columns: padded or cut.

    In a record of the wrong width any field may be in a column that it does not belong to: what could be the value
    of a dropped column is left out as well.
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
    """Return whether a number lies between two others; this is asked per field of a faulty record."""
    index = bisect_left(ascending, low)
    return index < len(ascending) and ascending[index] <= high


def _joined(rows: pa.BinaryArray) -> bytes:
    """Return the values one after the other: they already lie so in the array's buffer."""
    _, offsets, data = rows.buffers()
    if not len(rows) or data is None:
        return b""
    edges = np.frombuffer(offsets, np.int32, count=len(rows) + 1, offset=rows.offset * _OFFSET_BYTES)
    return bytes(data[int(edges[0]) : int(edges[-1])])

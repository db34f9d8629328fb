"""The walk of one file through the engine: bytes -> chunks of whole records -> outcomes -> result bytes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Position:
    """Where a chunk begins or ends in the decompressed file.

    Attributes:
        byte: Offset from the file's first byte (a BOM counts).
        record: Number of data records before this place.
        line: Number of physical lines before this place (a quoted field may span several).
    """

    byte: int = 0
    record: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of whole data records: the unit of work, of checkpoint and of repetition.

    Attributes:
        number: Running number from 0. Chunk 0 exists even when the file holds no record.
        data: The records as they stand in the file, without header or BOM; the last line end may be missing at the end.
        start: For chunk 0 the beginning of the file; else the end of the chunk before.
        end: Where the next chunk begins.
    """

    number: int
    data: bytes = field(repr=False)
    start: Position
    end: Position

    @property
    def records(self) -> int:
        """Number of data records."""
        return self.end.record - self.start.record


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """Result bytes of one chunk, ready to be appended to those of the chunk before.

    Attributes:
        data: Result lines; chunk 0's begin with the result header where the format has one.
        ok: Cards whose status is ok.
        failed: Cards whose status is failed.
    """

    data: bytes = field(repr=False)
    ok: int
    failed: int


class Split(Protocol):
    """Cuts a stream of bytes into chunks. The cutting of the input does not matter: same bytes, same chunks."""

    header: bytes | None
    """The header record with its line end, as it stands in the file; None before it was seen.

    For a format without header it is made up (``column_1,column_2,...``), as wide as the first record; ``b""`` for a
    file without any record. It is all that a restart needs to know of the file's beginning. Once a layout has accepted
    it, it holds no card data and may be stored.
    """

    def feed(self, data: bytes) -> Sequence[Chunk]:
        """Take the next bytes and return the chunks they complete. CPU work: call it in a thread.

        Chunks that end before a fault are returned first; the next call raises.

        Raises:
            CsvError: Not a CSV (named by what it looks like), an encoding that is refused, a quote that never ends, a
                quote inside an unquoted field, a field, record, file or record count over its limit; with the line.
        """
        ...

    def finish(self) -> Sequence[Chunk]:
        """Return the last chunks; at least one chunk comes out of every file. Raises as :meth:`feed`.

        Lines behind the last chunk's end are blank: nothing is left to do there.
        """
        ...

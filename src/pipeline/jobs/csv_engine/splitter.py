"""Splits a file into chunks of whole records. Equal bytes give equal chunks, in whatever pieces they arrive."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from pipeline.jobs.csv_engine import errors
from pipeline.jobs.csv_engine.errors import CsvError
from pipeline.jobs.csv_engine.header import delimiter_of, numbered_header, separator_line
from pipeline.jobs.csv_engine.scanning import Fault, Lines, faults
from pipeline.jobs.csv_engine.settings import CsvLimits, CsvSettings


@dataclass(frozen=True, slots=True)
class Position:
    """Where a chunk begins or ends in the decompressed file.

    Attributes:
        byte: Offset from the file's first byte (a BOM counts).
        record: Number of data records before this position.
        line: Number of physical lines before this position (a quoted field may span several).
    """

    byte: int = 0
    record: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of whole data records. Work, checkpoints and repetition go by chunks.

    Attributes:
        number: Running number from 0. Chunk 0 exists even when the file holds no record.
        data: The records exactly as in the file, without header or BOM. The last chunk may lack the last line end.
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


SNIFF_BYTES: Final = 512
"""Number of bytes by which :func:`sniff` decides. It is fixed: the decision must not depend on how the input arrives.
"""

BOM: Final = b"\xef\xbb\xbf"

_ENCODINGS: Final = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (b"\xff\xfe\x00\x00", "UTF-32 (little endian)"),
    (b"\x00\x00\xfe\xff", "UTF-32 (big endian)"),
    (b"\xff\xfe", "UTF-16 (little endian)"),
    (b"\xfe\xff", "UTF-16 (big endian)"),
)

_MAGIC: Final = (
    (b"\x1f\x8b", "gzip data inside the download (compressed twice, or without a Content-Encoding)"),
    (b"PK\x03\x04", "a ZIP archive, e.g. an Excel workbook"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"%PDF-", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word document"),
    (b"BZh", "bzip2 data"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG", "a PNG image"),
    (b"-----BEGIN PGP", "a PGP message"),
)

_MARKUP: Final = (
    (re.compile(rb"\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"\s*<[?!a-z]", re.IGNORECASE), "XML, e.g. an error answer of an object store"),
    (re.compile(rb"""\s*(?:\{\s*["}]|\[\s*[\[{"\]])"""), "JSON"),
    (re.compile(rb"[0-9a-f]{1,8};chunk-signature=", re.IGNORECASE), "an upload in aws-chunked framing"),
    (re.compile(rb"--[^\r\n]{1,70}\r?\nContent-[a-z]+:", re.IGNORECASE), "an HTML form's upload (multipart/form-data)"),
)
_TAR: Final = b"ustar"
_TAR_AT: Final = 257


def sniff(head: bytes) -> None:
    """Refuse a file whose first :data:`SNIFF_BYTES` bytes show that it is not a CSV file.

    Raises:
        CsvError: ``csv_unsupported_encoding`` or ``csv_not_a_csv``, naming what the file looks like.
    """
    for mark, name in _ENCODINGS:
        if head.startswith(mark):
            raise errors.unsupported_encoding(name)
    for magic, name in _MAGIC:
        if head.startswith(magic):
            raise errors.not_a_csv(name)
    text = head.removeprefix(BOM).removeprefix(BOM)
    if head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        raise errors.not_a_csv("a tar archive")
    for pattern, name in _MARKUP:
        if pattern.match(text):
            raise errors.not_a_csv(name)


_PIECE: Final = 1 << 20
"""Larger inputs are scanned in pieces of this many bytes, so that the scan's arrays stay small."""


class Splitter:
    """Splits a stream of bytes into chunks of whole records.

    A record ends with LF or CR LF outside quotes, or at the end of the file. A blank line (no byte between two line
    ends) is not a record: it has a line number and stays in the chunk's bytes, but the result leaves it out. A chunk
    ends at the first line end where it has ``chunk_bytes`` or ``chunk_records``. Records and chunks depend only on the
    bytes and these two limits. So a splitter that starts at the end of any chunk finds the same chunks.

    A fault gives the same error, with the same line, in whatever pieces the input arrives. The :meth:`feed` that finds
    the fault returns the chunks that end before it; the next call raises. (In a file shorter than :data:`SNIFF_BYTES`,
    :meth:`finish` finds the fault and raises at once.)

    Args:
        settings: Format of the file.
        limits: Limits of chunks, fields, records and the file.
        at: Where to start: the beginning of the file, or the end of a chunk.
        next_chunk: The number of the chunk that begins there.
        header: The header that an earlier splitter found in the same file. Pass it if ``at`` is the end of a chunk.

    Attributes:
        header: The header record with its line end, exactly as in the file; None until the splitter has read it. If the
            file begins with Excel's separator line, the header includes it. For a file without a header, the splitter
            makes one (``column_1,column_2,...``) with a name for each field of the first record. For a file without any
            record, it is ``b""``. A restart needs nothing else from the beginning of the file. Once a layout has
            accepted the header, it holds no card data and may be stored.
    """

    def __init__(
        self,
        settings: CsvSettings,
        limits: CsvLimits,
        *,
        at: Position = Position(),
        next_chunk: int = 0,
        header: bytes | None = None,
    ) -> None:
        self.header = header
        self._settings = settings
        self._limits = limits
        self._separator = separator_line(header or b"")
        self._delimiter = delimiter_of(self._separator, settings.delimiter)
        self._chunk = next_chunk
        self._start = at
        self._byte, self._record, self._line = at.byte, at.record, at.line
        self._seen = at.byte
        self._tail = b""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._head: bytearray | None = None if at.byte else bytearray()
        self._awaits_header = not at.byte
        self._error: CsvError | None = None

    def feed(self, data: bytes) -> Sequence[Chunk]:
        """Take the next bytes and return the chunks that they complete. CPU work: call it in a thread.

        If it finds a fault, it returns the chunks that end before the fault; the next call raises.

        Raises:
            CsvError: The file is not a CSV, its encoding is refused, a quote never ends or is inside an unquoted field,
                or a field, record, file or record count is over its limit. The error names the line.
        """
        return self._collect(self._feed(data))

    def finish(self) -> Sequence[Chunk]:
        """Return the last chunks; every file gives at least one chunk. It raises the errors of :meth:`feed`.

        Blank lines make a chunk of their own only if the file has nothing else.
        """
        return self._collect(self._finish(), last_call=True)

    def _collect(self, chunks: Iterator[Chunk], *, last_call: bool = False) -> Sequence[Chunk]:
        if self._error is not None:
            raise self._error
        complete: list[Chunk] = []
        try:
            complete.extend(chunks)
        except CsvError as error:
            self._error = error
            if last_call or not complete:
                raise
        return complete

    def _feed(self, data: bytes) -> Iterator[Chunk]:
        room = self._limits.max_bytes - self._seen
        self._seen += len(data)
        for begin in range(0, min(len(data), room), _PIECE):
            yield from self._piece(data[begin : min(begin + _PIECE, room)])
        if len(data) > room:
            yield from self._open_head()  # faults in the head come first, in whatever pieces it arrives
            raise errors.file_too_large(self._limits.max_bytes)

    def _finish(self) -> Iterator[Chunk]:
        yield from self._open_head()
        yield from self._scan(self._tail, final=True)
        if self._awaits_header:
            self.header = b""  # a file without any record
        if self._record > self._start.record or self._chunk == 0:
            yield self._close()

    def _piece(self, data: bytes) -> Iterator[Chunk]:
        if self._head is not None:
            self._head += data
            if len(self._head) >= SNIFF_BYTES:
                yield from self._open_head()
            return
        yield from self._scan(self._tail + data if self._tail else data, final=False)

    def _open_head(self) -> Iterator[Chunk]:
        if self._head is None:
            return
        head, self._head = bytes(self._head), None
        sniff(head[:SNIFF_BYTES])
        text = head.removeprefix(BOM).removeprefix(BOM)
        self._separator = separator_line(text)
        if self._separator:
            self._delimiter = delimiter_of(self._separator, self._settings.delimiter)
            self._line += 1
            text = text[len(self._separator) :]
        self._byte += len(head) - len(text)
        yield from self._scan(text, final=False)

    def _scan(self, work: bytes, *, final: bool) -> Iterator[Chunk]:
        """Move the whole lines of ``work`` into chunks; keep the rest. ``work`` starts at the beginning of a record."""
        lines = Lines.of(work, final=final)
        fault = self._first_fault(lines, final=final)
        whole = lines.ends.size if fault is None else int(np.searchsorted(lines.ends, fault.at, "right"))
        line = self._line
        yield from self._take(lines, whole)
        if fault is not None:
            raise fault.error(line + lines.before(fault.line_at) + 1)

    def _first_fault(self, lines: Lines, *, final: bool) -> Fault | None:
        room = self._limits.max_records - self._record + (self._awaits_header and self._settings.header)
        found = faults(lines, self._limits, delimiter=ord(self._delimiter), room=room, final=final)
        return min(found, key=lambda fault: fault.at, default=None)

    def _take(self, lines: Lines, whole: int) -> Iterator[Chunk]:
        """Add the first ``whole`` lines to the current chunk; yield each chunk that reaches a limit."""
        skipped = self._take_header(lines, whole)
        ends, records = lines.ends[skipped:whole], np.cumsum(~lines.blank[skipped:whole])
        done = int(lines.ends[skipped - 1]) if skipped else 0
        line, record = self._line, self._record
        self._byte += done
        self._line = line + lines.before(done)
        full = True
        while full:
            by_bytes = int(np.searchsorted(ends, done + self._limits.chunk_bytes - self._held_bytes))
            wanted = self._start.record + self._limits.chunk_records - record
            index = min(by_bytes, int(np.searchsorted(records, wanted)))
            full = index < ends.size
            last = index if full else ends.size - 1
            if last >= 0 and ends[last] > done:
                end = int(ends[last])
                self._hold(lines.data[done:end])
                self._record = record + int(records[last])
                self._line = line + lines.before(end)
                done = end
            if full:
                yield self._close()
        self._tail = lines.data[done:]

    def _take_header(self, lines: Lines, whole: int) -> int:
        """Store the header as soon as it is complete; return how many of the lines are not data."""
        if not self._awaits_header:
            return 0
        index = int(np.searchsorted(np.cumsum(~lines.blank[:whole]), 1))
        if index == whole:  # nothing but blank lines so far
            return whole if self._settings.header else 0
        self._awaits_header = False
        record = lines.data[lines.starts[index] : lines.ends[index]]
        if self._settings.header:
            self.header = self._separator + record
            return index + 1
        self.header = self._separator + numbered_header(record, self._delimiter)
        return 0

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        self._byte += len(data)

    def _close(self) -> Chunk:
        end = Position(byte=self._byte, record=self._record, line=self._line)
        chunk = Chunk(number=self._chunk, data=b"".join(self._held), start=self._start, end=end)
        self._chunk += 1
        self._start = end
        self._held, self._held_bytes = [], 0
        return chunk

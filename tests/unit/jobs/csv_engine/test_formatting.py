"""The bytes of a result, against a writer that knows nothing of the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, cast

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.jobs.csv_engine import CsvLimits, CsvSettings, run_stream
from pipeline.jobs.processors import Card, CardResult, JobContext, ProcessorSettings, adopt
from pipeline.testing import job_context

_RAW: Final = st.sampled_from(
    [b'""', b"1", b"x y", b"", b'"a,b"', b'"l\nf"', b'"cr\r\nlf"', b'"do""ble"', "é".encode()]
)
_FAULTY: Final = b'"q"x'


class Numbered:
    """Decides by the number of a record; texts repeat after so many records."""

    input_columns = ()

    def __init__(self, own: int, values: int) -> None:
        self.result_columns = tuple(f"own{number}" for number in range(own))
        self.values = values

    def decided(self, record: int) -> list[str]:
        """Return status, message and own columns."""
        texts = [f"{name} {record % self.values}" for name in ("m", *self.result_columns)]
        return ["ok" if record % 3 else "failed", *texts]


class NumberedRows(Numbered):
    """Row by row."""

    async def process(self, card: Card, _context: JobContext) -> CardResult:
        """Decide one."""
        status, message, *own = self.decided(card.record)
        return CardResult(cast("Any", status), message, dict(zip(self.result_columns, own, strict=True)))


class NumberedBatches(Numbered):
    """As one batch."""

    def process_batch(self, batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
        """Decide all."""
        columns = zip(*map(self.decided, batch.column("__record").to_pylist()), strict=True)
        names = ["status", "message", *self.result_columns]
        return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], names=names)


@st.composite
def results(draw: st.DrawFn) -> tuple[bytes, bytes, CsvSettings, Numbered]:
    """Make a file, its result written without the engine, and how it is read and processed."""
    form = draw(st.sampled_from([NumberedRows, NumberedBatches]))
    processor = form(draw(st.integers(0, 3)), draw(st.sampled_from([1, 2, 1000])))
    names = [b"card_number", b"n2", b"n3", b"n4"][: draw(st.integers(1, 4))]
    dropped = draw(st.sets(st.integers(0, len(names) - 1)))
    ends = st.sampled_from(draw(st.sampled_from([[b"\n"], [b"\r\n"], [b"\n", b"\r\n"]])))

    def kept(fields: Sequence[bytes]) -> list[bytes]:
        return [field for index, field in enumerate(fields) if index not in dropped]

    def line(fields: Sequence[bytes], *added: str) -> bytes:
        return b",".join([*kept(fields), *(text.encode() for text in added)])

    end = first_end = draw(ends)
    data = b",".join(names) + end
    result = line(names, "status", "message", *processor.result_columns) + end
    records = draw(st.integers(0, 40))
    for record in range(1, records + 1):
        data += draw(st.sampled_from([b"", b"", b"", b"\n", b"\r\n"]))
        fields = draw(st.lists(_RAW, min_size=len(names), max_size=len(names)))
        if draw(st.integers(0, 9)) == 0:
            fields[draw(st.integers(0, len(names) - 1))] = _FAULTY
        if fields == [b""]:
            fields = [b'""']  # else it is a blank line
        added = processor.decided(record)
        if _FAULTY in fields:
            line_number = data.count(b"\n") + 1
            reason = f"line {line_number}: text after a closing quote"
            added = ["failed", reason, *("" for _ in processor.result_columns)]
        end = draw(ends)
        data += b",".join(fields) + end
        result += line(fields, *added) + end
    if records and draw(st.booleans()):
        data, result = data.removesuffix(end), result.removesuffix(end) + first_end
    settings = CsvSettings(card_column="1", drop_columns=tuple(str(index + 1) for index in dropped))
    return data, result, settings, processor


@settings(deadline=None)  # a busy machine is no failure
@given(results(), st.integers(1, 12))
async def test_a_result_is_the_files_bytes_without_dropped_columns_and_with_what_was_decided(
    made: tuple[bytes, bytes, CsvSettings, Numbered], chunk_records: int
) -> None:
    """For any combination of dropped, faulty and repeated values, and any end of a chunk."""
    data, wanted, settings, processor = made
    result: list[bytes] = []

    async def source() -> AsyncIterator[bytes]:
        yield data

    async def sink(piece: bytes) -> None:
        result.append(piece)

    limits, loaded = CsvLimits(chunk_records=chunk_records), adopt(processor, ProcessorSettings(name="mine"))
    await run_stream(source(), sink, settings=settings, limits=limits, processor=loaded, context=job_context())
    assert b"".join(result) == wanted

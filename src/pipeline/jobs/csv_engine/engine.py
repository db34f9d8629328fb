"""Runs a processor over the chunks of one file: parse, process row by row or as one batch, format."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import PermanentError, TransientError
from pipeline.jobs.csv_engine.faults import check_words, misbehaved
from pipeline.jobs.csv_engine.formatting import FAILED, OK, Outcomes, format_records
from pipeline.jobs.csv_engine.identity import idempotency_keys, key_prefix
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.records import Records, parse
from pipeline.jobs.csv_engine.rowwise import DELIBERATE_ERRORS, run_rowwise
from pipeline.jobs.csv_engine.splitter import Chunk
from pipeline.jobs.csv_engine.tries import Tries
from pipeline.jobs.processors.loading import LoadedProcessor
from pipeline.jobs.processors.protocols import ColumnarProcessor, JobContext, TransientCardError
from pipeline.jobs.processors.settings import ProcessorSettings
from pipeline.outbound import NO_CIRCUIT, Circuit, Pace
from pipeline.plugins import Fault, contained_call


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """The result of one chunk. The caller appends its bytes to those of the previous chunk.

    Attributes:
        data: Result lines. Those of chunk 0 begin with the result header if the format has one.
        ok: Cards whose status is ok.
        failed: Cards whose status is failed.
    """

    data: bytes = field(repr=False)
    ok: int
    failed: int


class ChunkEngine:
    """Turns the chunks of one file into result bytes. Chunks may run in any order and concurrently.

    Equal chunks give equal bytes if the processor gives equal results. Memory use is a few times the size of a chunk.

    Args:
        layout: The file's columns.
        processor: The caller opens and closes it.
        context: The job, passed on to the processor.
        circuit: Refuses new cards while the card service fails. By default, it refuses none.
        pace: How many requests per second the card service gets. By default, as the processor's settings say.
        pause: Waits between two attempts.
    """

    def __init__(
        self,
        layout: Layout,
        processor: LoadedProcessor,
        context: JobContext,
        *,
        circuit: Circuit = NO_CIRCUIT,
        pace: Pace | None = None,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._layout = layout
        self._processor = processor
        self._context = context
        pace = pace or Pace(processor.settings.requests_per_second)
        self._tries = Tries(processor.settings, pause, circuit, pace)

    async def run(self, chunk: Chunk) -> ChunkResult:
        """Return the result bytes and counts of one chunk.

        Repeating is safe if the processor honours the cards' idempotency keys.

        Raises:
            PermanentError: The processor raised it, or broke its contract (``processor_failed``).
            TransientError: The processor raised it.
            CircuitOpen: The card service failed so often that no further card is sent now.
        """
        processor = self._processor.processor
        if isinstance(processor, ColumnarProcessor):
            return await self._run_columnar(processor, chunk)
        records = await asyncio.to_thread(parse, chunk, self._layout)
        start = chunk.start.record
        outcomes = await run_rowwise(
            processor,
            records,
            self._layout,
            self._context,
            self._tries,
            start=start,
            cards_per_call=self._processor.cards_per_call,
        )
        return await asyncio.to_thread(self._result, chunk, records, outcomes)

    async def _run_columnar(self, processor: ColumnarProcessor, chunk: Chunk) -> ChunkResult:
        """Run a chunk in two thread calls: one switch of threads takes as long as hundreds of cards."""
        records, batch = await asyncio.to_thread(self._batch, chunk)
        if not batch.num_rows:
            return await asyncio.to_thread(self._result, chunk, records, _all_failed(0, "", self._layout))
        tries = self._tries.of_chunk(batch.num_rows)
        call = await tries.begin()
        began, attempt = tries.now(), 1
        try:
            while True:
                try:
                    result = await asyncio.to_thread(self._attempt, processor, chunk, records, batch)
                except TransientCardError as error:
                    if not await tries.wait(
                        attempt, error, call, self._values(records), began=began, cards=batch.num_rows
                    ):
                        failed = _all_failed(batch.num_rows, tries.given_up(error, attempt), self._layout)
                        return await asyncio.to_thread(self._result, chunk, records, failed)
                else:
                    call.succeeded()
                    return result
                attempt += 1
        finally:
            call.close()

    def _batch(self, chunk: Chunk) -> tuple[Records, pa.RecordBatch]:
        """Return all records, and the sound ones as a batch with the columns that the processor reads."""
        layout = self._layout
        records = parse(chunk, layout)
        numbers = records.sound + (chunk.start.record + 1)
        prefix = key_prefix(self._context.integration, self._context.job_guid)
        record, card, key = layout.RESERVED
        named = self._processor.input_columns
        read = frozenset((*layout.columns, *layout.RESERVED) if named is None else named)
        columns = {name: records.text.values(index) for index, name in enumerate(layout.columns) if name in read}
        columns[record] = pa.array(numbers)
        if card in read:
            columns[card] = records.text.values(layout.card)
        if key in read:
            columns[key] = idempotency_keys(prefix, numbers)
        return records, pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))

    def _attempt(
        self, processor: ColumnarProcessor, chunk: Chunk, records: Records, batch: pa.RecordBatch
    ) -> ChunkResult:
        settings = self._tries.settings

        def attempt() -> Outcomes:
            try:
                result = processor.process_batch(batch, self._context)
            except (PermanentError, TransientError) as error:
                check_words(error, settings, self._values(records))
                raise
            return _checked(result, batch.num_rows, self._layout, settings)

        def failed(fault: Fault) -> PermanentError:
            first = chunk.start.record + int(records.sound[0]) + 1
            return misbehaved(settings, f"raised {fault} in the batch that begins at record {first}", fault)

        return self._result(chunk, records, contained_call(attempt, failed, *DELIBERATE_ERRORS))

    def _values(self, records: Records) -> Iterator[str]:
        """Yield all fields of the sound records; only an error needs them."""
        for column in range(len(self._layout.columns)):
            yield from records.text.values(column).to_pylist()

    def _result(self, chunk: Chunk, records: Records, outcomes: Outcomes) -> ChunkResult:
        data = format_records(records, outcomes, self._layout)
        if chunk.number == 0:
            data = self._layout.result_header + data
        ok = outcomes.ok
        return ChunkResult(data=data, ok=ok, failed=records.lines.starts.size - ok)


def _checked(result: object, rows: int, layout: Layout, settings: ProcessorSettings) -> Outcomes:
    import pyarrow.compute as pc  # noqa: PLC0415 - it makes 300 functions in Python; an idle worker calls none

    if not isinstance(result, pa.RecordBatch):
        raise misbehaved(settings, f"returned {type(result).__name__} instead of a RecordBatch")
    if result.num_rows != rows:
        raise misbehaved(settings, f"returned {result.num_rows} rows for {rows} cards")
    missing = [name for name in ("status", "message", *layout.own) if result.schema.names.count(name) != 1]
    if missing:
        raise misbehaved(settings, f"returned a batch without exactly one column {missing[0]}")
    status = _text(result, "status", settings)
    if not pa.types.is_dictionary(status.type):
        status = status.dictionary_encode()
    used = status.dictionary.take(pc.unique(status.indices.drop_null())).to_pylist()
    if status.null_count or not {OK, FAILED}.issuperset(used):
        raise misbehaved(settings, "returned a status that is neither ok nor failed")
    own = tuple(_text(result, name, settings) for name in layout.own)
    return Outcomes(status, _text(result, "message", settings), own)


def _text(batch: pa.RecordBatch, name: str, settings: ProcessorSettings) -> pa.Array:
    column = batch.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not pa.types.is_string(kind):
        shape = str(kind).partition("<")[0]  # the rest has names of fields, which may be card values
        raise misbehaved(settings, f"returned column {name} as {shape} instead of string")
    return column


def _all_failed(rows: int, message: str, layout: Layout) -> Outcomes:
    nothing = pa.nulls(rows, pa.string())
    status = pa.array([FAILED] * rows, pa.string()).dictionary_encode()
    return Outcomes(status, pa.array([message] * rows, pa.string()), tuple(nothing for _ in layout.own))


def use_system_allocator() -> None:
    """Make Arrow use the system's memory allocator. Call this once in each process that processes cards.

    Arrow's default allocator (mimalloc) keeps the memory that each thread has freed. Here that is about 100 MB more, it
    grows with the size of the file, and it is no faster.
    """
    pa.set_memory_pool(pa.system_memory_pool())

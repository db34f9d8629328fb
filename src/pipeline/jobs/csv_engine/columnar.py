"""Runs a columnar processor: one batch per chunk, in a thread."""

from __future__ import annotations

import asyncio

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.jobs.csv_engine.formatting import FAILED, OK, Outcomes
from pipeline.jobs.csv_engine.identity import idempotency_keys, key_prefix
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.records import Records
from pipeline.jobs.csv_engine.trying import Tries, misbehaved
from pipeline.jobs.processors.protocols import ColumnarProcessor, JobContext, TransientCardError
from pipeline.jobs.processors.settings import ProcessorSettings


async def run_columnar(
    processor: ColumnarProcessor, records: Records, layout: Layout, context: JobContext, tries: Tries, *, start: int
) -> Outcomes:
    """Return what became of each sound record. Raises as :meth:`ChunkEngine.run`."""
    if not records.sound.size:
        return _all_failed(0, "", layout)
    batch = await asyncio.to_thread(_batch, records, layout, context, start)
    attempt = 1
    while True:
        try:
            return await asyncio.to_thread(_attempt, processor, batch, context, layout, tries.settings)
        except TransientCardError as error:
            if not await tries.wait(attempt, error):
                return _all_failed(records.sound.size, tries.given_up(error), layout)
        attempt += 1


def _attempt(
    processor: ColumnarProcessor,
    batch: pa.RecordBatch,
    context: JobContext,
    layout: Layout,
    settings: ProcessorSettings,
) -> Outcomes:
    try:
        result = processor.process_batch(batch, context)
    except (PipelineError, TransientCardError):
        raise
    except Exception as error:  # noqa: BLE001 - a foreign processor may raise anything, with card data in its message
        kind = type(error).__name__
    else:
        return _checked(result, batch.num_rows, layout, settings)
    # outside the handler, so that the unknown error and the values in its frames are not chained
    raise misbehaved(settings, f"raised {kind}")


def _batch(records: Records, layout: Layout, context: JobContext, start: int) -> pa.RecordBatch:
    numbers = records.sound + (start + 1)
    keys = idempotency_keys(key_prefix(context.integration, context.job_guid), numbers)
    arrays = [*records.values, pa.array(numbers), records.values[layout.card], keys]
    return pa.RecordBatch.from_arrays(arrays, names=[*layout.columns, *layout.RESERVED])


def _checked(result: object, rows: int, layout: Layout, settings: ProcessorSettings) -> Outcomes:
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
    used = status.dictionary.take(pa.array(np.unique(status.indices.drop_null()))).to_pylist()
    if status.null_count or not {OK, FAILED}.issuperset(used):
        raise misbehaved(settings, "returned a status that is neither ok nor failed")
    own = tuple(_text(result, name, settings) for name in layout.own)
    return Outcomes(status, _text(result, "message", settings), own)


def _text(batch: pa.RecordBatch, name: str, settings: ProcessorSettings) -> pa.Array:
    column = batch.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not pa.types.is_string(kind):
        raise misbehaved(settings, f"returned column {name} as {kind} instead of string")
    return column


def _all_failed(rows: int, message: str, layout: Layout) -> Outcomes:
    nothing = pa.nulls(rows, pa.string())
    status = pa.array([FAILED] * rows, pa.string()).dictionary_encode()
    return Outcomes(status, pa.array([message] * rows, pa.string()), tuple(nothing for _ in layout.own))

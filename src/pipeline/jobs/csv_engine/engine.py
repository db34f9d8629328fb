"""Runs a processor over the chunks of one file: parse, process row by row or as one batch, format."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.errors import PermanentError, PipelineError, TransientError, most_severe
from pipeline.jobs.csv_engine.faults import check_words, misbehaved, without_values
from pipeline.jobs.csv_engine.formatting import FAILED, OK, Outcomes, format_records
from pipeline.jobs.csv_engine.identity import idempotency_keys, key_prefix
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.records import Records, parse
from pipeline.jobs.csv_engine.splitter import Chunk
from pipeline.jobs.processors.loading import LoadedProcessor
from pipeline.jobs.processors.protocols import (
    Card,
    CardError,
    CardResult,
    ColumnarProcessor,
    JobContext,
    RowProcessor,
    TransientCardError,
)
from pipeline.jobs.processors.settings import ProcessorSettings
from pipeline.jobs.wording import quote
from pipeline.outbound import NO_CIRCUIT, Call, Circuit, HostUnavailable
from pipeline.plugins import Fault, contained, contained_call


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


class ChunkEngine:
    """Makes result bytes of chunks. One per file; chunks may be run in any order and side by side.

    The same chunk gives the same bytes, as far as the processor says the same. Memory is a few times the chunk's.

    Args:
        layout: The file's columns.
        processor: Opened by the caller, who closes it.
        context: The job, passed on to the processor.
        circuit: Refuses further cards while the card service fails. By default, every card is tried.
        pause: Waits between two attempts.
    """

    def __init__(
        self,
        layout: Layout,
        processor: LoadedProcessor,
        context: JobContext,
        *,
        circuit: Circuit = NO_CIRCUIT,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._layout = layout
        self._processor = processor
        self._context = context
        self._tries = Tries(processor.settings, pause, circuit)

    async def run(self, chunk: Chunk) -> ChunkResult:
        """Return the result bytes and counts of one chunk.

        Repeating is safe as far as the processor honours the cards' idempotency keys.

        Raises:
            PermanentError: As the processor raised it, or ``processor_failed`` where it broke its contract.
            TransientError: As the processor raised it.
            CircuitOpen: The card service failed so often that no further card is sent now.
        """
        records = await asyncio.to_thread(parse, chunk, self._layout)
        processor = self._processor.processor
        start = chunk.start.record
        if isinstance(processor, ColumnarProcessor):
            outcomes = await run_columnar(processor, records, self._layout, self._context, self._tries, start=start)
        else:
            outcomes = await run_rowwise(processor, records, self._layout, self._context, self._tries, start=start)
        data = await asyncio.to_thread(format_records, records, outcomes, self._layout)
        header = self._layout.result_header if chunk.number == 0 else b""
        ok = outcomes.ok
        return ChunkResult(data=header + data, ok=ok, failed=records.starts.size - ok)


_MEANT: Final = (PermanentError, TransientError, TransientCardError)
"""What a processor may raise and mean it. Our other errors are for the runner: no processor stops the process."""

_TURN: Final = 64
"""Cards after which a worker lets others have the loop, should the processor never wait for anything."""


async def run_rowwise(
    processor: RowProcessor, records: Records, layout: Layout, context: JobContext, tries: Tries, *, start: int
) -> Outcomes:
    """Return what became of each sound record. Raises as :meth:`ChunkEngine.run`."""
    run = _Run(processor, layout, context, tries)
    cards = enumerate(await asyncio.to_thread(_cards, records, layout, context, start))
    results: list[CardResult | None] = [None] * records.sound.size
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(tries.settings.concurrency, records.sound.size)):
                workers.create_task(run.work(cards, results))
    except* PipelineError as group:
        failure = most_severe(group)
    if failure is not None:
        raise failure
    decided = [result for result in results if result is not None]
    if len(decided) < len(results):
        raise misbehaved(tries.settings, "cancelled the task that called it")
    return await asyncio.to_thread(_outcomes, decided, layout)


class _Run:
    def __init__(self, processor: RowProcessor, layout: Layout, context: JobContext, tries: Tries) -> None:
        self._processor = processor
        self._context = context
        self._tries = tries
        self._own = frozenset(layout.own)

    async def work(self, cards: Iterator[tuple[int, Card]], results: list[CardResult | None]) -> None:
        """Take cards until there are none."""
        for done, (index, card) in enumerate(cards):
            results[index] = await self._card(card)
            if done % _TURN == _TURN - 1:
                await asyncio.sleep(0)

    async def _card(self, card: Card) -> CardResult:
        call = await self._tries.begin()
        attempt = 1
        try:
            while True:
                try:
                    result = await contained(lambda: self._attempt(card), partial(self._failed, card), *_MEANT)
                except TransientCardError as error:
                    if not await self._tries.wait(attempt, error, call, card.columns.values()):
                        return CardResult("failed", self._tries.given_up(error))
                else:
                    call.succeeded()
                    return result
                attempt += 1
        finally:
            call.close()

    async def _attempt(self, card: Card) -> CardResult:
        try:
            result = await self._processor.process(card, self._context)
        except CardError as error:
            return CardResult("failed", _text_of(error) or "refused")
        except (PermanentError, TransientError) as error:
            check_words(error, self._tries.settings, card.columns.values())
            raise
        return self._checked(result)

    def _failed(self, card: Card, fault: Fault) -> PermanentError:
        return misbehaved(self._tries.settings, f"raised {fault}, at record {card.record}", fault)

    def _checked(self, result: object) -> CardResult:
        settings = self._tries.settings
        if not isinstance(result, CardResult):
            raise misbehaved(settings, f"returned {type(result).__name__} instead of CardResult")
        if result.status not in (OK, FAILED):
            raise misbehaved(settings, "returned a status that is neither ok nor failed")
        texts: list[object] = [result.message, *result.columns.values()]
        if not all(isinstance(text, str) for text in texts):
            raise misbehaved(settings, "returned a message or a result column that is no text")
        if not self._own.issuperset(result.columns):
            raise misbehaved(settings, "returned a column that its result_columns do not name")
        return result


def _cards(records: Records, layout: Layout, context: JobContext, start: int) -> Iterator[Card]:
    prefix = key_prefix(context.integration, context.job_guid)
    numbers = (records.sound + (start + 1)).tolist()
    rows = zip(*(column.to_pylist() for column in records.values), strict=True)
    return (
        Card(
            record=number,
            number=row[layout.card],
            columns=dict(zip(layout.columns, row, strict=True)),
            idempotency_key=f"{prefix}{number:012x}",
        )
        for number, row in zip(numbers, rows, strict=True)
    )


def _outcomes(results: list[CardResult], layout: Layout) -> Outcomes:
    return Outcomes(
        status=pa.array([result.status for result in results], pa.string()).dictionary_encode(),
        message=_texts([result.message for result in results]),
        own=tuple(_texts([result.columns.get(name, "") for result in results]) for name in layout.own),
    )


def _texts(values: list[str]) -> pa.StringArray:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # half of a surrogate pair, e.g. out of someone's JSON
        return pa.array([value.encode("utf-8", "replace").decode() for value in values], pa.string())


async def run_columnar(
    processor: ColumnarProcessor, records: Records, layout: Layout, context: JobContext, tries: Tries, *, start: int
) -> Outcomes:
    """Return what became of each sound record. Raises as :meth:`ChunkEngine.run`."""
    if not records.sound.size:
        return _all_failed(0, "", layout)
    batch = await asyncio.to_thread(_batch, records, layout, context, start)
    call = await tries.begin()
    attempt = 1
    try:
        while True:
            try:
                outcomes = await asyncio.to_thread(_attempt, processor, batch, context, layout, tries.settings)
            except TransientCardError as error:
                if not await tries.wait(attempt, error, call, _fields(batch)):
                    return _all_failed(records.sound.size, tries.given_up(error), layout)
            else:
                call.succeeded()
                return outcomes
            attempt += 1
    finally:
        call.close()


def _attempt(
    processor: ColumnarProcessor,
    batch: pa.RecordBatch,
    context: JobContext,
    layout: Layout,
    settings: ProcessorSettings,
) -> Outcomes:
    def attempt() -> Outcomes:
        try:
            result = processor.process_batch(batch, context)
        except (PermanentError, TransientError) as error:
            check_words(error, settings, _fields(batch))
            raise
        return _checked(result, batch.num_rows, layout, settings)

    def failed(fault: Fault) -> PermanentError:
        first = batch.column("__record")[0].as_py()
        return misbehaved(settings, f"raised {fault}, at the records from {first} on", fault)

    return contained_call(attempt, failed, *_MEANT)


def _batch(records: Records, layout: Layout, context: JobContext, start: int) -> pa.RecordBatch:
    numbers = records.sound + (start + 1)
    keys = idempotency_keys(key_prefix(context.integration, context.job_guid), numbers)
    arrays = [*records.values, pa.array(numbers), records.values[layout.card], keys]
    return pa.RecordBatch.from_arrays(arrays, names=[*layout.columns, *layout.RESERVED])


def _fields(batch: pa.RecordBatch) -> Iterator[str]:
    """Yield all fields of a batch of cards; only an error needs them."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name not in Layout.RESERVED:
            yield from column.to_pylist()


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
        shape = str(kind).partition("<")[0]  # inside are names of fields, which may be made of a card's values
        raise misbehaved(settings, f"returned column {name} as {shape} instead of string")
    return column


def _all_failed(rows: int, message: str, layout: Layout) -> Outcomes:
    nothing = pa.nulls(rows, pa.string())
    status = pa.array([FAILED] * rows, pa.string()).dictionary_encode()
    return Outcomes(status, pa.array([message] * rows, pa.string()), tuple(nothing for _ in layout.own))


def settle_memory() -> None:
    """Let Arrow take its memory from the system's allocator; call it once in a process that processes cards.

    Arrow's default (mimalloc) keeps what each thread freed: about 100 MB more here, growing with the size of the file,
    at the same speed.
    """
    pa.set_memory_pool(pa.system_memory_pool())


class Tries:
    """How often something is tried, and how long is waited in between.

    Args:
        settings: Tries and pauses.
        pause: Waits the given seconds.
        circuit: The circuit breaker of the card service.
    """

    def __init__(
        self, settings: ProcessorSettings, pause: Callable[[float], Awaitable[object]], circuit: Circuit
    ) -> None:
        self.settings = settings
        self._pause = pause
        self._circuit = circuit

    async def begin(self) -> Call:
        """Return the call of the service for a card (columnar: a batch).

        An open circuit refuses new cards only. A card that was begun keeps its tries: so a few cards that the service
        cannot handle open the circuit, and yet fail one by one, and the job goes on.

        Raises:
            CircuitOpen: The service failed so often that no further card is sent now.
        """
        return await self._circuit.call_after_probe(self.settings.name)

    async def wait(self, failures: int, error: TransientCardError, call: Call, fields: Iterable[str]) -> bool:
        """Wait after so many failures (from 1) of a call; return whether there is another try.

        The other side's wish for a longer pause is granted up to the limit. A shorter one changes nothing: it would
        only use up the tries sooner. What the error says of the card's fields goes into the result alone.
        """
        if error.unavailable:
            # a circuit repeats its last failure where the result file does not go: log lines, receipts, callbacks
            said = quote(without_values(_text_of(error), fields)) or "no answer"
            call.failed(HostUnavailable("card_service_unavailable", f"Card service: {said}."))
        retry = self.settings.retry
        if failures >= retry.max_tries:
            return False
        await self._pause(max(retry.policy.pause(failures), min(_seconds(error.retry_after), retry.max_seconds)))
        return True

    def given_up(self, error: TransientCardError) -> str:
        """Return the message of a card that failed for good after its last try."""
        return f"{_text_of(error) or 'no answer'} (after {self.settings.retry.max_tries} attempts)"


def _text_of(error: Exception) -> str:
    """Return the text that a processor gave its error for the result file; empty if it has none."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - the class may be the processor's own
        return ""


def _seconds(asked: object) -> float:
    return float(asked) if isinstance(asked, int | float) and isfinite(asked) else 0.0

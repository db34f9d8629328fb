"""Runs a row-wise processor: a bounded number of cards at once, each with attempts of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from pipeline.errors import PipelineError, most_severe
from pipeline.jobs.csv_engine.formatting import FAILED, OK, Outcomes
from pipeline.jobs.csv_engine.identity import key_prefix
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.records import Records
from pipeline.jobs.csv_engine.trying import Tries, misbehaved
from pipeline.jobs.processors.protocols import Card, CardError, CardResult, JobContext, RowProcessor, TransientCardError

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
    return await asyncio.to_thread(_outcomes, [result for result in results if result is not None], layout)


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
        attempt = 1
        while True:
            try:
                return await self._attempt(card)
            except CardError as error:
                return CardResult("failed", str(error) or "refused")
            except TransientCardError as error:
                if not await self._tries.wait(attempt, error):
                    return CardResult("failed", self._tries.given_up(error))
            attempt += 1

    async def _attempt(self, card: Card) -> CardResult:
        try:
            result = await self._processor.process(card, self._context)
        except (PipelineError, CardError, TransientCardError):
            raise
        except Exception as error:  # noqa: BLE001 - a foreign processor may raise anything, with card data in its message
            kind = type(error).__name__
        else:
            return self._checked(result)
        # outside the handler, so that the unknown error and the values in its frames are not chained
        raise misbehaved(self._tries.settings, f"raised {kind}")

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

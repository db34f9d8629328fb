"""Runs a row-wise processor over the sound records of a chunk, and decides how often a card is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from math import isfinite
from typing import Final

import pyarrow as pa

from pipeline.contracts.frozen import quick
from pipeline.errors import PermanentError, PipelineError, TransientError, most_severe
from pipeline.jobs.csv_engine.faults import check_words, misbehaved, without_values
from pipeline.jobs.csv_engine.formatting import FAILED, OK, Outcomes
from pipeline.jobs.csv_engine.identity import idempotency_keys, key_prefix
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.records import Records
from pipeline.jobs.processors.protocols import (
    Card,
    CardError,
    CardResult,
    JobContext,
    RowProcessor,
    TransientCardError,
)
from pipeline.jobs.processors.settings import ProcessorSettings
from pipeline.jobs.wording import quote
from pipeline.outbound import Call, Circuit, HostUnavailable
from pipeline.plugins import Fault, contain_tasks, contained, is_cancellation

MEANT: Final = (PermanentError, TransientError, TransientCardError)
"""What a processor may raise and mean it. Our other errors are for the runner: no processor stops the process."""

_card: Final = quick(Card)

_STATUSES: Final = (OK, FAILED)

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
        self._process = processor.process
        self._context = context
        self._tries = tries
        self._own = frozenset(layout.own)

    async def work(self, cards: Iterator[tuple[int, Card]], results: list[CardResult | None]) -> None:
        """Take cards until there are none.

        A card's usual way is short, with nothing made for it: the processor returns a proper result at once. All else
        goes the long way (:meth:`_card`), with what the processor did as the first try.
        """
        contain_tasks()
        process, context, own = self._process, self._context, self._own
        failing, quiet_call = self._tries.failing, self._tries.quiet_call
        for index, card in cards:
            if index % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            call = await self._tries.begin() if failing else quiet_call
            try:
                result = await process(card, context)
                if (
                    type(result) is CardResult
                    and type(result.columns) is dict
                    and result.status in _STATUSES
                    and type(result.message) is str
                    and (not result.columns or _proper(result.columns, own))
                ):
                    results[index] = result
                    if failing:
                        call.succeeded()
                    continue
                first = partial(_returned, result)
            except BaseException as error:
                if is_cancellation(error):
                    call.close()
                    raise
                first = partial(_raised, error)
            results[index] = await self._card(card, call, first)

    async def _card(
        self, card: Card, call: Call, process: Callable[[Card, JobContext], Awaitable[CardResult]]
    ) -> CardResult:
        attempt = 1
        try:
            while True:
                try:
                    result = await contained(partial(self._attempt, card, process), partial(self._failed, card), *MEANT)
                except TransientCardError as error:
                    if not await self._tries.wait(attempt, error, call, card.columns.values()):
                        return CardResult("failed", self._tries.given_up(error))
                else:
                    call.succeeded()
                    return result
                process = self._process
                attempt += 1
        finally:
            call.close()

    async def _attempt(self, card: Card, process: Callable[[Card, JobContext], Awaitable[CardResult]]) -> CardResult:
        try:
            result = await process(card, self._context)
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
        if result.status not in _STATUSES:
            raise misbehaved(settings, "returned a status that is neither ok nor failed")
        texts: list[object] = [result.message, *result.columns.values()]
        if not all(isinstance(text, str) for text in texts):
            raise misbehaved(settings, "returned a message or a result column that is no text")
        if not self._own.issuperset(result.columns):
            raise misbehaved(settings, "returned a column that its result_columns do not name")
        return result


def _proper(columns: dict[str, str], own: frozenset[str]) -> bool:
    return own.issuperset(columns) and all(type(text) is str for text in columns.values())


async def _returned(result: CardResult, _card: Card, _context: JobContext) -> CardResult:
    return result


async def _raised(error: BaseException, _card: Card, _context: JobContext) -> CardResult:
    raise error


def _cards(records: Records, layout: Layout, context: JobContext, start: int) -> Iterator[Card]:
    """Return the cards. Maps make them one at a time, without a step of the interpreter for each field."""
    if not records.sound.size:
        return iter(())
    numbers = records.sound + (start + 1)
    keys = idempotency_keys(key_prefix(context.integration, context.job_guid), numbers)
    values = [_list(records.text.values(column)) for column in range(len(layout.columns))]
    columns = map(dict, map(zip, repeat(layout.columns), zip(*values, strict=True)))
    return map(_card, numbers.tolist(), values[layout.card], columns, _list(keys))


def _list(values: pa.StringArray) -> list[str]:
    """Return Python's strings, by way of numpy: a fifth faster than ``to_pylist``."""
    texts: list[str] = values.to_numpy(zero_copy_only=False).tolist()
    return texts


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


class Tries:
    """How often something is tried, and how long is waited in between.

    Args:
        settings: Tries and pauses.
        pause: Waits the given seconds.
        circuit: The circuit breaker of the card service.

    Attributes:
        settings: As given.
        failing: Empty while no card has failed because of the service since its last success.
        quiet_call: The call of all cards that begin while ``failing`` is empty: it is no probe, so they may share it.
    """

    def __init__(
        self, settings: ProcessorSettings, pause: Callable[[float], Awaitable[object]], circuit: Circuit
    ) -> None:
        self.settings = settings
        self.failing: Final = circuit.failing
        self.quiet_call: Final = Call(circuit, settings.name, None)
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

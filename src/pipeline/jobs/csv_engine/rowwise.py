"""Runs a row-wise processor over the sound records of a chunk: one card, or several cards, per call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice, repeat
from typing import Final

import pyarrow as pa

from pipeline.contracts.frozen import quick
from pipeline.errors import PermanentError, PipelineError, TransientError, most_severe
from pipeline.jobs.csv_engine.faults import check_words, misbehaved
from pipeline.jobs.csv_engine.formatting import FAILED, OK, Outcomes
from pipeline.jobs.csv_engine.identity import group_key, idempotency_keys, key_prefix
from pipeline.jobs.csv_engine.layout import Layout
from pipeline.jobs.csv_engine.records import Records
from pipeline.jobs.csv_engine.tries import Tries, text_of
from pipeline.jobs.processors.protocols import (
    Card,
    CardError,
    CardGroup,
    CardResult,
    GroupProcessor,
    JobContext,
    RowProcessor,
    TransientCardError,
)
from pipeline.outbound import Call
from pipeline.plugins import Fault, contain_tasks, contained, is_cancellation

DELIBERATE_ERRORS: Final = (PermanentError, TransientError, TransientCardError)
"""Errors that a processor may raise on purpose. The pipeline's other errors steer the runner."""

_card: Final = quick(Card)

_STATUSES: Final = (OK, FAILED)

_FIELDS_AT_ONCE: Final = 4096
"""About so many fields become Python texts at once. It takes half a millisecond, and the cache has room for them."""

_TURN: Final = 64
"""After this many cards a worker gives other tasks a turn, because a processor may never wait for anything."""


async def run_rowwise(
    processor: RowProcessor | GroupProcessor,
    records: Records,
    layout: Layout,
    context: JobContext,
    tries: Tries,
    *,
    start: int,
    cards_per_call: int = 1,
) -> Outcomes:
    """Return the outcome of each sound record. It raises the errors of :meth:`ChunkEngine.run`."""
    tries = tries.of_chunk(records.sound.size)
    cards = await asyncio.to_thread(_cards, records, layout, context, start)
    results = _Results(records.sound.size)
    calls = -(-records.sound.size // cards_per_call)
    if cards_per_call > 1 and isinstance(processor, GroupProcessor):
        groups = _Groups(processor, layout, context, tries)
        work = partial(groups.work, enumerate(_batched(cards, cards_per_call)), results, cards_per_call)
    elif isinstance(processor, RowProcessor):
        work = partial(_Run(processor, layout, context, tries).work, enumerate(cards), results)
    else:  # pragma: no cover - LoadedProcessor has checked it
        raise TypeError(type(processor).__name__)
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(tries.settings.concurrency, calls)):
                workers.create_task(work())
    except* PipelineError as group:
        failure = most_severe(group)
    if failure is not None:
        raise failure
    if not all(results.statuses):
        raise misbehaved(tries.settings, "cancelled the task that called it")
    return await asyncio.to_thread(results.outcomes, layout)


def _batched(cards: Iterator[Card], size: int) -> Iterator[tuple[Card, ...]]:
    while group := tuple(islice(cards, size)):
        yield group


class _Results:
    """The results of a chunk's cards, by column.

    A whole chunk of result objects would keep the garbage collector busy, so they are not kept.

    Attributes:
        statuses: Empty for a card without a result yet.
        messages: Their messages.
        columns: The processor's own columns; None for a card without any.
    """

    def __init__(self, cards: int) -> None:
        self.statuses = [""] * cards
        self.messages = [""] * cards
        self.columns: list[Mapping[str, str] | None] = [None] * cards

    def put(self, index: int, result: CardResult) -> None:
        """Keep the result of a card."""
        self.statuses[index] = result.status
        self.messages[index] = result.message
        if result.columns:
            self.columns[index] = result.columns

    def outcomes(self, layout: Layout) -> Outcomes:
        """Return them as Arrow columns."""
        return Outcomes(
            status=pa.array(self.statuses, pa.string()).dictionary_encode(),
            message=_texts(self.messages),
            own=tuple(_texts([found.get(name, "") if found else "" for found in self.columns]) for name in layout.own),
        )


class _Checks:
    """The types that a processor may return."""

    def __init__(self, layout: Layout, context: JobContext, tries: Tries) -> None:
        self._context = context
        self._tries = tries
        self._own = frozenset(layout.own)

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


class _Groups(_Checks):
    """Several cards per call. Cards of a group that failed with a transient error are tried again together."""

    def __init__(self, processor: GroupProcessor, layout: Layout, context: JobContext, tries: Tries) -> None:
        super().__init__(layout, context, tries)
        self._process = processor.process_cards
        self._prefix = key_prefix(context.integration, context.job_guid)

    async def work(self, groups: Iterator[tuple[int, tuple[Card, ...]]], results: _Results, size: int) -> None:
        """Process groups of cards until none is left."""
        contain_tasks()
        for number, cards in groups:
            call = await self._tries.begin()
            try:
                for index, result in enumerate(await self._decided(cards, call), start=number * size):
                    results.put(index, result)
            finally:
                call.close()
            await asyncio.sleep(0)  # give others a turn: the processor may never wait for anything

    async def _decided(self, cards: tuple[Card, ...], call: Call) -> list[CardResult]:
        results: dict[int, CardResult] = {}
        pending = list(range(len(cards)))
        attempt = 1
        answered = 0
        began = self._tries.now()
        while True:
            group = CardGroup(
                tuple(cards[index] for index in pending),
                group_key(self._prefix, [cards[index].record for index in pending], answered),
            )
            failures = await self._attempt(group)
            left: list[int] = []
            errors: list[TransientCardError] = []
            for index, result in zip(pending, failures, strict=True):
                if isinstance(result, TransientCardError):
                    left.append(index)
                    errors.append(result)
                else:
                    results[index] = result
            if len(left) < len(pending) or not any(error.unavailable for error in errors):
                call.succeeded()
            if len(left) < len(pending) or not any(error.unavailable or error.maybe_done for error in errors):
                answered += 1
            if not left:
                return [results[index] for index in range(len(cards))]
            worst = max(errors, key=lambda error: (error.unavailable, error.retry_after or 0.0))
            values = chain.from_iterable(cards[index].columns.values() for index in left)
            if not await self._tries.wait(attempt, worst, call, values, began=began, cards=len(left)):
                for index, error in zip(left, errors, strict=True):
                    results[index] = CardResult("failed", self._tries.given_up(error, attempt))
                return [results[index] for index in range(len(cards))]
            pending = left
            attempt += 1

    async def _attempt(self, group: CardGroup) -> list[CardResult | TransientCardError]:
        """Return one result or error per card, also if the processor raised one error for all."""
        try:
            found = await contained(partial(self._call, group), partial(self._failed, group), *DELIBERATE_ERRORS)
        except TransientCardError as error:
            return [error] * len(group.cards)
        if not isinstance(found, list | tuple) or len(found) != len(group.cards):
            what = f"{len(found)} results" if isinstance(found, list | tuple) else type(found).__name__
            raise misbehaved(self._tries.settings, f"returned {what} for {len(group.cards)} cards")
        return [self._one(result) for result in found]

    async def _call(self, group: CardGroup) -> Sequence[CardResult | CardError | TransientCardError]:
        try:
            return await self._process(group, self._context)
        except CardError as error:
            return [error] * len(group.cards)
        except (PermanentError, TransientError) as error:
            values = chain.from_iterable(card.columns.values() for card in group.cards)
            check_words(error, self._tries.settings, values)
            raise

    def _one(self, result: object) -> CardResult | TransientCardError:
        if isinstance(result, TransientCardError):
            return result
        if isinstance(result, CardError):
            return CardResult("failed", text_of(result) or "refused")
        return self._checked(result)

    def _failed(self, group: CardGroup, fault: Fault) -> PermanentError:
        first = group.cards[0].record
        return misbehaved(self._tries.settings, f"raised {fault}, at the records from {first} on", fault)


class _Run(_Checks):
    def __init__(self, processor: RowProcessor, layout: Layout, context: JobContext, tries: Tries) -> None:
        super().__init__(layout, context, tries)
        self._process = processor.process

    async def work(self, cards: Iterator[tuple[int, Card]], results: _Results) -> None:
        """Process cards until none is left.

        Usually the processor returns a valid result at once. This fast path creates no objects for the card. Any other
        card takes the slow path (:meth:`_card`), where the call already made is the first attempt.
        """
        contain_tasks()
        process, context, own = self._process, self._context, self._own
        statuses, messages = results.statuses, results.messages
        failing, quiet_call = self._tries.failing, self._tries.quiet_call
        pace = self._tries.pace
        timed = self._tries.settings.retry.card_seconds is not None
        for index, card in cards:
            if index % _TURN == _TURN - 1:
                await asyncio.sleep(0)
                pace.sample()
            if failing or pace.limited:
                call = await self._tries.begin()
            else:
                call = quiet_call
                pace.sent += 1
            began = self._tries.now() if timed else 0.0
            try:
                result = await process(card, context)
                if type(result) is CardResult:
                    status, message, columns = result.status, result.message, result.columns
                    if (
                        status in _STATUSES
                        and type(message) is str
                        and type(columns) is dict
                        and (not columns or _proper(columns, own))
                    ):
                        statuses[index] = status
                        messages[index] = message
                        if columns:
                            results.columns[index] = columns
                        if failing:
                            call.succeeded()
                        continue
                first = partial(_returned, result)
            except BaseException as error:
                if is_cancellation(error):
                    call.close()
                    raise
                first = partial(_raised, error)
            results.put(index, await self._card(card, call, first, began))

    async def _card(
        self, card: Card, call: Call, process: Callable[[Card, JobContext], Awaitable[CardResult]], began: float
    ) -> CardResult:
        attempt = 1
        try:
            while True:
                try:
                    result = await contained(
                        partial(self._attempt, card, process), partial(self._failed, card), *DELIBERATE_ERRORS
                    )
                except TransientCardError as error:
                    if not await self._tries.wait(attempt, error, call, card.columns.values(), began=began):
                        return CardResult("failed", self._tries.given_up(error, attempt))
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
            return CardResult("failed", text_of(error) or "refused")
        except (PermanentError, TransientError) as error:
            check_words(error, self._tries.settings, card.columns.values())
            raise
        return self._checked(result)

    def _failed(self, card: Card, fault: Fault) -> PermanentError:
        return misbehaved(self._tries.settings, f"raised {fault}, at record {card.record}", fault)


def _proper(columns: dict[str, str], own: frozenset[str]) -> bool:
    return own.issuperset(columns) and all(type(text) is str for text in columns.values())


async def _returned(result: CardResult, _card: Card, _context: JobContext) -> CardResult:
    return result


async def _raised(error: BaseException, _card: Card, _context: JobContext) -> CardResult:
    raise error


def _cards(records: Records, layout: Layout, context: JobContext, start: int) -> Iterator[Card]:
    """Return the cards, created one at a time; their texts are created for a few cards at once.

    ``map`` creates them without an interpreter step for each field.
    """
    if not records.sound.size:
        return iter(())
    numbers = records.sound + (start + 1)
    keys = idempotency_keys(key_prefix(context.integration, context.job_guid), numbers)
    columns = [records.text.values(column) for column in range(len(layout.columns))]
    step = max(_TURN, _FIELDS_AT_ONCE // len(columns))

    def some(begin: int) -> Iterator[Card]:
        values = [_list(column.slice(begin, step)) for column in columns]
        by_name = map(dict, map(zip, repeat(layout.columns), zip(*values, strict=True)))
        return map(
            _card, numbers[begin : begin + step].tolist(), values[layout.card], by_name, _list(keys.slice(begin, step))
        )

    return chain.from_iterable(map(some, range(0, numbers.size, step)))


def _list(values: pa.StringArray) -> list[str]:
    """Return Python strings. The conversion through numpy is a fifth faster than ``to_pylist``."""
    texts: list[str] = values.to_numpy(zero_copy_only=False).tolist()
    return texts


def _texts(values: list[str]) -> pa.StringArray:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # half of a surrogate pair, e.g. from a service's JSON
        return pa.array([value.encode("utf-8", "replace").decode() for value in values], pa.string())

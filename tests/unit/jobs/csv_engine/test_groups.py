"""Several cards a call, and how many tries a card and a job get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import FatalError, PermanentError, TransientError
from pipeline.jobs.csv_engine import ChunkEngine, CsvLimits, CsvSettings, Layout, Splitter
from pipeline.jobs.csv_engine.identity import group_key, key_prefix
from pipeline.jobs.csv_engine.tries import Tries
from pipeline.jobs.processors import (
    Card,
    CardError,
    CardGroup,
    CardResult,
    JobContext,
    ProcessorSettings,
    TransientCardError,
    adopt,
)
from pipeline.outbound import NO_CIRCUIT, CircuitOpen, Circuits, Pace
from pipeline.testing import job_context, run_processor

Answers = Sequence[CardResult | CardError | TransientCardError]


class Grouped:
    """Decides groups of cards with a function, and records its calls."""

    def __init__(self, answer: Callable[[CardGroup], Any], size: int = 2) -> None:
        self.cards_per_call = size
        self.asked: list[CardGroup] = []
        self.answer = answer

    async def process_cards(self, group: CardGroup, _context: JobContext) -> Any:
        """Note and answer."""
        self.asked.append(group)
        return self.answer(group)

    @property
    def numbers(self) -> list[list[str]]:
        """The cards of each call."""
        return [[card.number for card in group.cards] for group in self.asked]


def fine(group: CardGroup) -> Answers:
    """Find every card ok."""
    return [CardResult("ok", card.number) for card in group.cards]


async def run(processor: object, cards: int, **retry: Any) -> list[str]:
    """Return the lines of a chunk of so many cards, numbered from 1."""
    settings = ProcessorSettings.model_validate(
        {"name": "mine", "concurrency": 1, "retry": {"first_seconds": 1e-9, "max_seconds": 1e-9} | retry}
    )
    splitter = Splitter(CsvSettings(), CsvLimits())
    splitter.feed(b"card_number\n" + b"".join(b"%d\n" % number for number in range(1, cards + 1)))
    (chunk,) = splitter.finish()
    layout = Layout.of(splitter.header or b"", CsvSettings())
    result = await ChunkEngine(layout, adopt(processor, settings), job_context()).run(chunk)
    return result.data.decode().splitlines()[1:]


async def test_cards_come_in_groups_and_their_results_keep_the_order() -> None:
    processor = Grouped(fine, 3)
    assert await run(processor, 7) == [f"{number},ok,{number}" for number in range(1, 8)]
    assert processor.numbers == [["1", "2", "3"], ["4", "5", "6"], ["7"]]


async def test_a_group_has_a_key_that_depends_on_its_records_alone() -> None:
    """Another worker, or a run after a restart, sends the same one."""
    processor = Grouped(fine, 2)
    await run(processor, 4)
    prefix = key_prefix("test", job_context().job_guid)
    keys = [group.idempotency_key for group in processor.asked]
    assert keys == [group_key(prefix, [1, 2], 0), group_key(prefix, [3, 4], 0)]
    assert keys[0] == "23462c9a-0487-84bd-bfcb-f93b647c6eed"


async def test_results_and_errors_of_single_cards() -> None:
    """Those whose error may pass are tried again together; after the last try they fail with their own words."""

    def answer(group: CardGroup) -> Answers:
        said: dict[str, CardResult | CardError | TransientCardError] = {
            "1": CardResult(),
            "2": CardError("no"),
            "3": TransientCardError("busy"),
            "4": TransientCardError("later"),
        }
        return [said[card.number] for card in group.cards]

    processor = Grouped(answer, 4)
    assert await run(processor, 4, max_tries=2) == [
        "1,ok,",
        "2,failed,no",
        "3,failed,busy (after 2 attempts)",
        "4,failed,later (after 2 attempts)",
    ]
    assert processor.numbers == [["1", "2", "3", "4"], ["3", "4"]]


async def test_an_error_of_the_call_is_one_of_all_its_cards() -> None:
    def refuse(group: CardGroup) -> Answers:
        if group.cards[0].number == "1":
            raise CardError("no")
        raise TransientCardError("busy")

    processor = Grouped(refuse)
    lines = await run(processor, 4, max_tries=2)
    assert lines == ["1,failed,no", "2,failed,no", *(f"{n},failed,busy (after 2 attempts)" for n in "34")]
    assert len({group.idempotency_key for group in processor.asked if group.cards[0].number == "3"}) == 2


async def test_a_call_without_an_answer_is_repeated_under_the_same_key() -> None:
    """The service may have done its work."""

    def gone(_group: CardGroup) -> Answers:
        raise TransientCardError("no answer", unavailable=True)

    processor = Grouped(gone)
    await run(processor, 2, max_tries=3)
    assert len(processor.asked) == 3
    assert len({group.idempotency_key for group in processor.asked}) == 1


async def test_a_call_that_may_have_had_its_effect_is_repeated_under_the_same_key() -> None:
    """Until an answer decides cards: the others are another group."""

    def unknown(group: CardGroup) -> Answers:
        if len(processor.asked) < 3:
            raise TransientCardError("unreadable", maybe_done=True)
        return [CardResult(), *(TransientCardError("busy") for _ in group.cards[1:])]

    processor = Grouped(unknown, 3)
    assert await run(processor, 3, max_tries=5) == ["1,ok,", "2,ok,", "3,ok,"]
    keys = [group.idempotency_key for group in processor.asked]
    assert len(set(keys[:3])) == 1
    assert len(set(keys)) == len(keys) - 2


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([CardResult()], "returned 1 results for 2 cards"),
        (None, "returned NoneType for 2 cards"),
        ([CardResult(), None], "returned NoneType instead of CardResult"),
        ([CardResult(), CardResult("fine")], "returned a status that is neither ok nor failed"),  # type: ignore[arg-type]
        ([CardResult(), CardResult(columns={"x": "1"})], "returned a column that its result_columns do not name"),
    ],
)
async def test_a_call_that_breaks_its_contract_fails_the_job(returned: object, said: str) -> None:
    with pytest.raises(PermanentError, match=f"processor_failed: .*{said}"):
        await run(Grouped(lambda _group: returned), 2)


async def test_an_unknown_error_names_the_first_record_and_no_value() -> None:
    def broken(group: CardGroup) -> Answers:
        raise KeyError(group.cards[0].number)

    with pytest.raises(PermanentError, match=r"raised KeyError .*, at the records from 1 on"):
        await run(Grouped(broken), 2)


async def test_an_error_of_the_job_passes_without_the_fields_of_its_cards() -> None:
    def stop(group: CardGroup) -> Answers:
        raise TransientError("stop", f"not now, {group.cards[1].number}4711")

    with pytest.raises(TransientError, match="stop"):
        await run(Grouped(stop), 2)


async def test_groups_find_an_open_circuit_too() -> None:
    circuit = Circuits(failures_to_open=2).of("acme", "cards")

    def gone(_group: CardGroup) -> Answers:
        raise TransientCardError("no answer", unavailable=True)

    settings = ProcessorSettings.model_validate(
        {"name": "mine", "concurrency": 1, "retry": {"first_seconds": 1e-9, "max_seconds": 1e-9, "max_tries": 2}}
    )
    splitter = Splitter(CsvSettings(), CsvLimits())
    splitter.feed(b"card_number\n1\n2\n3\n")
    (chunk,) = splitter.finish()
    layout = Layout.of(splitter.header or b"", CsvSettings())
    with pytest.raises(CircuitOpen):
        await ChunkEngine(layout, adopt(Grouped(gone), settings), job_context(), circuit=circuit).run(chunk)


@pytest.mark.parametrize("size", [0, "2", None, True])
def test_the_size_of_a_group_is_a_whole_number(size: Any) -> None:
    with pytest.raises(FatalError, match="cards_per_call of mine must be a whole number from 1"):
        adopt(Grouped(fine, size), ProcessorSettings(name="mine"))


async def test_a_card_gets_no_try_that_would_begin_after_its_time() -> None:
    now = [0.0]

    async def pause(seconds: float) -> None:
        now[0] += seconds

    retry = {"first_seconds": 4, "max_seconds": 4, "max_tries": 100, "card_seconds": 10}
    settings = ProcessorSettings.model_validate({"name": "mine", "retry": retry})
    tries = Tries(settings, pause, NO_CIRCUIT, Pace(), clock=lambda: now[0])
    began, count = tries.now(), 1
    error = TransientCardError("busy", retry_after=4)
    while await tries.wait(count, error, tries.quiet_call, (), began=began):
        count += 1
    assert (count, now[0]) == (3, 8.0)
    assert tries.given_up(error, count) == "busy (after 3 attempts)"


@pytest.mark.parametrize(("share", "retries"), [(0.0, 0), (0.25, 3), (0.3, 3), (1.0, 10), (None, 50)])
async def test_the_retries_of_a_job_are_bounded_by_its_cards(share: float | None, retries: int) -> None:
    """Each chunk gets its part, so the bound holds however many workers share the job."""
    asked: list[str] = []

    async def busy(card: Card, _context: JobContext) -> CardResult:
        asked.append(card.number)
        raise TransientCardError("busy")

    lines = await run(busy, 10, job_retries_per_card=share)
    assert len(asked) - 10 == retries
    assert all(",failed,busy (after " in line for line in lines)


async def test_the_retries_of_a_batch_are_those_of_its_cards() -> None:
    tries: list[int] = []

    class Busy:
        def process_batch(self, batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
            tries.append(batch.num_rows)
            raise TransientCardError("busy")

    await run(Busy(), 10, job_retries_per_card=2.5)
    assert tries == [10, 10, 10]


async def test_authors_test_a_group_processor_as_any_other() -> None:
    rows = await run_processor(Grouped(fine), [{"card_number": "1"}, {"card_number": "2"}])
    assert [row["message"] for row in rows] == ["1", "2"]

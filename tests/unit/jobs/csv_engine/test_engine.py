"""From bytes to result bytes: what is echoed, what is added, which records fail, and how processors are run."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, NoReturn

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.loud_processors import LOUD, LoudByBatch, LoudByRow, LoudInTask

from pipeline.errors import FatalError, PermanentError, TransientError
from pipeline.jobs.csv_engine import (
    ChunkEngine,
    ChunkResult,
    CsvLimits,
    CsvSettings,
    Layout,
    ProcessorFailed,
    Splitter,
    Summary,
    run_stream,
)
from pipeline.jobs.csv_engine.header import separator_line
from pipeline.jobs.csv_engine.identity import idempotency_key
from pipeline.jobs.csv_engine.records import parse
from pipeline.jobs.csv_engine.scanning import Lines
from pipeline.jobs.processors import (
    Card,
    CardError,
    CardResult,
    JobContext,
    ProcessorSettings,
    TransientCardError,
    adopt,
)
from pipeline.outbound import CircuitOpen, Circuits
from pipeline.testing import job_context


async def fine(card: Card, context: JobContext) -> None:
    """Find every card ok."""


class Fine:
    """Find every card ok, whole chunks at once."""

    def process_batch(self, batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
        """Say ok."""
        return statuses(["ok"] * batch.num_rows)


def statuses(status: Sequence[str | None], **columns: Sequence[str | None]) -> pa.RecordBatch:
    """Return what a columnar processor returns."""
    arrays = {"status": status, "message": [""] * len(status), **columns}
    return pa.RecordBatch.from_pydict({name: pa.array(values, pa.string()) for name, values in arrays.items()})


async def run(
    data: bytes,
    target: object = fine,
    settings: CsvSettings | None = None,
    limits: CsvLimits | None = None,
    **processor: Any,
) -> tuple[bytes, Summary]:
    """Return the result of a file."""
    retry = {"first_seconds": 1e-9, "max_seconds": 1e-9} | processor.pop("retry", {})
    loaded = adopt(target, ProcessorSettings(name="mine", retry=retry, **processor))
    result: list[bytes] = []

    async def source() -> AsyncIterator[bytes]:
        yield data

    async def sink(piece: bytes) -> None:
        result.append(piece)

    summary = await run_stream(
        source(),
        sink,
        settings=settings or CsvSettings(),
        limits=limits or CsvLimits(chunk_records=3),
        processor=loaded,
        context=job_context(),
    )
    return b"".join(result), summary


BOTH = pytest.mark.parametrize("target", [fine, Fine], ids=["rowwise", "columnar"])


@BOTH
async def test_input_columns_are_echoed_byte_for_byte(target: object) -> None:
    """The engine never quotes again, rounds, trims or changes line ends; formulas and leading zeros stay unchanged."""
    lines = [
        b'"card_number",a,b\r\n',
        b"0001, x ,=1+1\r\n",
        b'"2","a""b",""\n',
        b'3,"l\r\nf,\n",1234567890123456789\r\n',
        b"4,\x0b\x1c,\xe2\x80\xa8\xc2\x85\n",
    ]
    result, summary = await run(b"".join(lines), target)
    expected = [line.replace(b"\r\n", b"") if line.endswith(b"\r\n") else line[:-1] for line in lines]
    expected[3] = b'3,"l\r\nf,\n",1234567890123456789'
    added = [b",status,message\r\n", b",ok,\r\n", b",ok,\n", b",ok,\r\n", b",ok,\n"]
    assert result == b"".join(line + end for line, end in zip(expected, added, strict=True))
    assert summary == Summary(records=4, ok=4, failed=0)


@BOTH
async def test_a_last_record_without_line_end_gets_the_headers(target: object) -> None:
    """The result always ends with a line end."""
    assert (await run(b"card_number\r\n1\n2", target))[0] == b"card_number,status,message\r\n1,ok,\n2,ok,\r\n"


@BOTH
async def test_blank_lines_are_left_out(target: object) -> None:
    """Blank lines are not records: they are not processed, counted or returned."""
    result, summary = await run(b"\ncard_number,b\n\n1,2\r\n\r\n\n3,4\n\n", target)
    assert result == b"card_number,b,status,message\n1,2,ok,\r\n3,4,ok,\n"
    assert summary.records == 2


@BOTH
async def test_an_empty_value_in_a_file_of_one_column_is_a_record_only_when_quoted(target: object) -> None:
    """A line without quotes is a blank line."""
    result, summary = await run(b'card_number\n""\n\n', target)
    assert result == b'card_number,status,message\n"",ok,\n'
    assert summary.records == 1


@BOTH
async def test_short_and_long_records_fail_named_and_the_file_goes_on(target: object) -> None:
    """Padded or cut to the header's width, so that the result has as many fields in every line."""
    result, summary = await run(b'card_number,b,c\n1,2\n3,4,5\n6,7,8,"9,"\n\n10\r\n', target)
    assert result == (
        b"card_number,b,c,status,message\n"
        b"1,2,,failed,line 2: 2 fields instead of 3\n"
        b"3,4,5,ok,\n"
        b"6,7,8,failed,line 4: 4 fields instead of 3\n"
        b"10,,,failed,line 6: 1 field instead of 3\r\n"
    )
    assert summary == Summary(records=4, ok=1, failed=3)


@BOTH
async def test_text_after_a_closing_quote_fails_that_record(target: object) -> None:
    """It is echoed unchanged; the next record is fine."""
    result, _ = await run(b'card_number,b\n"1"x,2\n3,"4" \n5,"6"\n', target)
    assert result == (
        b"card_number,b,status,message\n"
        b'"1"x,2,failed,line 2: text after a closing quote\n'
        b'3,"4" ,failed,line 3: text after a closing quote\n'
        b'5,"6",ok,\n'
    )


@BOTH
async def test_bytes_that_are_no_text_fail_that_record(target: object) -> None:
    """A character is never cut: whole records are decoded, and the others of the chunk are unharmed."""
    seen: list[str] = []

    async def look(card: Card, _context: JobContext) -> None:
        seen.append(card.columns["b"])

    data = b"card_number,b\n1,\xe9\xff\n2,\xc3\xa9\n3,\xf0\x9f\x92\xb3\n"
    result, _ = await run(data, look if target is fine else target)
    assert result == (
        b"card_number,b,status,message\n"
        b"1,\xe9\xff,failed,line 2: not valid utf-8\n2,\xc3\xa9,ok,\n3,\xf0\x9f\x92\xb3,ok,\n"
    )
    assert seen == (["é", "💳"] if target is fine else [])


async def test_a_file_in_a_one_byte_encoding_is_decoded_for_the_processor_and_echoed_as_it_is() -> None:
    """What the result adds is in that encoding, with ``?`` for what it lacks; undefined bytes fail their record."""

    async def echo(card: Card, _context: JobContext) -> CardResult:
        return CardResult(message=card.columns["name"] + "→")

    settings = CsvSettings(encoding="windows-1252", delimiter=";")
    result, _ = await run(b'card_number;name\n1;"Zo\xeb;\x80"\n2;\x81\n', echo, settings)
    assert result == (
        b'card_number;name;status;message\n1;"Zo\xeb;\x80";ok;"Zo\xeb;\x80?"\n'
        b"2;\x81;failed;line 3: not valid windows-1252\n"
    )


async def test_bad_records_never_reach_the_processor_and_keep_their_numbers() -> None:
    """Record numbers include every record of the file, also across chunks."""
    seen: list[tuple[int, str, str]] = []

    async def look(card: Card, _context: JobContext) -> None:
        seen.append((card.record, card.number, card.idempotency_key))

    await run(b"a,card_number\n1,x\n2\n3,y\n4,z\n5\n6,w\n", look)
    job = job_context().job_guid
    assert sorted(seen) == [
        (n, card, idempotency_key("test", job, n)) for n, card in [(1, "x"), (3, "y"), (4, "z"), (6, "w")]
    ]


async def test_the_columnar_form_gets_the_same_cards() -> None:
    """Every column as strings, and record number, card number and idempotency key besides."""
    seen: list[dict[str, Any]] = []

    class Look(Fine):
        def process_batch(self, batch: pa.RecordBatch, context: JobContext) -> pa.RecordBatch:
            seen.extend(batch.to_pylist())
            return super().process_batch(batch, context)

    await run(b'card_number,b\n"1""",2\n3\n4,5\n6,7\n', Look)
    job = job_context().job_guid
    assert sorted(seen, key=lambda card: int(card["__record"])) == [
        {
            "card_number": card,
            "b": b,
            "__record": record,
            "__card_number": card,
            "__idempotency_key": idempotency_key("test", job, record),
        }
        for record, card, b in [(1, '1"', "2"), (3, "4", "5"), (4, "6", "7")]
    ]


@BOTH
async def test_dropped_columns_are_seen_by_the_processor_and_removed_from_the_result(target: object) -> None:
    """The bytes of the neighbouring columns do not change."""
    seen: list[str] = []

    async def look(card: Card, _context: JobContext) -> None:
        seen.append(card.columns["cvv"])

    result, _ = await run(
        b'pin,card_number,cvv,name\n1,"41",123,"a,b"\n2,42,"4""5",c\r\n', look if target is fine else target
    )
    assert result == b'card_number,name,status,message\n"41","a,b",ok,\n42,c,ok,\r\n'
    assert seen == (["123", '4"5'] if target is fine else [])


async def test_all_columns_may_be_dropped() -> None:
    """Then the result is what it adds."""
    assert (await run(b"card_number\n1\n", settings=CsvSettings(drop_columns=("card_number",))))[
        0
    ] == b"status,message\nok,\n"


@pytest.mark.parametrize(
    ("record", "echoed"),
    [
        (b"4111,Doe,Town,123,9", b"4111,Doe,Town,9,ok,"),
        (b"4111,Doe,123,9", b"4111,Doe,,,failed,line 2: 4 fields instead of 5"),
        (b"4111,123,9", b"4111,,,,failed,line 2: 3 fields instead of 5"),
        (b"4111,Doe,Jr,Town,123,9", b"4111,Doe,Jr,,failed,line 2: 6 fields instead of 5"),
    ],
)
async def test_in_a_record_of_the_wrong_width_whatever_could_be_a_dropped_value_is_left_out(
    record: bytes, echoed: bytes
) -> None:
    """A comma too many or too few moves the verification value under another name."""
    result, _ = await run(b"card_number,name,city,cvv,x\n" + record + b"\n")
    assert result.splitlines()[1] == echoed


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", b"plain"),
        ("a,b", b'"a,b"'),
        ('say "no"', b'"say ""no"""'),
        ("two\nlines", b'"two\nlines"'),
        ("=1+1", b"'=1+1"),
        ("+1", b"'+1"),
        ("-1", b"'-1"),
        ("@x", b"'@x"),
        ("\tx", b"'\tx"),
        ("\r=1", b'"\'\r=1"'),
        ("=a,b", b'"\'=a,b"'),
        ("nul\0", b"nul"),
        ("\ud800", b"?"),
    ],
)
async def test_text_that_the_result_adds_is_quoted_where_needed_and_never_a_formula(text: str, written: bytes) -> None:
    """Messages and own columns alike; input columns are echoed, formulas and all."""

    class Says:
        result_columns = ("own",)

        async def process(self, _card: Card, _context: JobContext) -> CardResult:
            return CardResult("failed", text, {"own": text})

    result, _ = await run(b"card_number\n=1\n", Says)
    assert result == b"card_number,status,message,own\n=1,failed," + written + b"," + written + b"\n"


async def test_a_long_message_is_cut() -> None:
    """It is for a person, and bounds the result."""

    async def talk(_card: Card, _context: JobContext) -> CardResult:
        return CardResult(message="x" * 5000)

    result, _ = await run(b"card_number\n1\n", talk)
    assert result.splitlines()[1].decode() == "1,ok," + "x" * 999 + "…"


async def test_own_columns_stand_in_their_order_under_their_new_names() -> None:
    """A value that a card does not have is empty."""

    class Own:
        result_columns = ("b", "a")

        async def process(self, card: Card, _context: JobContext) -> CardResult:
            return CardResult(columns={"a": "1", "b": "2"} if card.number == "x" else {"a": "3"})

    settings = CsvSettings(rename_result_columns={"a": "card"})
    result, _ = await run(b"card_number,a\nx,0\ny,0\n", Own, settings)
    assert result == b"card_number,a,status,message,b,card\nx,0,ok,,2,1\ny,0,ok,,,3\n"


@pytest.mark.parametrize(
    ("named", "read"),
    [
        (("note", "__card_number", "absent"), ["note", "__record", "__card_number"]),
        (["__idempotency_key"], ["__record", "__idempotency_key"]),
        ((), ["__record"]),
    ],
)
async def test_the_columnar_form_gets_the_columns_that_it_names(named: Sequence[str], read: list[str]) -> None:
    """And the record number, so that it always knows how many cards there are. The file may lack a column."""
    seen: list[pa.RecordBatch] = []

    class Look(Fine):
        input_columns = named

        def process_batch(self, batch: pa.RecordBatch, context: JobContext) -> pa.RecordBatch:
            seen.append(batch)
            return super().process_batch(batch, context)

    result, _ = await run(b"card_number,note\n1,a\n2\n3,b\n", Look)
    assert [batch.schema.names for batch in seen] == [read]
    assert seen[0].column("__record").to_pylist() == [1, 3]
    assert result.count(b",ok,\n") == 2


async def test_an_error_says_nothing_of_columns_that_the_processor_does_not_name() -> None:
    """The processor may know their values from another source, such as an earlier batch."""

    class Remember(Fine):
        input_columns = ("__card_number",)

        def process_batch(self, _batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
            raise PermanentError("no", "no Harriet")

    with pytest.raises(PermanentError) as caught:
        await run(b"card_number,name\n1,Harriet\n", Remember)
    assert caught.value.message == "no [7 letters]"


async def test_a_columnar_processor_may_return_nulls_and_dictionaries_for_text() -> None:
    """A null becomes an empty value."""

    class Nulls:
        result_columns = ("own",)

        def process_batch(self, batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
            result = statuses(["failed", "ok"], own=[None, "=x"])
            columns = [result.column("status").dictionary_encode(), pa.array([None, "m"]), result.column("own")]
            assert batch.num_rows == 2
            return pa.RecordBatch.from_arrays(columns, names=["status", "message", "own"])

    result, summary = await run(b"card_number\n1\n2\n", Nulls)
    assert result == b"card_number,status,message,own\n1,failed,,\n2,ok,m,'=x\n"
    assert summary == Summary(2, 1, 1)


@pytest.mark.parametrize("ends", [(b"\n", b"\n"), (b"\n", b"\r\n")], ids=["equal", "mixed"])
@pytest.mark.parametrize("values", [2, 3000], ids=["few", "many"])
async def test_many_different_values_are_written_like_few(ends: tuple[bytes, bytes], values: int) -> None:
    """Neighbouring columns are put together where they have few values, which must not show."""

    class Own:
        result_columns = ("a", "b")

        async def process(self, card: Card, _context: JobContext) -> CardResult:
            text = str(card.record % values)
            return CardResult("ok" if card.record % 3 else "failed", f"m{text}", {"a": f"a,{text}", "b": text})

    lines = [b"%d" % number for number in range(1, 4001)]
    data = b"card_number\n" + b"".join(line + ends[index % 2] for index, line in enumerate(lines))
    result, _ = await run(data, Own, limits=CsvLimits())
    expected = [b"card_number,status,message,a,b\n"]
    for index, line in enumerate(lines):
        status, value = "ok" if int(line) % 3 else "failed", int(line) % values
        expected += [line, f',{status},m{value},"a,{value}",{value}'.encode(), ends[index % 2]]
    assert result == b"".join(expected)


async def test_a_processor_that_never_waits_lets_others_have_the_loop() -> None:
    """Heartbeats go on while thousands of cards are computed."""
    turns = 0

    async def beat() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    seen: list[int] = []

    async def compute(_card: Card, _context: JobContext) -> None:
        seen.append(turns)

    heart = asyncio.create_task(beat())
    await run(b"card_number\n" + b"1\n" * 500, compute, limits=CsvLimits(), concurrency=1)
    heart.cancel()
    assert len(set(seen)) >= 500 // 64


async def test_without_header_the_result_has_none() -> None:
    """The processor sees numbered columns."""
    seen: list[object] = []

    async def look(card: Card, _context: JobContext) -> None:
        seen.append(dict(card.columns))

    result, _ = await run(b"a,1\nb\n", look, CsvSettings(header=False, card_column="2", drop_columns=()))
    assert result == b"a,1,ok,\nb,,failed,line 2: 1 field instead of 2\n"
    assert seen == [{"column_1": "a", "column_2": "1"}]


@BOTH
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"card_number,b", b"card_number,b,status,message\n"),
        (b"card_number,b\r\n\r\n", b"card_number,b,status,message\r\n"),
    ],
)
async def test_files_without_records_have_a_result_without_records(
    data: bytes, expected: bytes, target: object
) -> None:
    """Whether that is fine is a policy of the job, not of the engine."""
    assert await run(data, target) == (expected, Summary(0, 0, 0))


async def test_a_card_error_fails_that_card_with_its_message() -> None:
    """The other cards are processed."""

    async def refuse(card: Card, _context: JobContext) -> None:
        if card.number == "2":
            raise CardError("no such account")
        if card.number == "3":
            raise CardError

    result, summary = await run(b"card_number\n1\n2\n3\n", refuse)
    assert result == b"card_number,status,message\n1,ok,\n2,failed,no such account\n3,failed,refused\n"
    assert summary == Summary(3, 1, 2)


async def test_a_transient_error_repeats_only_that_card_boundedly() -> None:
    """After the last attempt the card fails, saying how often it was tried."""
    tries: list[str] = []

    async def flaky(card: Card, _context: JobContext) -> None:
        tries.append(card.number)
        if card.number == "2" and tries.count("2") < 3:
            raise TransientCardError("busy")
        if card.number == "3":
            raise TransientCardError("busy")
        if card.number == "4":
            raise TransientCardError

    result, _ = await run(b"card_number\n1\n2\n3\n4\n", flaky, retry={"max_tries": 3})
    assert sorted(tries) == ["1", *["2"] * 3, *["3"] * 3, *["4"] * 3]
    assert result.splitlines()[1:] == [
        b"1,ok,",
        b"2,ok,",
        b"3,failed,busy (after 3 attempts)",
        b"4,failed,no answer (after 3 attempts)",
    ]


async def test_a_transient_error_repeats_a_columnar_batch_boundedly() -> None:
    """Then the cards of that batch fail."""
    tries: list[str] = []

    class Flaky(Fine):
        def process_batch(self, batch: pa.RecordBatch, context: JobContext) -> pa.RecordBatch:
            first = batch.column("card_number")[0].as_py()
            tries.append(first)
            if first == "4" or tries.count(first) < 2:
                raise TransientCardError("busy")
            return super().process_batch(batch, context)

    result, summary = await run(b"card_number\n1\n2\n3\n4\n5\n", Flaky, retry={"max_tries": 2})
    assert sorted(tries) == ["1", "1", "4", "4"]
    assert summary == Summary(5, 3, 2)
    assert result.splitlines()[4:] == [b"4,failed,busy (after 2 attempts)", b"5,failed,busy (after 2 attempts)"]


async def test_pauses_double_up_to_their_limit_and_grant_what_the_other_side_asks() -> None:
    """Each is drawn from the upper half, so that cards do not come back together."""
    pauses: list[float] = []
    wishes = [None, None, None, 0.4, 100.0]

    async def busy(_card: Card, _context: JobContext) -> None:
        raise TransientCardError("busy", retry_after=wishes[len(pauses)] if len(pauses) < 5 else None)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    settings = ProcessorSettings(name="mine", retry={"max_tries": 6, "first_seconds": 1, "max_seconds": 5})
    csv_settings = CsvSettings()
    splitter = Splitter(csv_settings, CsvLimits())
    splitter.feed(b"card_number\n1\n")
    (chunk,) = splitter.finish()
    layout = Layout.of(splitter.header or b"", csv_settings)
    await ChunkEngine(layout, adopt(busy, settings), job_context(), pause=pause).run(chunk)
    assert [0.5 <= pauses[0] <= 1, 1 <= pauses[1] <= 2, 2 <= pauses[2] <= 4, 2.5 <= pauses[3] <= 5] == [True] * 4
    assert pauses[4:] == [5]


SECRET = "4111111111111111"


@pytest.mark.parametrize(
    ("form", "loud"),
    [
        (form, loud)
        for form in (LoudByRow, LoudByBatch, LoudInTask)
        for loud in LOUD
        if (form, loud) != (LoudInTask, "generator exit")  # Python itself forgets where a task of it came from
    ],
)
async def test_whatever_a_processor_raises_fails_the_job_by_its_class_and_line_alone(form: type, loud: str) -> None:
    """Its text, and the values in the frames behind it, may be card data: neither is kept nor chained."""
    with pytest.raises(ProcessorFailed) as caught:
        await run(b"card_number\n" + SECRET.encode() + b"\n", form(loud))
    failed = caught.value
    by_batch = form is LoudByBatch
    kind, where = LOUD[loud].__name__, " in the batch that begins at record 1" if by_batch else ", at record 1"
    assert failed.code == "processor_failed"
    words = rf"Processor mine raised {kind} at support/loud_processors\.py:\d+{where}\."
    assert re.fullmatch(words, failed.message)
    assert failed.fault is not None
    assert "shout" in {frame.function for frame in failed.fault.frames}
    assert SECRET not in "\n".join(failed.fault.traceback()) + repr(failed.fault.lines)
    error: BaseException | None = failed
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        assert isinstance(error, ProcessorFailed)
        error = error.__cause__ or error.__context__


async def test_a_processor_that_cancels_itself_fails_the_job() -> None:
    """Otherwise its card would be missing, and the outcomes behind it belong to other cards."""

    async def cancel(_card: Card, _context: JobContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with pytest.raises(ProcessorFailed, match="cancelled the task that called it"):
        await run(b"card_number\n1\n2\n", cancel)


async def test_a_processor_cannot_stop_the_process_with_our_own_errors() -> None:
    """Only errors about the job pass; a fatal error of a processor must not stop the worker's other jobs."""

    async def stop(_card: Card, _context: JobContext) -> None:
        raise FatalError("mine", SECRET)

    with pytest.raises(
        ProcessorFailed, match=r"raised FatalError at csv_engine/test_engine\.py:\d+, at record 1"
    ) as caught:
        await run(b"card_number\n1\n", stop)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", [PermanentError, TransientError])
@pytest.mark.parametrize("by", ["card", "batch"])
async def test_no_error_about_the_job_carries_a_card_on(kind: type[PermanentError | TransientError], by: str) -> None:
    """Its code becomes a label and an audited reason, its message a receipt and a callback."""

    class ByBatch:
        def process_batch(self, _batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
            raise kind("Card-100001 gone", "100001 is gone, see https://cards.example/100001?sig=planted")

    async def by_card(_card: Card, _context: JobContext) -> None:
        ByBatch().process_batch(pa.record_batch({}), job_context())

    with pytest.raises(kind) as caught:
        await run(b"card_number\n1\n", by_card if by == "card" else ByBatch())
    assert (caught.value.code, caught.value.message) == ("card___gone", "[digits] is gone, see [url]")


async def test_an_error_about_the_job_needs_words() -> None:
    async def stop(_card: Card, _context: JobContext) -> None:
        raise PermanentError("mine", 7)  # type: ignore[arg-type]

    with pytest.raises(ProcessorFailed, match="raised an error whose code or message is not text"):
        await run(b"card_number\n1\n", stop)


async def test_a_card_error_whose_text_cannot_be_read_fails_its_card() -> None:
    class Mute(CardError):
        def __str__(self) -> str:
            raise SystemExit(SECRET)

    class MuteForNow(TransientCardError):
        def __str__(self) -> str:
            raise SystemExit(SECRET)

    async def refuse(card: Card, _context: JobContext) -> None:
        raise Mute if card.record == 1 else MuteForNow("x", retry_after=float("nan"))

    data, summary = await run(b"card_number\n1\n2\n", refuse)
    assert summary.failed == 2
    assert data.splitlines()[1:] == [b"1,failed,refused", b"2,failed,no answer (after 6 attempts)"]


def _row(result: object) -> object:
    async def misbehave(_card: Card, _context: JobContext) -> Any:
        return result

    return misbehave


def _batch(result: object) -> object:
    class Misbehave:
        result_columns = ("own",)

        def process_batch(self, _batch: pa.RecordBatch, _context: JobContext) -> Any:
            return result

    return Misbehave()


@pytest.mark.parametrize(
    ("target", "what"),
    [
        (_row("ok"), "returned str instead of CardResult"),
        (_row(CardResult("fine")), "returned a status that is neither ok nor failed"),  # type: ignore[arg-type]
        (_row(CardResult(["ok"])), "returned a status that is neither ok nor failed"),  # type: ignore[arg-type]
        (_row(CardResult(message=7)), "returned a message or a result column that is no text"),  # type: ignore[arg-type]
        (_row(CardResult(columns={"x": "1"})), "returned a column that its result_columns do not name"),
        (_batch(None), "returned NoneType instead of a RecordBatch"),
        (_batch(statuses(["ok"], own=["x"])), "returned 1 rows for 2 cards"),
        (_batch(statuses(["ok", "ok"])), "returned a batch without exactly one column own"),
        (_batch(statuses(["ok", "OK"], own=["", ""])), "returned a status that is neither ok nor failed"),
        (_batch(statuses(["ok", None], own=["", ""])), "returned a status that is neither ok nor failed"),
        (
            _batch(pa.RecordBatch.from_pydict({"status": ["ok", "ok"], "message": ["", ""], "own": [1, 2]})),
            "returned column own as int64 instead of string",
        ),
    ],
)
async def test_a_processor_that_breaks_its_contract_fails_the_job(target: object, what: str) -> None:
    """The message says what it did, never with which card."""
    with pytest.raises(PermanentError) as caught:
        await run(b"card_number\n1\n2\n", target)
    assert str(caught.value) == f"processor_failed: Processor mine {what}."


@pytest.mark.parametrize("error", [PermanentError("gone", "No such programme."), TransientError("later", "Busy.")])
async def test_errors_about_the_job_pass_through(error: Exception) -> None:
    """A processor may fail the whole job, or have it retried."""

    async def stop(_card: Card, _context: JobContext) -> None:
        raise error

    class Stop(Fine):
        def process_batch(self, _batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
            raise error

    for target in (stop, Stop):
        with pytest.raises(type(error)) as caught:
            await run(b"card_number\n1\n2\n", target)
        assert caught.value is error


async def test_no_more_cards_run_at_once_than_configured() -> None:
    """Per chunk; and one that waits does not hold up the others."""
    running = most = 0

    async def count(_card: Card, _context: JobContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    result, _ = await run(
        b"card_number\n" + b"".join(b"%d\n" % n for n in range(200)), count, limits=CsvLimits(), concurrency=7
    )
    assert most == 7
    assert [line.split(b",")[0] for line in result.splitlines()[1:]] == [b"%d" % n for n in range(200)]


async def test_a_cancelled_run_is_cancelled() -> None:
    """Cancellation is neither swallowed nor taken for a failure of the processor."""
    begun = asyncio.Event()

    async def hang(_card: Card, _context: JobContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run(b"card_number\n1\n", hang))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failing_chunk_stops_those_behind_it() -> None:
    """Nothing of a later chunk is delivered, and nothing is left running."""

    async def fail_first(card: Card, _context: JobContext) -> None:
        if card.number == "1":
            await asyncio.sleep(0)
            raise PermanentError("gone", "No such programme.")
        await asyncio.Event().wait()

    with pytest.raises(PermanentError):
        await run(b"card_number\n1\n2\n3\n4\n", fail_first, limits=CsvLimits(chunk_records=1))
    assert len(asyncio.all_tasks()) == 1


async def test_no_representation_holds_card_data() -> None:
    """What a log line or a traceback shows of an object is its shape."""
    seen: list[str] = []

    async def look(card: Card, _context: JobContext) -> CardResult:
        result = CardResult(columns={"echo": card.number})
        seen.extend([repr(card), repr(result)])
        return CardResult()

    await run(b"card_number\n" + SECRET.encode() + b"\n", look)
    splitter = Splitter(CsvSettings(), CsvLimits())
    splitter.feed(b"card_number\n" + SECRET.encode() + b"\n")
    (chunk,) = splitter.finish()
    layout = Layout.of(splitter.header or b"", CsvSettings())
    result = await ChunkEngine(layout, adopt(fine, ProcessorSettings()), job_context()).run(chunk)
    seen += [repr(chunk), repr(result), repr(parse(chunk, layout)), repr(Lines.of(chunk.data, final=True))]
    assert len(seen) == 6
    assert not any(SECRET in text for text in seen)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str]], bytes, CsvSettings]:
    """Make a table and a valid CSV of it, written by the stdlib in one of many ways."""
    settings = CsvSettings(
        delimiter=draw(st.sampled_from([",", ";", "\t", "|"])),
        encoding=draw(st.sampled_from(["utf-8", "latin-1", "windows-1252"])),
        header=draw(st.booleans()),
        card_column="1",
        drop_columns=(),
    )
    letters = st.characters(codec="ascii", exclude_characters="\0<{[") | st.sampled_from('",;\t|\r\nàß\x0b')
    if settings.encoding == "utf-8":
        letters |= st.sampled_from("\u2028\x85💳")
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(st.text(letters, max_size=6), min_size=width, max_size=width), max_size=12))
    names = [f"n{index}" for index in range(width)]
    text = io.StringIO()
    for row in [names] * settings.header + rows:
        bare_return = any("\r" in field for field in row)  # which the stdlib leaves unquoted before a line feed
        csv.writer(
            text,
            delimiter=settings.delimiter,
            lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
            quoting=csv.QUOTE_ALL if bare_return else draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        ).writerow(row)
        text.write(draw(st.sampled_from(["", "", "", "\n", "\r\n"])))
    data = text.getvalue()
    assume(not separator_line(data.encode()))
    if draw(st.booleans()):
        data = data.removesuffix("\n").removesuffix("\r")
    return rows, data.encode(settings.encoding), settings


@settings(deadline=None)  # a busy machine is no failure
@given(tables(), st.integers(1, 5), st.sampled_from(["rowwise", "columnar"]))
async def test_the_stdlib_reads_the_input_columns_and_the_added_ones_from_the_result(
    table: tuple[list[list[str]], bytes, CsvSettings], chunk_records: int, target: str
) -> None:
    """An independent reader sees the same fields, whatever the quoting, line ends, blank lines and chunks."""
    rows, data, settings = table
    seen: list[list[str]] = []

    class Look(Fine):
        def process_batch(self, batch: pa.RecordBatch, context: JobContext) -> pa.RecordBatch:
            names = [name for name in batch.schema.names if not name.startswith("__")]
            seen.extend([row[name] for name in names] for row in batch.to_pylist())
            return super().process_batch(batch, context)

    async def look(card: Card, _context: JobContext) -> None:
        seen.append(list(card.columns.values()))

    limits = CsvLimits(chunk_records=chunk_records)
    result, summary = await run(data, Look if target == "columnar" else look, settings, limits, concurrency=1)
    read = csv.reader(
        io.StringIO(result.decode(settings.encoding), newline=""), delimiter=settings.delimiter, strict=True
    )
    names = [f"n{index}" for index in range(len(rows[0]))] if rows else []
    header, *records = list(read) if settings.header else [[], *read]
    if settings.header and rows:
        assert header == [*names, "status", "message"]
    assert records == [[*row, "ok", ""] for row in rows]
    assert sorted(seen) == sorted(rows)
    assert summary == Summary(len(rows), len(rows), 0)


class Service:
    """A card service that is down for a while, or for some cards, with what was asked of it."""

    def __init__(self) -> None:
        self.down = False
        self.broken: set[str] = set()
        self.asked: list[int] = []

    async def __call__(self, card: Card, _context: JobContext) -> CardResult:
        self.asked.append(card.record)
        await asyncio.sleep(0)
        if self.down or card.number in self.broken:
            raise TransientCardError("the card service answered 503", unavailable=True)
        return CardResult()


class CircuitBench:
    """An engine with a circuit breaker on a clock of its own."""

    def __init__(self, *, concurrency: int = 2) -> None:
        self.now = 0.0
        self.service = Service()
        self.circuit = Circuits(clock=lambda: self.now).of("acme", "cards")

        async def ask(card: Card, context: JobContext) -> CardResult:
            return await self.service(card, context)

        retry = {"first_seconds": 1e-9, "max_seconds": 1e-9, "max_tries": 6}
        self.processor = adopt(ask, ProcessorSettings(name="mine", retry=retry, concurrency=concurrency))

    async def run(self, cards: int) -> ChunkResult:
        """Process a chunk of so many cards, numbered from 1."""
        csv_settings = CsvSettings()
        splitter = Splitter(csv_settings, CsvLimits())
        splitter.feed(b"card_number\n" + b"".join(b"%d\n" % number for number in range(1, cards + 1)))
        (chunk,) = splitter.finish()
        layout = Layout.of(splitter.header or b"", csv_settings)
        return await ChunkEngine(layout, self.processor, job_context(), circuit=self.circuit).run(chunk)


async def test_a_dead_card_service_fails_no_cards_of_a_long_chunk() -> None:
    """The cards that were begun use up their tries; then the job waits, and nothing of the chunk is decided."""
    bench = CircuitBench()
    bench.service.down = True
    with pytest.raises(CircuitOpen, match="the card service answered 503"):
        await bench.run(100)
    assert set(bench.service.asked) == {1, 2}
    asked = len(bench.service.asked)
    with pytest.raises(CircuitOpen):
        await bench.run(100)
    assert len(bench.service.asked) == asked, "the next chunk is not begun"


async def test_the_words_of_a_processor_open_a_circuit_without_the_card_that_they_name() -> None:
    """They went into the result file only; a circuit repeats them in log lines, receipts and callbacks."""
    bench = CircuitBench()

    async def refuse(_card: Card, _context: JobContext) -> CardResult:
        raise TransientCardError("no answer for 100001\nat https://cards.example/100001?sig=planted", unavailable=True)

    bench.service = refuse  # type: ignore[assignment]
    with capture_logs() as logs, pytest.raises(CircuitOpen, match="no answer for") as caught:
        await bench.run(100)
    (opened,) = [line for line in logs if line["event"] == "circuit_opened"]
    for text in (caught.value.message, opened["message"]):
        assert text.startswith("Card service: no answer for [digits] at [url]")


PLANTED = b'card_number,pin,cvv,name,city\n4111111111111111, 4711 ,987,Ann,"New Ulm"\n'


class Chatty:
    """Repeats its cards in what it raises, by row or by chunk."""

    def __init__(self, kind: type[Exception], *code: str) -> None:
        self.kind, self.code = kind, code

    def complain(self, fields: Sequence[str]) -> NoReturn:
        """Raise an error of the kind."""
        number, card_pin, cvv, name, city = fields
        raise self.kind(*self.code, f"{name} of {city} in Annaberg: card={number}, ({card_pin.strip()}/{cvv}) x{cvv}.")


class ChattyByRow(Chatty):
    async def process(self, card: Card, _context: JobContext) -> CardResult:
        self.complain(list(card.columns.values()))


class ChattyByBatch(Chatty):
    def process_batch(self, batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
        self.complain([column[0].as_py() for column in batch.columns[:5]])


@pytest.mark.parametrize("form", [ChattyByRow, ChattyByBatch])
@pytest.mark.parametrize("kind", [PermanentError, TransientError])
async def test_the_words_of_a_processor_fail_a_job_without_the_fields_of_its_cards(
    form: type[Chatty], kind: type[Exception]
) -> None:
    """Names and short numbers such as PINs are not masked as runs of six digits: only the engine can find them."""
    with pytest.raises(kind) as caught:
        await run(PLANTED, form(kind, "stopped_4711"))
    assert caught.value.code == "stopped__4_digits_"  # type: ignore[attr-defined]
    assert caught.value.message == (  # type: ignore[attr-defined]
        "[3 letters] of [7 letters and blanks] in Annaberg: card=[16 digits], ([4 digits]/[3 digits]) x[3 digits]."
    )


@pytest.mark.parametrize("form", [ChattyByRow, ChattyByBatch])
async def test_a_circuit_opens_without_the_fields_of_the_cards(form: type[Chatty]) -> None:
    """It repeats the last failure in log lines, receipts and callbacks."""
    circuit = Circuits(failures_to_open=1).of("acme", "cards")
    unavailable = partial(TransientCardError, unavailable=True)
    retry = {"first_seconds": 1e-9, "max_seconds": 1e-9, "max_tries": 1}
    loaded = adopt(form(unavailable), ProcessorSettings(name="mine", retry=retry))  # type: ignore[arg-type]
    splitter = Splitter(CsvSettings(), CsvLimits())
    splitter.feed(PLANTED)
    (chunk,) = splitter.finish()
    engine = ChunkEngine(Layout.of(splitter.header or b"", CsvSettings()), loaded, job_context(), circuit=circuit)
    with capture_logs() as logs:
        await engine.run(chunk)
    (opened,) = [line for line in logs if line["event"] == "circuit_opened"]
    assert opened["message"] == (
        "Card service: [3 letters] of [7 letters and blanks] in Annaberg: card=[16 digits], ([4 digits]/[3 digits]) "
        "x[3 digits].."
    )


async def test_one_card_finds_that_the_service_works_again_and_the_others_of_its_job_wait_for_it() -> None:
    bench = CircuitBench(concurrency=8)
    bench.service.down = True
    with pytest.raises(CircuitOpen):
        await bench.run(100)
    bench.now, bench.service.down = 30.0, False
    result = await bench.run(100)
    assert (result.ok, result.failed) == (100, 0)


async def test_a_probe_that_fails_asks_about_one_card() -> None:
    bench = CircuitBench(concurrency=8)
    bench.service.down = True
    with pytest.raises(CircuitOpen):
        await bench.run(100)
    bench.now = 30.0
    bench.service.asked.clear()
    with pytest.raises(CircuitOpen):
        await bench.run(100)
    assert set(bench.service.asked) == {1}


async def test_cards_that_the_service_cannot_handle_fail_one_by_one_and_the_job_goes_on() -> None:
    """Three cards at the end of a chunk open the circuit, because no other card succeeds.

    They still fail one by one.
    """
    bench = CircuitBench(concurrency=3)
    bench.service.broken = {"8", "9", "10"}
    result = await bench.run(10)
    assert (result.ok, result.failed) == (7, 3)
    with pytest.raises(CircuitOpen):
        await bench.run(7)
    bench.now = 30.0
    assert (await bench.run(7)).ok == 7

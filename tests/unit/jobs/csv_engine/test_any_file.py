"""Laws that hold for any bytes: the engine answers with a result or a refusal, and no refusal quotes the file."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from support.csv_files import SETTINGS, hostile_bytes, hostile_files

from pipeline.errors import PermanentError
from pipeline.jobs.csv_engine import CsvLimits, CsvSettings, run_stream
from pipeline.jobs.csv_engine.header import described
from pipeline.jobs.processors import JobContext, ProcessorSettings, adopt
from pipeline.testing import job_context

LIMITS = CsvLimits(chunk_bytes=1024, chunk_records=3, max_field_bytes=200, max_record_bytes=500)


class Fine:
    """Find every card ok."""

    def process_batch(self, batch: pa.RecordBatch, _context: JobContext) -> pa.RecordBatch:
        """Say ok."""
        texts = pa.array([""] * batch.num_rows, pa.string())
        return pa.RecordBatch.from_arrays([pa.array(["ok"] * batch.num_rows), texts], names=["status", "message"])


async def answer(data: bytes, settings: CsvSettings) -> tuple[bytes, int] | PermanentError:
    """Return the result of a file and its number of records, or why it is refused."""
    result: list[bytes] = []

    async def source() -> AsyncIterator[bytes]:
        yield data

    async def keep(piece: bytes) -> None:
        result.append(piece)

    loaded = adopt(Fine, ProcessorSettings(name="mine"))
    try:
        summary = await run_stream(
            source(), keep, settings=settings, limits=LIMITS, processor=loaded, context=job_context()
        )
    except PermanentError as error:
        return error
    return b"".join(result), summary.records


def words(text: str) -> set[str]:
    """The words and numbers of a text of three letters or more."""
    return {word.casefold() for word in re.findall(r"[^\W_]{3,}", text)}


@given(hostile_files(), SETTINGS)
async def test_no_refusal_repeats_a_word_or_number_of_the_file(
    file: tuple[bytes, frozenset[str]], settings: CsvSettings
) -> None:
    """Neither in its text, nor in an error that it is chained to: a traceback would show that."""
    data, planted = file
    error: BaseException | None
    found = await answer(data, settings)
    error = found if isinstance(found, PermanentError) else None
    while error is not None:
        assert words(f"{error} {error.args}") & planted == set()
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@given(hostile_bytes(), SETTINGS)
async def test_any_bytes_are_a_result_or_a_refusal(data: bytes, settings: CsvSettings) -> None:
    """Nothing else is raised, and a result has a line end behind each record."""
    found = await answer(data, settings)
    if isinstance(found, PermanentError):
        assert found.code
        assert found.message
    else:
        result, records = found
        assert result == b"" or result.endswith(b"\n")
        assert result.count(b"\n") >= records


@given(st.text())
def test_a_description_has_the_length_and_kinds_alone(value: str) -> None:
    """A message must never quote the value itself."""
    kinds = r"(?:digits?|letters?|signs?|blanks?|invisible characters?)"
    assert re.fullmatch(rf"empty|{len(value)} {kinds}(?:(?:, {kinds})* and {kinds})?", described(value))

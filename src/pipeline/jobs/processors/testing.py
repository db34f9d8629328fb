"""Runs a processor over a few cards in a test, through the engine of production; see ``pipeline.testing``."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from pipeline.jobs.csv_engine import CsvLimits, CsvSettings, run_stream
from pipeline.jobs.processors import JobContext, LoadedProcessor, ProcessorRetry, ProcessorSettings, adopt, load

__all__ = ["job_context", "run_processor"]

_CSV: Final = CsvSettings()
_NO_PAUSE: Final = 1e-9


def job_context(
    *,
    integration: str = "test",
    job_guid: UUID = UUID("cffde776-1d2a-4614-8023-a5148e411462"),  # noqa: B008 - immutable
    merchant_guid: UUID = UUID("4933e450-d3c4-406f-9b9b-3afb812a5b7c"),  # noqa: B008 - immutable
    partner_reference_id: str = "merchant-1",
    external_location_ids: tuple[str, ...] = ("46691",),
    deadline: datetime = datetime(2100, 1, 1, tzinfo=UTC),
) -> JobContext:
    """Return a job for a processor. Pass only the fields that your test is about."""
    return JobContext(
        integration=integration,
        job_guid=job_guid,
        merchant_guid=merchant_guid,
        partner_reference_id=partner_reference_id,
        external_location_ids=external_location_ids,
        deadline=deadline,
    )


async def run_processor(
    processor: object,
    cards: str | Sequence[Mapping[str, str]],
    *,
    csv_settings: CsvSettings = _CSV,
    context: JobContext | None = None,
    max_tries: int = 3,
    **options: Any,
) -> list[dict[str, str]]:
    """Run a processor over cards; return the rows of the result file, read with the standard library's ``csv``.

    The processor is constructed, opened and closed as in production, but there are no pauses between tries. It gets
    chunks of two cards, so that a test notices state kept between chunks.

    Args:
        processor: A class, a plain async function, an instance, or a name as in the settings.
        cards: A CSV text with header, or one mapping of column names to values per card.
        csv_settings: Format of the file: name the card column here.
        context: The job; see :func:`job_context`.
        max_tries: Total number of tries of a card before it fails.
        **options: The processor's own options.

    Returns:
        One mapping per card: the input columns, ``status``, ``message`` and the processor's result columns, each under
        its name in the result (``column_1`` … for a format without header).

    Raises:
        FatalError: The processor cannot be loaded with these options.
        PermanentError: The processor raised it, or broke its contract (``processor_failed``).
    """
    name = processor if isinstance(processor, str) else getattr(processor, "__name__", type(processor).__name__)
    retry = ProcessorRetry(first_seconds=_NO_PAUSE, max_seconds=_NO_PAUSE, max_tries=max_tries)
    settings = ProcessorSettings(name=name, options=options, retry=retry)
    loaded = load(settings) if isinstance(processor, str) else adopt(processor, settings)
    text = cards if isinstance(cards, str) else _as_csv(cards, csv_settings)
    result: list[bytes] = []

    async def keep(data: bytes) -> None:
        result.append(data)

    async with loaded:
        await run_stream(
            _once(text.encode(csv_settings.encoding)),
            keep,
            settings=csv_settings,
            limits=CsvLimits(chunk_records=2),
            processor=loaded,
            context=context or job_context(),
        )
    return _rows(b"".join(result).decode(csv_settings.encoding), csv_settings, loaded)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _as_csv(cards: Sequence[Mapping[str, str]], settings: CsvSettings) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=settings.delimiter)
    names = list(cards[0]) if cards else []
    if settings.header:
        writer.writerow(names)
    writer.writerows([card[name] for name in names] for card in cards)
    return text.getvalue()


def _rows(text: str, settings: CsvSettings, loaded: LoadedProcessor) -> list[dict[str, str]]:
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=settings.delimiter, strict=True))
    if settings.header:
        names, *rows = rows or [[]]
    else:
        own = [settings.rename_result_columns.get(name, name) for name in loaded.result_columns]
        added = [settings.status_column, settings.message_column, *own]
        width = len(rows[0]) - len(added) if rows else 0
        names = [*(f"column_{number}" for number in range(1, width + 1)), *added]
    return [dict(zip(names, row, strict=True)) for row in rows]

"""One asynchronous function per card: in the engine, and in a loop over the stdlib's ``csv``."""

from __future__ import annotations

import asyncio
import csv
import io
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from benchmarks.process import report
from pipeline.jobs.csv_engine import CsvLimits, CsvSettings, run_stream, use_system_allocator
from pipeline.jobs.csv_engine.identity import idempotency_key
from pipeline.jobs.processors import Card, CardResult, JobContext, ProcessorSettings, adopt

JOB: Final = JobContext("bench", UUID(int=1), UUID(int=2), "bench", (), datetime.now(UTC))
_LENGTH: Final = 16
_DOUBLED: Final = {str(digit): digit * 2 - 9 * (digit > 4) for digit in range(10)}  # noqa: PLR2004 - the digit sum


class Check:
    """Checks length, digits and Luhn of a card, as most processors do first."""

    async def process(self, card: Card, _context: JobContext) -> CardResult:
        """Return the result for the card."""
        number = card.number
        if len(number) != _LENGTH or not number.isdecimal():
            return CardResult("failed", "card number has not 16 digits")
        if (sum(map(int, number[1::2])) + sum(map(_DOUBLED.__getitem__, number[0::2]))) % 10:
            return CardResult("failed", "card number fails its check digit (Luhn)")
        return CardResult()


async def engine(data: bytes) -> bytes:
    """Return the result of the engine, pieces of 1 MiB at a time."""
    result: list[bytes] = []

    async def source() -> AsyncIterator[bytes]:
        for begin in range(0, len(data), 1 << 20):
            yield data[begin : begin + (1 << 20)]

    async def sink(piece: bytes) -> None:
        result.append(piece)

    processor = adopt(Check, ProcessorSettings(name="check"))
    await run_stream(source(), sink, settings=CsvSettings(), limits=CsvLimits(), processor=processor, context=JOB)
    return b"".join(result)


async def loop(data: bytes) -> bytes:
    """Return the result of a loop that calls the function with the same arguments as the engine."""
    result = io.StringIO(newline="")
    reader = csv.DictReader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), strict=True)
    writer = csv.writer(result, lineterminator="\n")
    writer.writerow([*(reader.fieldnames or ()), "status", "message"])
    process, prefix = Check().process, idempotency_key(JOB.integration, JOB.job_guid, 0)[:-12]
    for record, row in enumerate(reader, start=1):
        outcome = await process(Card(record, row["card_number"], row, f"{prefix}{record:012x}"), JOB)
        writer.writerow([*row.values(), outcome.status, outcome.message])
    return result.getvalue().encode()


def main() -> None:
    """Run one of them."""
    use_system_allocator()
    source, target = map(Path, sys.argv[1:3])
    data = source.read_bytes()
    begun, cpu = time.perf_counter(), time.process_time()
    result = asyncio.run({"engine": engine, "loop": loop}[sys.argv[4]](data))
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    if target.exists() and target.read_bytes() != result:
        raise SystemExit("the two results differ")
    target.write_bytes(result)
    report(seconds, cpu)


if __name__ == "__main__":
    main()

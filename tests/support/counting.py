"""A processor for tests that notes each card it is given, so that a test can count what was done twice.

``[ecs.NAME.processor] name = "support.counting:Counting"`` with the options ``file`` and ``seconds``.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel

from pipeline.jobs.processors import Card, CardError, CardResult, JobContext
from pipeline.sandbox import luhn_valid

_SHORTEST = 12
"""Digits of a card number (ISO/IEC 7812-1 allows fewer, issuers do not use them)."""


class Counting:
    """Fails what is no card number. Appends ``<job> <record> <idempotency key>`` to a file before it decides.

    One write per line with O_APPEND: lines of several processes do not mix, and SIGKILL loses none.
    """

    class Options(BaseModel):
        """Where to note the cards, and how long each takes."""

        file: Path
        seconds: float = 0.0

    def __init__(self, options: Options) -> None:
        self._seconds = options.seconds
        self._path = options.file
        self._file = -1

    async def open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def close(self) -> None:
        os.close(self._file)

    async def process(self, card: Card, context: JobContext) -> CardResult:
        os.write(self._file, f"{context.job_guid} {card.record} {card.idempotency_key}\n".encode())
        await asyncio.sleep(self._seconds)
        if not (card.number.isdigit() and len(card.number) >= _SHORTEST and luhn_valid(card.number)):
            raise CardError("not a card number")
        return CardResult()


def seen(path: Path, job: UUID) -> Counter[int]:
    """Return how often each record of a job was given to the processor; its key must be the same each time."""
    counts: Counter[int] = Counter()
    keys: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        guid, record, key = line.split()
        if guid == str(job):
            counts[int(record)] += 1
            assert keys.setdefault(record, key) == key
    return counts

"""A processor for tests that does nothing beyond a record until a test opens the job's gate.

``[ecs.NAME.processor] name = "support.gated:Gated"`` with the options ``folder`` and ``hold_from``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel

from pipeline.jobs.processors import Card, CardResult, JobContext


class Gated:
    """Lets cards through up to ``hold_from``; from that record on it waits until the job's gate is open."""

    class Options(BaseModel):
        """Where the gates are, and which record is the first that waits."""

        folder: Path
        hold_from: int

    def __init__(self, options: Options) -> None:
        self._folder = options.folder
        self._hold_from = options.hold_from

    async def process(self, card: Card, context: JobContext) -> CardResult:
        gate = self._folder / str(context.job_guid)
        while card.record >= self._hold_from and not gate.exists():  # noqa: ASYNC110 - opened by a test
            await asyncio.sleep(0.05)
        return CardResult()


def open_gate(folder: Path, job: UUID) -> None:
    """Let a job's cards through."""
    (folder / str(job)).touch()

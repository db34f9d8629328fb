"""A processor for tests that takes its time for each card.

``[ecs.NAME.processor] name = "support.slow:Slow"`` with the option ``seconds``.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from pipeline.jobs.processors import Card, CardResult, JobContext


class Slow:
    """Waits for each card, one card after the other within a job's chunk."""

    class Options(BaseModel):
        """How long a card takes."""

        seconds: float

    def __init__(self, options: Options) -> None:
        self._seconds = options.seconds

    async def process(self, card: Card, context: JobContext) -> CardResult:
        del card, context
        await asyncio.sleep(self._seconds)
        return CardResult()

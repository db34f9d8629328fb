"""A processor that ends its worker at one job, as a segfault or the kernel's out-of-memory killer does."""

from __future__ import annotations

import os
from typing import Final

from support.counting import Counting

from pipeline.jobs.processors import Card, CardResult, JobContext

DEADLY: Final = "deadly"
"""Reference of a job that kills each worker that processes it."""


class Deadly(Counting):
    """Counts cards. The second card of a deadly job kills the worker."""

    async def process(self, card: Card, context: JobContext) -> CardResult:
        """Count, or die."""
        result = await super().process(card, context)
        if context.partner_reference_id == DEADLY and card.record > 1:
            os._exit(9)
        return result

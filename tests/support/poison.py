"""A processor for tests that some jobs kill: the job's ``partner_reference_id`` says how.

``[ecs.NAME.processor] name = "support.poison:Poison"``.
"""

from __future__ import annotations

import os
from typing import Final

from pipeline.jobs.processors import Card, CardResult, JobContext

EXIT: Final = "poison-exit"
"""The process ends at once, as after a segmentation fault or when the memory is used up."""
SYSTEM_EXIT: Final = "poison-system-exit"
"""The processor asks for the end of the process, with a card on its lips."""


class Poison:
    """Does nothing with a card, unless its job is poison."""

    async def process(self, card: Card, context: JobContext) -> CardResult:
        if context.partner_reference_id == EXIT:
            os._exit(9)
        if context.partner_reference_id == SYSTEM_EXIT:
            raise SystemExit(f"cannot load {card.number}")
        return CardResult()

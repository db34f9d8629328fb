"""A processor for tests that does what no processor should: it logs cards, and dies with one on its lips."""

from __future__ import annotations

import logging

import structlog

from pipeline.jobs.processors import Card, CardResult, JobContext

LOGGED = 5


class Clumsy:
    """Logs the first cards in several ways, then asks for the end of the process, with a whole record as its text."""

    async def process(self, card: Card, context: JobContext) -> CardResult:
        if card.record <= LOGGED:
            logging.getLogger("clumsy").warning("card %s of job %s", card.number, context.job_guid)
            structlog.get_logger("pipeline.clumsy").debug("card_seen", number=card.number, columns=dict(card.columns))
            return CardResult()
        raise SystemExit(f"cannot load {card.number} {dict(card.columns)}")

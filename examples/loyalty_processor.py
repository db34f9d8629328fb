"""An own processor: credit loyalty points to each card, up to a limit. Explained in docs/processors.md."""

from pipeline.jobs.processors import Card, CardError, CardResult, JobContext


class Loyalty:
    """Credits what the column ``points`` says, and tells in the result how much it was."""

    result_columns = ("credited",)

    def __init__(self, limit: int = 1000) -> None:
        """Take the options that the settings give."""
        self.limit = limit

    async def process(self, card: Card, _context: JobContext) -> CardResult:
        """Credit one card. Your service is called here, with ``card.number`` and ``card.idempotency_key``."""
        points = card.columns.get("points", "")
        if not points.isdecimal():
            raise CardError("points is not a whole number")
        return CardResult(columns={"credited": str(min(int(points), self.limit))})

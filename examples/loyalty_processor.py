"""Example of a processor: credit loyalty points to each card, up to a limit. See docs/how-to/write-a-processor.md."""

from pipeline.jobs.processors import Card, CardError, CardResult, JobContext


class Loyalty:
    """Credits the points in the column ``points``, and writes the credited number into the result."""

    result_columns = ("credited",)

    def __init__(self, limit: int = 1000) -> None:
        """Take the options from the settings."""
        self.limit = limit

    async def process(self, card: Card, _context: JobContext) -> CardResult:
        """Credit one card. Call your service here, with ``card.number`` and ``card.idempotency_key``."""
        points = card.columns.get("points", "")
        if not points.isdecimal():
            raise CardError("points is not a whole number")
        return CardResult(columns={"credited": str(min(int(points), self.limit))})

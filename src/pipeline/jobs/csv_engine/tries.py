"""Decides how often cards are tried, and how long the pauses are."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable
from math import isfinite
from typing import Final

from pipeline.jobs.csv_engine.faults import without_values
from pipeline.jobs.processors.protocols import TransientCardError
from pipeline.jobs.processors.settings import ProcessorSettings
from pipeline.jobs.wording import quote
from pipeline.outbound import Call, Circuit, HostUnavailable, Pace


class Tries:
    """Decides whether a card gets another attempt, and waits in between.

    Args:
        settings: Tries and pauses.
        pause: Waits the given seconds.
        circuit: The circuit breaker of the card service.
        pace: How many requests per second the card service gets.
        clock: Returns monotonic seconds.
        retries_left: How many retries of cards are left.

    Attributes:
        settings: The processor's settings.
        pace: The pace of the card service.
        failing: Empty unless a card has failed because of the service since the last success.
        quiet_call: One call for all cards that begin while ``failing`` is empty. They can share it because none is a
            probe.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        pause: Callable[[float], Awaitable[object]],
        circuit: Circuit,
        pace: Pace,
        *,
        clock: Callable[[], float] = time.monotonic,
        retries_left: float = math.inf,
    ) -> None:
        self.settings = settings
        self.pace: Final = pace
        self.failing: Final = circuit.failing
        self.quiet_call: Final = Call(circuit, settings.name, None)
        self._pause = pause
        self._circuit = circuit
        self._clock = clock
        self._retries_left = retries_left

    def of_chunk(self, cards: int) -> Tries:
        """Return an object for one chunk, with the chunk's part of the retries that the job may use."""
        share = self.settings.retry.job_retries_per_card
        if share is None:
            return self
        return Tries(
            self.settings,
            self._pause,
            self._circuit,
            self.pace,
            clock=self._clock,
            retries_left=math.ceil(share * cards),
        )

    async def begin(self) -> Call:
        """Return the call of the card service for one card (columnar: for a batch), when its turn has come.

        An open circuit refuses only new cards. A card that has begun keeps its tries. So if the service cannot handle a
        few cards, they may open the circuit, but they still fail one by one, and the job continues.

        Raises:
            CircuitOpen: The service failed so often that no further card is sent now.
        """
        return await self._circuit.call_after_probe(self.settings.name, self.pace.turn)

    def now(self) -> float:
        """Return the start time of a first try, for :meth:`wait`; 0 if there is no limit on time."""
        return 0.0 if self.settings.retry.card_seconds is None else self._clock()

    async def wait(
        self,
        failures: int,
        error: TransientCardError,
        call: Call,
        fields: Iterable[str],
        *,
        began: float = 0.0,
        cards: int = 1,
    ) -> bool:
        """Wait after a failed call; return False, without waiting, if no try is left, and True when it is its turn.

        If the service asks for a longer pause, it gets one, up to the limit. A shorter one changes nothing: it would
        only use up the tries sooner. If the error mentions fields of the card, only the result file repeats them.

        Args:
            failures: Number of failed tries.
            error: The error of the last one.
            call: The call of the service.
            fields: The fields of the cards.
            began: When the first try began, as :meth:`now` returned it.
            cards: How many cards are tried again.
        """
        if error.unavailable:
            # log lines, receipts and callbacks repeat the circuit's last failure: they must not show the card's fields
            said = quote(without_values(text_of(error), fields)) or "no answer"
            call.failed(HostUnavailable("card_service_unavailable", f"Card service: {said}."))
        retry = self.settings.retry
        asked = min(_seconds(error.retry_after), retry.max_seconds)
        if error.slow_down:
            self.pace.slow_down(asked)
        if failures >= retry.max_tries or self._retries_left < cards:
            return False
        pause = max(retry.policy.pause(failures), asked)
        if retry.card_seconds is not None and self._clock() + pause >= began + retry.card_seconds:
            return False
        self._retries_left -= cards
        await self._pause(pause)
        await self.pace.turn()
        return True

    def given_up(self, error: TransientCardError, tries: int) -> str:
        """Return the message of a card that failed for good after its last try."""
        return f"{text_of(error) or 'no answer'} (after {tries} {'attempt' if tries == 1 else 'attempts'})"


def text_of(error: Exception) -> str:
    """Return the text that a processor gave its error for the result file; empty if it has none."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - the class may be the processor's own
        return ""


def _seconds(asked: object) -> float:
    return float(asked) if isinstance(asked, int | float) and isfinite(asked) else 0.0

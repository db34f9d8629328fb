"""How often cards are tried, and how long is waited in between."""

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
from pipeline.outbound import Call, Circuit, HostUnavailable


class Tries:
    """Decides whether a card gets another attempt, and waits in between.

    Args:
        settings: Tries and pauses.
        pause: Waits the given seconds.
        circuit: The circuit breaker of the card service.
        clock: Returns seconds; they never go back.
        retries_left: How many cards may be tried again.

    Attributes:
        settings: As given.
        failing: Empty while no card has failed because of the service since its last success.
        quiet_call: The call of all cards that begin while ``failing`` is empty: it is no probe, so they may share it.
    """

    def __init__(
        self,
        settings: ProcessorSettings,
        pause: Callable[[float], Awaitable[object]],
        circuit: Circuit,
        *,
        clock: Callable[[], float] = time.monotonic,
        retries_left: float = math.inf,
    ) -> None:
        self.settings = settings
        self.failing: Final = circuit.failing
        self.quiet_call: Final = Call(circuit, settings.name, None)
        self._pause = pause
        self._circuit = circuit
        self._clock = clock
        self._retries_left = retries_left

    def of_chunk(self, cards: int) -> Tries:
        """Return the same for one chunk, with its part of the retries that the job may use."""
        share = self.settings.retry.job_retries_per_card
        if share is None:
            return self
        return Tries(
            self.settings, self._pause, self._circuit, clock=self._clock, retries_left=math.ceil(share * cards)
        )

    async def begin(self) -> Call:
        """Return the call of the service for a card (columnar: a batch).

        An open circuit refuses new cards only. A card that was begun keeps its tries: so a few cards that the service
        cannot handle open the circuit, and yet fail one by one, and the job goes on.

        Raises:
            CircuitOpen: The service failed so often that no further card is sent now.
        """
        return await self._circuit.call_after_probe(self.settings.name)

    def now(self) -> float:
        """Return the time at which a first try begins, for :meth:`wait`; 0 if no time is limited."""
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
        """Wait after so many failures (from 1) of a call; return whether there is another try.

        The other side's wish for a longer pause is granted up to the limit. A shorter one changes nothing: it would
        only use up the tries sooner. What the error says of the card's fields goes into the result alone.

        Args:
            failures: How many tries have failed.
            error: How the last one failed.
            call: The call of the service.
            fields: The fields of the cards.
            began: When the first try began, as :meth:`now` returned it.
            cards: How many cards are tried again.
        """
        if error.unavailable:
            # a circuit repeats its last failure where the result file does not go: log lines, receipts, callbacks
            said = quote(without_values(text_of(error), fields)) or "no answer"
            call.failed(HostUnavailable("card_service_unavailable", f"Card service: {said}."))
        retry = self.settings.retry
        if failures >= retry.max_tries or self._retries_left < cards:
            return False
        pause = max(retry.policy.pause(failures), min(_seconds(error.retry_after), retry.max_seconds))
        if retry.card_seconds is not None and self._clock() + pause >= began + retry.card_seconds:
            return False
        self._retries_left -= cards
        await self._pause(pause)
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

"""How long to wait before the next try: one rule and one set of setting names for everything that is retried.

The pause doubles with every failure up to a bound. It is drawn from the upper half of that step, so that calls that
failed together do not come back together, and none comes back at once. Where the other side asks for a pause
(``Retry-After``), that pause applies instead.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.units import Seconds

_MAX_DOUBLINGS: Final = 64
"""Further doubling reaches no bound that a person would set, and would overflow in the end."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The pauses between the tries of one call.

    Attributes:
        first_seconds: The step after the first failure; the shortest pause that is granted to the other side.
        max_seconds: The largest step.
        jitter: Returns a number from 0 to 1: where in the upper half of the step the pause lies.
    """

    first_seconds: float
    max_seconds: float
    jitter: Callable[[], float] = random.random

    def pause(self, failures: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait before the next try.

        Args:
            failures: How many tries have failed in a row, from 1.
            retry_after: Seconds that the other side asks to wait, or None. It may exceed ``max_seconds``: the
                code that reads the answer bounds it.
        """
        if retry_after is not None:
            return max(retry_after, self.first_seconds)
        step = min(self.first_seconds * 2.0 ** min(failures - 1, _MAX_DOUBLINGS), self.max_seconds)
        return step * (0.5 + self.jitter() / 2)


FirstSeconds = Annotated[
    Seconds,
    Field(
        gt=0,
        description=(
            "Longest pause before the second try; doubled for each further try, with jitter. Lower it where faults "
            "pass quickly"
        ),
    ),
]
MaxSeconds = Annotated[
    Seconds,
    Field(
        gt=0,
        description=(
            "Longest pause between two tries, unless the other side asks for more. Lower it to continue sooner after "
            "an outage, raise it to spare the other side"
        ),
    ),
]


class RetrySettings(BaseModel):
    """How long to wait between two tries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_seconds: FirstSeconds = 1.0
    max_seconds: MaxSeconds = 60.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first_seconds > self.max_seconds:
            raise ValueError("first_seconds must not exceed max_seconds")
        return self

    @property
    def policy(self) -> RetryPolicy:
        """The policy with these bounds."""
        return RetryPolicy(self.first_seconds, self.max_seconds)

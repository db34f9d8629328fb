"""The pause before the next try: one rule and one set of setting names for all retries.

The step doubles with each failure, up to a bound. The pause is a random number in the upper half of the step. So calls
that failed together do not retry together, and none retries at once. If the other side requests a pause
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
"""Maximum number of doublings, so that the step cannot overflow. Every realistic bound is reached earlier."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The pauses between the tries of one call.

    Attributes:
        first_seconds: The step after the first failure, and the minimum pause if the other side requests one.
        max_seconds: The largest step.
        jitter: Returns a number from 0 to 1: the position of the pause in the upper half of the step.
    """

    first_seconds: float
    max_seconds: float
    jitter: Callable[[], float] = random.random

    def pause(self, failures: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait before the next try.

        Args:
            failures: Number of tries that failed in a row, at least 1.
            retry_after: Seconds that the other side requests, or None. It may exceed ``max_seconds``, because the
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
    """The pauses between tries."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

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

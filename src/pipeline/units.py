"""Types of numeric settings. Each type names its unit, for checks, messages and the reference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

_NUMBER_AND_SUFFIX: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")
_SECONDS_IN: Final = {
    "ms": 0.001,
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
}
_BYTES_IN: Final = {
    **dict.fromkeys(("b", "byte", "bytes"), 1),
    "k": 1000,
    "kb": 1000,
    "kib": 1 << 10,
    "m": 1000**2,
    "mb": 1000**2,
    "mib": 1 << 20,
    "g": 1000**3,
    "gb": 1000**3,
    "gib": 1 << 30,
}


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a number.

    Attributes:
        name: As written after a number, e.g. ``seconds``; empty for numbers without a unit.
        suffixes: Number of base units (seconds, bytes) for each known suffix; compared in lower case.
        size: Number of base units in one of this unit.
    """

    name: str
    suffixes: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)
    size: float = 1

    def number_in(self, text: str) -> int | float | None:
        """Convert a number with a suffix (``10s``, ``5MB``) to this unit; return None for any other text."""
        found = _NUMBER_AND_SUFFIX.fullmatch(text)
        factor = self.suffixes.get(found.group(2).lower()) if found else None
        if found is None or factor is None:
            return None
        number = float(found.group(1)) * factor / self.size
        return int(number) if number == int(number) else round(number, 6)


BOOLEAN_FOR_NUMBER: Final = "boolean_for_number"
"""Type of the validation error for ``true`` or ``false`` instead of a number."""


def _no_boolean(value: object) -> object:
    # in Python a boolean is an int: without this check, `port = true` would mean port 1
    if isinstance(value, bool):
        raise PydanticCustomError(BOOLEAN_FOR_NUMBER, "a number is needed")
    return value


_SECONDS: Final = Unit("seconds", _SECONDS_IN)
_DAYS: Final = Unit("days", _SECONDS_IN, 86_400)

_Whole = Annotated[int, BeforeValidator(_no_boolean)]
_Decimal = Annotated[float, BeforeValidator(_no_boolean), Field(allow_inf_nan=False)]

Seconds = Annotated[_Decimal, _SECONDS]
WholeSeconds = Annotated[_Whole, _SECONDS]
Hours = Annotated[_Decimal, Unit("hours", _SECONDS_IN, 3600)]
Days = Annotated[_Decimal, _DAYS]
WholeDays = Annotated[_Whole, _DAYS]
Bytes = Annotated[_Whole, Unit("bytes", _BYTES_IN)]
BytesPerSecond = Annotated[_Whole, Unit("bytes per second", _BYTES_IN)]
Count = Annotated[_Whole, Unit("")]
Number = Annotated[_Decimal, Unit("")]
Share = Annotated[_Decimal, Unit(""), Field(ge=0, le=1)]
Port = Annotated[_Whole, Unit(""), Field(ge=0, le=65_535)]

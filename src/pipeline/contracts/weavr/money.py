"""Money, and exact numbers with a scale."""

from __future__ import annotations

from decimal import Decimal

from pydantic import Field

from pipeline.contracts.weavr.event import WeavrObject
from pipeline.contracts.weavr.wire import Amount, Currency, Integer, Scale


class Money(WeavrObject):
    """An amount in minor units of a currency: 1050 in EUR is 10.50 euros."""

    currency: Currency
    minor_units: Amount = Field(alias="amount")


class ScaledAmount(WeavrObject):
    """A decimal number: ``value`` times ten to the power of minus ``scale``."""

    value: Integer | None = None
    scale: Scale | None = None

    @property
    def exact(self) -> Decimal | None:
        """The exact number; None without a value. A missing scale is 0."""
        if self.value is None:
            return None
        digits = tuple(map(int, str(abs(self.value))))
        return Decimal((int(self.value < 0), digits, -(self.scale or 0)))

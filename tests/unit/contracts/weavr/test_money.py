"""Money and scaled numbers: exact, whatever the wire form."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pipeline.contracts.weavr import Money, ScaledAmount


@pytest.mark.parametrize("amount", ["-1050", -1050])
def test_money_has_minor_units_of_a_currency(amount: str | int) -> None:
    money = Money.model_validate({"currency": "EUR", "amount": amount})
    assert (money.currency, money.minor_units) == ("EUR", -1050)
    assert money.as_received() == {"currency": "EUR", "amount": amount}


def test_money_in_two_forms_is_equal() -> None:
    assert Money.model_validate({"currency": "EUR", "amount": "1"}) == Money.model_validate(
        {"currency": "EUR", "amount": 1}
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"value": "11050", "scale": 4}, Decimal("1.1050")),
        ({"value": -9223372036854775808, "scale": 19}, Decimal("-0.9223372036854775808")),
        ({"value": "9" * 38, "scale": "127"}, Decimal("9" * 38 + "E-127")),
        ({"value": 12, "scale": -3}, Decimal("12E+3")),
        ({"value": 12}, Decimal(12)),
        ({"value": 0, "scale": None}, Decimal(0)),
    ],
)
def test_a_scaled_number_is_exact(body: dict[str, object], expected: Decimal) -> None:
    """Also with more digits than a decimal context keeps."""
    number = ScaledAmount.model_validate(body)
    assert number.exact is not None
    assert number.exact.as_tuple() == expected.as_tuple()


def test_without_a_value_there_is_no_number() -> None:
    assert ScaledAmount.model_validate({"scale": 2}).exact is None

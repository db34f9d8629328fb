"""The built-in rules: which are broken first, and that messages hold no value."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import FatalError, PermanentError
from pipeline.jobs.csv_engine import CsvSettings
from pipeline.testing import run_processor

GOOD = "4111111111111111"


async def messages(*numbers: str, **options: Any) -> list[str]:
    """Return each card's message, "" where it is ok."""
    rows = await run_processor("validate", [{"card_number": number, "x": "1"} for number in numbers], **options)
    for row in rows:
        assert (row["status"] == "ok") == (row["message"] == "")
        assert not row["card_number"] or row["card_number"] not in row["message"]
    return [row["message"] for row in rows]


async def test_default_rules_are_digits_length_and_check_digit() -> None:
    """The first broken rule is named."""
    assert await messages(GOOD, "", "4111 1111 1111 1111", "42", "4" * 20, "4111111111111112", "٤" * 16) == [
        "",
        "card number is missing",
        "card number has characters other than digits",
        "card number must have 12 to 19 characters",
        "card number must have 12 to 19 characters",
        "card number fails its check digit (Luhn)",
        "card number has characters other than digits",
    ]


async def test_the_check_digit_can_be_left_out() -> None:
    """Gift cards often have none."""
    assert await messages("4111111111111112", luhn=False) == [""]


async def test_letters_can_be_allowed_where_there_is_no_check_digit() -> None:
    """Lengths count characters, not bytes."""
    assert await messages("ÄBC-1", "ABC-12", luhn=False, digits_only=False, min_length=5, max_length=5) == [
        "",
        "card number must have 5 to 5 characters",
    ]


async def test_prefixes_limit_the_issuers() -> None:
    """A number with any of the prefixes is accepted."""
    assert await messages(GOOD, "5555555555554444", "378282246310005", prefixes=["4", "37"]) == [
        "",
        "card number begins with none of the allowed prefixes",
        "",
    ]


async def test_other_columns_have_rules_of_their_own() -> None:
    """An empty value breaks only ``required``."""
    rules = {
        "name": {"required": True, "max_length": 5},
        "currency": {"pattern": "[A-Z]{3}"},
        "kind": {"one_of": ["gold", "silver"]},
    }
    cards = [
        {"card_number": GOOD, "name": "Zoé", "currency": "EUR", "kind": "gold"},
        {"card_number": GOOD, "name": "Zoé", "currency": "", "kind": ""},
        {"card_number": GOOD, "name": "", "currency": "EUR", "kind": "gold"},
        {"card_number": GOOD, "name": "Zoé Doe", "currency": "EUR", "kind": "gold"},
        {"card_number": GOOD, "name": "Zoé", "currency": "EURO", "kind": "gold"},
        {"card_number": GOOD, "name": "Zoé", "currency": "EUR\n", "kind": "gold"},
        {"card_number": GOOD, "name": "Zoé", "currency": "EUR", "kind": "tin"},
        {"card_number": "1", "name": "", "currency": "E", "kind": "tin"},
    ]
    assert [row["message"] for row in await run_processor("validate", cards, columns=rules)] == [
        "",
        "",
        "name is missing",
        "name has more than 5 characters",
        "currency does not have the required form",
        "currency does not have the required form",
        "kind is not one of the allowed values",
        "card number must have 12 to 19 characters",
    ]


async def test_a_rule_for_a_missing_column_fails_the_job() -> None:
    """A typo in the settings must not pass as fine."""
    with pytest.raises(PermanentError, match="validate_column_missing"):
        await messages(GOOD, columns={"nmae": {"required": True}})


async def test_the_card_column_is_the_configured_one() -> None:
    settings = CsvSettings(header=False, card_column="2", drop_columns=())
    rows = await run_processor("validate", f"1,{GOOD}\n", csv_settings=settings)
    assert rows == [{"column_1": "1", "column_2": GOOD, "status": "ok", "message": ""}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_lenght": 3}, "min_lenght: is not an option; there are columns, digits_only, luhn, "),
        ({"min_length": "x"}, "min_length: "),
        ({"min_length": 20}, "min_length is greater than max_length"),
        ({"digits_only": False}, "luhn needs digits_only"),
        ({"columns": {"a": {"pattern": "["}}}, "columns.a: pattern is not a regular expression"),
        ({"prefixes": [""]}, "prefixes.0: "),
    ],
)
async def test_wrong_options_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    """With what to write, before any card."""
    with pytest.raises(FatalError) as caught:
        await messages(GOOD, **options)
    assert caught.value.code == "processor_options"
    assert said in caught.value.message

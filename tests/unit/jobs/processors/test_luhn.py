"""The Luhn formula over a column, against the formula digit by digit."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.jobs.processors.luhn import digits_and_luhn


def plain(number: str) -> bool:
    """Return whether the check digit is right, computed as the standard describes it."""
    total = 0
    for distance, letter in enumerate(reversed(number)):
        digit = int(letter) * (1 + distance % 2)
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


_DIGITS = st.text("0123456789", max_size=24)
_LONG = st.builds(lambda text, times, end: text * times + end, _DIGITS, st.integers(10, 200), st.text(max_size=2))
"""Values of hundreds and thousands of letters, beside which the others must stay as they are."""


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(_DIGITS | st.text(max_size=20) | _LONG, max_size=30), st.integers(0, 5))
def test_a_column_gets_the_same_answer_as_its_values(numbers: list[str], skipped: int) -> None:
    """For any lengths and letters, and any start of the column in its buffer."""
    digits, right = digits_and_luhn(pa.array(numbers, pa.string()).slice(skipped))
    wanted = [all("0" <= letter <= "9" for letter in number) for number in numbers[skipped:]]
    assert digits.tolist() == wanted
    assert right.tolist() == [
        bool(number) and fine and plain(number) for number, fine in zip(numbers[skipped:], wanted, strict=True)
    ]


@pytest.mark.parametrize(
    "number", ["4111111111111111", "5555555555554444", "378282246310005", "0" * 16, "9" * 160 + "0"]
)
def test_known_numbers_are_right(number: str) -> None:
    """Test numbers of the card brands, zeros, and sums beyond one byte."""
    _, right = digits_and_luhn(pa.array([number]))
    assert right.tolist() == [plain(number)]


def test_a_check_digit_finds_every_wrong_digit() -> None:
    number = "4111111111111111"
    wrong = [number[:i] + d + number[i + 1 :] for i in range(16) for d in "0123456789" if d != number[i]]
    assert not digits_and_luhn(pa.array(wrong))[1].any()


def test_one_long_value_costs_no_pass_over_all_others_for_each_of_its_letters() -> None:
    """A file may have a field of 64 KiB in each of its chunks."""
    column = pa.array(["4111111111111111"] * 9_999 + ["1" * 65_536])
    began = time.process_time()
    digits, right = digits_and_luhn(column)
    assert time.process_time() - began < 0.5
    assert digits.all()
    assert right.sum() == 9_999 + plain("1" * 65_536)

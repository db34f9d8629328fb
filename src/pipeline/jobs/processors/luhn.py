"""Checks digits and the Luhn formula (ISO/IEC 7812-1, annex B) for a whole column at once."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_LONG: Final = 256
"""A longer value is checked separately, because each eight letters would cost a pass over all values."""
_LETTERS: Final = 8
"""Letters per word. A word is an integer of 64 bits, and the last letter is its highest byte."""

_WORD: Final = np.dtype("<u8")
_ZEROS: Final = np.uint64(0x3030303030303030)
_HIGH_BITS: Final = np.uint64(0x8080808080808080)
_MORE_THAN_NINE: Final = np.uint64(0x7676767676767676)
"""Adding it sets the high bit of each byte above nine."""
_EVERY_SECOND: Final = np.uint64(0x00FF00FF00FF00FF)
_MORE_THAN_FOUR: Final = np.uint64(0x007B007B007B007B)
"""Adding it sets bit 7 of each pair of bytes above four."""
_ONES: Final = np.uint64(0x0001000100010001)
_OWN: Final = np.array([(1 << 64) - (1 << 8 * (_LETTERS - letters)) for letters in range(_LETTERS + 1)], np.uint64)
"""Masks of the last N letters of a word, by N."""


def digits_and_luhn(numbers: pa.StringArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return, for each value, whether it has only digits, and whether its check digit is right too.

    It reads eight letters of each value at a time, starting at the end. That takes about twenty vector operations per
    eight letters of the longest value up to 256 letters. An empty value has only digits, but not a right check digit.
    """
    rows = len(numbers)
    if not rows:
        return np.zeros(0, np.bool_), np.zeros(0, np.bool_)
    _, offset_buffer, data_buffer = numbers.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, count=rows + 1, offset=4 * numbers.offset)
    lengths = np.diff(offsets)
    long = np.flatnonzero(lengths > _LONG)
    lengths[long] = 0
    words = -(-int(lengths.max()) // _LETTERS)
    others, pairs = np.zeros(rows, np.uint64), np.zeros(rows, np.uint64)
    if words:
        values = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
        # padding before the first value, so that each word is inside the array
        room = words * _LETTERS
        letters = np.concatenate((np.zeros(room, np.uint8), values))
        ends = offsets[1:] + (room - int(offsets[0]))
        alike = (lengths == lengths[0]).all()
        for number in range(1, words + 1):
            if alike:  # the values have equal distances: a strided view costs a tenth of an indexed one
                word = np.ndarray((rows,), _WORD, letters, int(ends[0]) - number * _LETTERS, (int(lengths[0]),))
            else:
                every = np.ndarray((letters.size - _LETTERS + 1,), _WORD, letters, strides=(1,))
                word = every[ends - number * _LETTERS]
            digits = _digits(word, lengths - (number - 1) * _LETTERS)
            others |= (digits + _MORE_THAN_NINE) | digits
            pairs += _luhn_pairs(digits)
    only_digits = others & _HIGH_BITS == 0
    sums = ((pairs * _ONES) >> 48).astype(np.uint16)  # multiplied, the four pairs add up in the highest one
    right = only_digits & (sums % 10 == 0) & (lengths > 0)
    for row in long.tolist():
        only_digits[row], right[row] = _check(np.frombuffer(data_buffer, np.uint8)[offsets[row] : offsets[row + 1]])
    return only_digits, right


def _check(letters: NDArray[np.uint8]) -> tuple[bool, bool]:
    """Return the same for one value that is not empty."""
    digits = letters[::-1] - np.uint8(ord("0"))  # letters below "0" wrap around to large numbers
    if digits.max() > 9:  # noqa: PLR2004 - not a digit
        return False, False
    doubled = digits[1::2] * 2
    nines = np.count_nonzero(doubled > 9)  # noqa: PLR2004 - the digits of 18 are 1 + 8: nine less
    return True, bool((digits[0::2].sum() + doubled.sum() - 9 * nines) % 10 == 0)


def _digits(word: Words, letters: NDArray[np.int32]) -> Words:
    """Return the values of a word's digits: 0 outside the value, above 9 for letters that are not digits."""
    digits = word ^ _ZEROS
    if letters.min() < _LETTERS:
        digits &= _OWN[np.clip(letters, 0, _LETTERS)]
    return digits


def _luhn_pairs(digits: Words) -> Words:
    """Return the Luhn sum of each pair of digits: the right digit plus the digits of twice the left one."""
    doubled = digits & _EVERY_SECOND
    nines = ((doubled + _MORE_THAN_FOUR) >> 7) & _ONES  # the digits of 18 are 1 + 8: nine less
    pairs: Words = ((digits >> 8) & _EVERY_SECOND) + doubled + doubled - nines * np.uint64(9)
    return pairs

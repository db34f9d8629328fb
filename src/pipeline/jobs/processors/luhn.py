"""Digits and the Luhn formula (ISO/IEC 7812-1, annex B) over a whole column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_ZERO = ord("0")


def digits_and_luhn(numbers: pa.StringArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each value whether it is digits only, and whether in addition its last digit is right.

    Values of equal length form one matrix, so the work is a few vector operations per digit position. An empty value
    has digits only and no right check digit.
    """
    rows = len(numbers)
    _, offset_buffer, data_buffer = numbers.buffers()
    offsets = (
        np.frombuffer(offset_buffer, np.int32, count=rows + 1, offset=4 * numbers.offset)
        if rows
        else np.zeros(1, np.int32)
    )
    data = (
        np.frombuffer(data_buffer, np.uint8) if data_buffer is not None and data_buffer.size else np.zeros(0, np.uint8)
    )
    lengths = np.diff(offsets)
    digits, right = np.ones(rows, np.bool_), np.zeros(rows, np.bool_)
    for length in np.unique(lengths).tolist():
        if length == 0:
            continue
        which = lengths == length
        if which.all():
            matrix = data[offsets[0] : offsets[-1]].reshape(rows, length)
        else:
            matrix = data[offsets[:-1][which][:, np.newaxis] + np.arange(length)]
        digits[which], right[which] = _check(matrix)
    return digits, right


def _check(matrix: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    positions = np.ascontiguousarray(matrix.T) - np.uint8(_ZERO)
    digits: NDArray[np.bool_] = np.all(positions <= 9, axis=0)  # noqa: PLR2004 - letters below "0" wrap around to great numbers
    total = np.zeros(matrix.shape[0], np.uint16)
    for distance, position in enumerate(positions[::-1]):
        total += position if distance % 2 == 0 else position * 2 - np.uint8(9) * (position > 4)  # noqa: PLR2004
    return digits, digits & (total % 10 == 0)

"""Where things are in raw CSV bytes: vectorised, without decoding and without a loop over bytes.

The one law: a quote switches between inside and outside, doubled quotes switch twice. A byte is *outside* when
the number of quotes before it, counted from the beginning of its record, is even.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

QUOTE: Final = ord('"')
LF: Final = ord("\n")
CR: Final = ord("\r")

Positions = NDArray[np.int64]
"""Ascending byte offsets."""

Flags = NDArray[np.bool_]

NONE: Final[Positions] = np.empty(0, np.int64)


def bytes_of(data: bytes) -> NDArray[np.uint8]:
    """Return the bytes as an array, without copying."""
    return np.frombuffer(data, np.uint8)


def find(data: bytes, byte: int) -> Positions:
    """Return where ``byte`` stands."""
    if data.find(byte) < 0:
        return NONE
    return np.flatnonzero(bytes_of(data) == byte).astype(np.int64, copy=False)


def outside(positions: Positions, quotes: Positions) -> Positions:
    """Return those positions that no quote encloses; both are counted from the same record's beginning."""
    if not quotes.size or not positions.size:
        return positions
    free: Flags = np.searchsorted(quotes, positions) & 1 == 0
    return positions[free]


def first(positions: Positions, flags: Flags) -> int | None:
    """Return the first flagged position."""
    index = int(flags.argmax()) if flags.size else 0
    return int(positions[index]) if flags.size and flags[index] else None


def stray_quote(data: bytes, quotes: Positions, delimiter: int) -> int | None:
    """Return the first quote that opens neither at the beginning of a field nor right after a closing one (doubled)."""
    opening = quotes[0::2]
    before = bytes_of(data)[np.maximum(opening - 1, 0)]
    fine: Flags = (before == delimiter) | (before == LF) | (before == QUOTE) | (opening == 0)
    return first(opening, ~fine)


def text_after_quote(data: bytes, quotes: Positions, delimiter: int) -> Positions:
    """Return the closing quotes that neither a delimiter, a line end, a quote nor the end of ``data`` follows."""
    closing = quotes[1::2]
    closing = closing[closing + 1 < len(data)]
    after = bytes_of(data)[closing + 1]
    fine: Flags = (after == delimiter) | (after == LF) | (after == CR) | (after == QUOTE)
    return closing[~fine]


def lone_carriage_return(data: bytes, quotes: Positions, *, final: bool) -> int | None:
    """Return the first CR outside quotes that no LF follows; one at the very end counts only when it is ``final``."""
    returns = find(data, CR)
    if not final:
        returns = returns[returns + 1 < len(data)]
    after = bytes_of(data)[np.minimum(returns + 1, len(data) - 1)]
    lone = outside(returns[after != LF], quotes)
    return int(lone[0]) if lone.size else None

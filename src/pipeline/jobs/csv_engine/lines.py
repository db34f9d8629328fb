"""The lines of a piece of CSV: where each begins and ends, quotes considered."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.jobs.csv_engine import scanning
from pipeline.jobs.csv_engine.scanning import CR, LF, QUOTE, Flags, Positions


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines of ``data``, which begins at a record's beginning. A record is a line that is not blank.

    Attributes:
        data: The bytes; behind the last whole line an unfinished one may stand.
        quotes: Where quotes are.
        feeds: Where line feeds are, those inside quotes included.
        starts: Where each whole line begins.
        ends: Where each whole line ends, its line end included.
        stops: Where the content of each whole line ends, its line end excluded.
        blank: Which whole lines have no content.
    """

    data: bytes = field(repr=False)
    quotes: Positions
    feeds: Positions
    starts: Positions
    ends: Positions
    stops: Positions
    blank: Flags

    @classmethod
    def of(cls, data: bytes, *, final: bool) -> Lines:
        """Find the lines; with ``final`` the last needs no line end."""
        quotes = scanning.find(data, QUOTE)
        feeds = scanning.find(data, LF)
        ends = scanning.outside(feeds, quotes) + 1
        if final and not quotes.size & 1 and len(data) > (ends[-1] if ends.size else 0):
            ends = np.append(ends, len(data))
        starts = np.concatenate((scanning.NONE if not ends.size else np.zeros(1, np.int64), ends[:-1]))
        stops = _stops(data, starts, ends)
        return cls(data, quotes, feeds, starts, ends, stops, np.equal(starts, stops))

    def before(self, offset: int) -> int:
        """Return the number of line feeds before ``offset``."""
        return int(np.searchsorted(self.feeds, offset))


def _stops(data: bytes, starts: Positions, ends: Positions) -> Positions:
    if not ends.size:
        return ends
    array = scanning.bytes_of(data)
    fed = array[ends - 1] == LF
    stops: Positions = ends - fed
    if b"\r" in data:
        stops -= fed & (stops > starts) & (array[np.maximum(stops - 1, 0)] == CR)
    return stops

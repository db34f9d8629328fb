"""Secrets that a test plants, and the search for them in all texts that a system has written."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

WINDOW: Final = 12
"""So many of 16 digits are as good as the whole card number."""

_LONG: Final = re.compile(rb"[0-9A-Z](?:[ -]?[0-9A-Z]){%d,}" % (WINDOW - 1))
_SIX: Final = re.compile(rb"(?<![0-9A-Za-z.])1[0-9]{5}(?![0-9A-Za-z])")
_SEPARATORS: Final = re.compile(rb"[ -]")

PIN_PATTERN: Final = re.compile(rb"3141[0-9]{5}")
CVV_PATTERN: Final = re.compile(rb"Cv[0-9]{4}x")


@dataclass
class Plants:
    """What was planted, by kind.

    Attributes:
        cards: Card numbers of 13 digits or more.
        six_digit_cards: Numbers such as 100001; they count where they stand alone, not as part of a word or a fraction.
        card_data: Values of columns that must not be kept at all, as ``pin`` and ``cvv`` make them.
        secrets: Tokens, webhook secrets: texts that only their files hold.
        urls: What makes URLs bearer secrets: only the records and objects of announcements may hold it.
    """

    cards: set[bytes] = field(default_factory=set)
    six_digit_cards: set[bytes] = field(default_factory=set)
    card_data: set[bytes] = field(default_factory=set)
    secrets: dict[str, bytes] = field(default_factory=dict)
    urls: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._windows: dict[bytes, bytes] = {}

    def add_cards(self, numbers: Iterable[str]) -> None:
        """Plant card numbers, each by its length; shorter ones than six digits are none."""
        for number in (text.encode() for text in numbers):
            if len(number) > WINDOW:
                self.cards.add(number)
                self._windows |= dict.fromkeys(_windows(number), number)
            elif len(number) == len("100001") and number.isdigit():
                self.six_digit_cards.add(number)

    def found(self, data: bytes, *, allowed: Collection[str] = ()) -> dict[str, set[bytes]]:
        """Return the planted values in ``data``, by kind, without the kinds that are allowed there."""
        kinds = {
            "card": {self._windows[window] for window in self._candidates(data)},
            "six-digit card": self.six_digit_cards.intersection(_SIX.findall(data)),
            "card data": self.card_data.intersection(PIN_PATTERN.findall(data) + CVV_PATTERN.findall(data)),
            "secret": {name.encode() for name, value in self.secrets.items() if value in data},
            "url": {url for url in self.urls if url in data},
        }
        return {kind: hits for kind, hits in kinds.items() if hits and kind not in allowed}

    def _candidates(self, data: bytes) -> Iterator[bytes]:
        for run in _LONG.findall(data):
            for window in _windows(_SEPARATORS.sub(b"", run)):
                if window in self._windows:
                    yield window


def _windows(text: bytes) -> Iterator[bytes]:
    return (text[start : start + WINDOW] for start in range(len(text) - WINDOW + 1))


def pin(record: int) -> str:
    """Return a PIN that is found again: no other number begins like it."""
    return f"3141{record:05d}"


def cvv(record: int) -> str:
    """Return a verification value that no pattern of a log's masking knows, so that only its absence hides it."""
    return f"Cv{record:04d}x"

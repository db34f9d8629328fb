"""Texts that go to a partner or come from one: one line, masked, cut."""

from __future__ import annotations

import re
from typing import Final

from pipeline.observability import FOREIGN_DIGITS, drop_urls, mask_text

DETAIL_LIMIT: Final = 300
"""Longest excerpt of a partner's words in a log or receipt, in characters."""

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\s]+")
_ASTRAL: Final = re.compile(r"[\U00010000-\U0010ffff]")
_ELLIPSIS: Final = "…"


def shorten(text: str, limit: int) -> str:
    """Return one line of at most ``limit`` characters, cut between two words, masked and without any URL.

    Where the last word takes more than half of it, it is cut inside. Characters beyond the Basic Multilingual Plane
    become U+FFFD, so that those who count UTF-16 units count the same.

    Args:
        text: Our own words on what went wrong.
        limit: At least 1.
    """
    return _cut(mask_text(drop_urls(text)), limit)


def quote(text: str, limit: int = DETAIL_LIMIT) -> str:
    """Return a partner's words in a form that may be logged and stored.

    As :func:`shorten`, and with runs of six or more digits masked. They are untrusted: a partner may echo a card, a
    token or a URL, or write line ends to forge a log line.
    """
    return _cut(mask_text(drop_urls(text), digits=FOREIGN_DIGITS), limit)


def _cut(text: str, limit: int) -> str:
    line = _ASTRAL.sub("\N{REPLACEMENT CHARACTER}", _UNPRINTABLE.sub(" ", text)).strip()
    if len(line) <= limit:
        return line
    whole_words = line[:limit].rpartition(" ")[0]
    kept = whole_words if 2 * len(whole_words) >= limit else line[: limit - 1]
    return f"{kept.rstrip()}{_ELLIPSIS}"

"""Formats texts that go to a partner or come from one: one line, masked, cut."""

from __future__ import annotations

import re
from typing import Final

from pipeline.observability import FOREIGN_DIGITS, drop_urls, mask_text

DETAIL_LIMIT: Final = 300
"""Maximum length of a partner's text in a log line or receipt, in characters."""

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\s]+")
_ASTRAL: Final = re.compile(r"[\U00010000-\U0010ffff]")
_ELLIPSIS: Final = "…"


def shorten(text: str, limit: int) -> str:
    """Return one line of at most ``limit`` characters, cut between two words, masked and without any URL.

    If the last word takes up more than half of the line, it is cut inside that word. Characters beyond the Basic
    Multilingual Plane become U+FFFD, so that a partner that counts UTF-16 units gets the same length.

    Args:
        text: The pipeline's own description of an error.
        limit: At least 1.
    """
    return _cut(mask_text(drop_urls(text)), limit)


def quote(text: str, limit: int = DETAIL_LIMIT) -> str:
    """Return a partner's text in a form that may be logged and stored.

    Like :func:`shorten`, but it also masks runs of six or more digits. The text is untrusted: a partner may echo a card
    number, a token or a URL, or add line ends to forge a log line.
    """
    return _cut(mask_text(drop_urls(text), digits=FOREIGN_DIGITS), limit)


def _cut(text: str, limit: int) -> str:
    line = _ASTRAL.sub("\N{REPLACEMENT CHARACTER}", _UNPRINTABLE.sub(" ", text)).strip()
    if len(line) <= limit:
        return line
    whole_words = line[:limit].rpartition(" ")[0]
    kept = whole_words if 2 * len(whole_words) >= limit else line[: limit - 1]
    return f"{kept.rstrip()}{_ELLIPSIS}"

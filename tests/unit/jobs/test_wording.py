"""Texts for a partner, and of a partner."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs.wording import quote, shorten


def test_a_short_text_stays_as_it_is() -> None:
    """The number of a line is not a card number."""
    text = "csv_quote: line 100001: a quote inside an unquoted field"
    assert shorten(text, 1200) == text


def test_a_long_text_is_cut_between_words() -> None:
    """At most 1,200 characters, the ellipsis included."""
    cut = shorten("wörter " * 400, 1200)
    assert len(cut) <= 1200
    assert cut.endswith("wörter…")


def test_one_long_word_is_cut_inside() -> None:
    """Better half a word than nothing."""
    assert shorten("a " + "x" * 50, 20) == "a " + "x" * 17 + "…"


def test_it_holds_no_card_no_url_and_no_line_end() -> None:
    """What ECS's support reads is one line without secrets."""
    text = "card 4111-1111-1111-1111 at https://h/p?q=1\r\nsecond\x00line\u2028third"
    assert shorten(text, 1200) == "card [digits] at [url] second line third"


def test_a_partners_words_lose_six_digits_too() -> None:
    """ECS numbers cards from 100001."""
    assert quote("card 100001 at https://h/p") == "card [digits] at [url]"


def test_characters_beyond_the_basic_plane_are_replaced() -> None:
    """So that UTF-16 units and characters are the same number."""
    assert shorten("ok \N{THUMBS UP SIGN}", 1200) == "ok \N{REPLACEMENT CHARACTER}"


@given(st.text(max_size=400), st.integers(1, 300))
def test_length_and_form_hold_for_any_text(text: str, limit: int) -> None:
    """Never longer than the limit, in characters and in UTF-16 units; never a control character."""
    cut = shorten(text, limit)
    assert len(cut) <= limit
    assert len(cut.encode("utf-16-le")) // 2 <= limit
    assert cut.isprintable() or all(not char.isspace() or char == " " for char in cut)

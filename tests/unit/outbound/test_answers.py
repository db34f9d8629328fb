"""Reading Retry-After and dates."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.outbound import http_date, retry_after_seconds

NOW = datetime(2026, 1, 21, 22, 50, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        (" 7 ", 7),
        (" 120 ", 120),
        ("0", 0),
        ("86400", 3600),
        ("99999999999999999999", 3600),
        ("9" * 40, None),
        ("9" * 65, None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("\N{ARABIC-INDIC DIGIT SEVEN}", None),
        ("Wed, 21 Jan 2026 22:51:30 GMT", 90),
        ("Wed, 21 Jan 2026 22:51:30 -0000", 90),
        ("Wed, 21 Jan 2026 23:51:30 +0100", 90),
        ("Wed, 21 Jan 2026 22:00:00 GMT", 0),
        ("Wed, 21 Jan 2099 22:00:00 GMT", 3600),
        ("Wed, 99 Jan 2026 22:00:00 GMT", None),
    ],
)
def test_retry_after_in_both_forms(header: str | None, expected: float | None) -> None:
    """Seconds or an HTTP date; cut to an hour; a malformed one says nothing."""
    assert retry_after_seconds(header, now=NOW) == expected


@pytest.mark.parametrize("text", ["Wed, 21 Jan 2026 22:50:00 GMT", "Wed, 21 Jan 2026 23:50:00 +0100"])
def test_an_http_date_is_a_time_with_a_zone(text: str) -> None:
    assert http_date(text) == NOW


@pytest.mark.parametrize("text", ["", "soon", "Wed, 21 Jan 2026 22:50:00 GMT" + " " * 64])
def test_any_other_text_is_no_date(text: str) -> None:
    assert http_date(text) is None

"""Reading Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.jobs.ecs.retry import retry_after_seconds

NOW = datetime(2026, 1, 21, 22, 50, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("99999999999999999999", 3600),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("\N{ARABIC-INDIC DIGIT SEVEN}", None),
        ("9" * 65, None),
        ("Wed, 21 Jan 2026 22:51:30 GMT", 90),
        ("Wed, 21 Jan 2026 22:51:30 -0000", 90),
        ("Wed, 21 Jan 2026 23:51:30 +0100", 90),
        ("Wed, 21 Jan 2026 22:00:00 GMT", 0),
        ("Wed, 21 Jan 2099 22:00:00 GMT", 3600),
        ("Wed, 99 Jan 2026 22:00:00 GMT", None),
    ],
)
def test_retry_after_in_both_forms(header: str | None, expected: float | None) -> None:
    """Seconds or an HTTP date; cut to the longest; a malformed one says nothing."""
    assert retry_after_seconds(header, now=NOW, longest=3600) == expected

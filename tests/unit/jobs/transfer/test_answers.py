"""Reading error answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.jobs.transfer.answers import read_refusal, retry_after

NOW = datetime(2026, 1, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", 3.0),
        (" 120 ", 120.0),
        ("Wed, 21 Jan 2026 12:00:30 GMT", 30.0),
        ("Wed, 21 Jan 2026 12:00:30 -0000", 30.0),
        ("Wed, 21 Jan 2026 11:00:00 GMT", 0.0),
        ("-1", None),
        ("soon", None),
        ("9" * 40, None),
        ("", None),
    ],
)
def test_retry_after(value: str, expected: float | None) -> None:
    """Seconds or a date; anything else says nothing."""
    assert retry_after(value, NOW) == expected


@pytest.mark.parametrize("text", ["2026-01-21T12:00:05Z", "2026-01-21T12:00:05"])
def test_server_time(text: str) -> None:
    """The store's clock, in UTC unless it says otherwise."""
    refusal = read_refusal(403, {}, f"<ServerTime>{text}</ServerTime>".encode(), NOW)
    assert refusal.server_time == datetime(2026, 1, 21, 12, 0, 5, tzinfo=UTC)


def test_text_is_not_shown() -> None:
    """The document's words are for telling cases apart; they show in no representation."""
    refusal = read_refusal(403, {}, b"<Error><Code>A1</Code><Message>secret</Message></Error>", NOW)
    assert (refusal.code, refusal.text) == ("A1", "secret")
    assert "secret" not in repr(refusal)

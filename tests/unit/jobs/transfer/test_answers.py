"""Reading error answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pipeline.jobs.transfer.answers import read_refusal

NOW = datetime(2026, 1, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-01-21T12:00:05Z", "2026-01-21T12:00:05"])
def test_server_time(text: str) -> None:
    """The store's clock, in UTC unless it says otherwise."""
    refusal = read_refusal(403, {}, f"<ServerTime>{text}</ServerTime>".encode(), NOW)
    assert refusal.server_time == datetime(2026, 1, 21, 12, 0, 5, tzinfo=UTC)


def test_text_is_not_shown() -> None:
    """The document's words are to distinguish cases; they show in no representation."""
    refusal = read_refusal(403, {}, b"<Error><Code>A1</Code><Message>secret</Message></Error>", NOW)
    assert (refusal.code, refusal.text) == ("A1", "secret")
    assert "secret" not in repr(refusal)

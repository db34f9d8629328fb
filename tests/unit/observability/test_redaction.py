"""What a log event looks like after the redaction."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from pipeline.observability import Redaction

GUID = UUID("cffde776-1d2a-4614-8023-a5148e411462")


class Small(IntEnum):
    """A number that is more than a number."""

    ONE = 1


def redact(**event: Any) -> dict[str, Any]:
    """Run the processor with one secret known."""
    return dict(Redaction([SecretStr("hunter2hunter2"), SecretStr("tiny")])(None, "info", event))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        (Small.ONE, 1),
        ("plain", "plain"),
        (GUID, str(GUID)),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (b"4111111111111111", "[16 bytes]"),
        (bytearray(b"ab"), "[2 bytes]"),
        (4111111111111111, "[digits]"),
        (1769035439295, 1769035439295),
        ("4111111111111111", "[digits]"),
        ({"4111111111111111": 1}, {"[digits]": 1}),
        ({"a": {"token": "x", "n": 2}}, {"a": {"token": "[masked]", "n": 2}}),
        (["https://h/p?q=1", ("4111111111111111",)], ["https://h/p?…", ["[digits]"]]),
        (deque([1]), [1]),
        (frozenset({"a"}), ["a"]),
        (ValueError("Bearer abcdefgh"), "Bearer [masked]"),
        (SecretStr("hunter2"), "**********"),
        ("it is hunter2hunter2!", "it is [masked]!"),
        ("a tiny thing", "a tiny thing"),
    ],
)
def test_values(value: object, expected: object) -> None:
    """Every kind of value comes out as masked JSON."""
    result = redact(field=value)["field"]
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("name", ["token", "client_secret", "authorization", "cvv", "card_number", "card"])
def test_secret_fields_are_masked_whatever_they_hold(name: str) -> None:
    """The name is enough; only None and flags are shown."""
    assert redact(**{name: "100001"}) == {name: "[masked]"}
    assert redact(**{name: 100001}) == {name: "[masked]"}
    assert redact(**{name: ["100001"]}) == {name: "[masked]"}
    assert redact(**{name: None}) == {name: None}


@pytest.mark.parametrize("name", ["at_ms", "offset", "result_bytes", "size"])
def test_named_numbers_are_shown_even_if_their_check_digit_is_right(name: str) -> None:
    """A tenth of all long numbers pass Luhn; offsets and times must stay readable."""
    assert redact(**{name: 4111111111111111}) == {name: 4111111111111111}


def test_deep_nesting_becomes_masked_text() -> None:
    """Below six levels the rest is rendered as text, and masked as text."""
    value: Any = {"token": "abc", "n": "4111111111111111"}
    for _ in range(8):
        value = {"a": value}
    shown = str(redact(field=value))
    assert "abc" not in shown
    assert "4111111111111111" not in shown


def test_long_text_is_cut() -> None:
    """One line stays below 16 KiB of text per field."""
    shown = redact(field="x" * 100_000)["field"]
    assert len(shown) == 16_385
    assert shown.endswith("…")


def test_what_others_wrote_steers_no_terminal() -> None:
    """Keys and subjects of events are their senders'; at a terminal (``console``) nothing else would escape them."""
    assert redact(key="card/\x1b[2J\x9b2J\u202e\x7f é")["key"] == "card/\\x1b[2J\\x9b2J\\u202e\\x7f é"
    assert redact(exception="one\n\ttwo")["exception"] == "one\n\ttwo"


def test_secrets_can_become_known_later() -> None:
    """Tokens rotate: a new one is masked from when it is added, an old one still."""
    redaction = Redaction()
    redaction.add(SecretStr("first-opaque"))
    redaction.add(SecretStr("first-opaque"))
    redaction.add(SecretStr("first-opaque-longer"))
    assert redaction.text("first-opaque first-opaque-longer") == "[masked] [masked]"


def test_the_number_of_secrets_is_bounded() -> None:
    """A year of hourly tokens does not slow logging down: the newest 256 are known."""
    redaction = Redaction(SecretStr(f"opaque-{number:04}") for number in range(300))
    assert redaction.text("opaque-0299") == "[masked]"
    assert redaction.text("opaque-0000") == "opaque-0000"

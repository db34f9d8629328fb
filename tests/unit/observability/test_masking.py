"""What masking hides and what it leaves readable, in texts and in log events."""

from __future__ import annotations

import re
import time
from collections import deque
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pipeline.contracts.sensitive import SENSITIVE, SENSITIVE_IN_LOGS
from pipeline.observability import Redaction
from pipeline.observability.masking import (
    FOREIGN_DIGITS,
    drop_urls,
    is_secret_name,
    looks_like_card,
    mask_text,
)

GUID = "cffde776-1d2a-4614-8023-a5148e411462"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("card 4111111111111111 failed", "card [digits] failed"),
        ("card 4111 1111 1111 1111 failed", "card [digits] failed"),
        ("card 4111-1111-1111-1111.", "card [digits]."),
        ("amex 3782 822463 10005", "amex [digits]"),
        ("no Luhn: 1234567890123456", "no Luhn: [digits]"),
        ("glued PAN4111111111111111x", "glued PAN[digits]x"),
        ("longer than any card 41111111111111111111111", "longer than any card [digits]"),
        ("beside 1 4111111111111111", "beside [digits]"),
    ],
)
def test_card_like_digits_are_masked(text: str, expected: str) -> None:
    """Runs of 13 digits or more go, however they are grouped, with or without a right check digit."""
    assert mask_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        f"job {GUID} stands",
        "event 0123456789abcdef0123456789abcdef",
        "announcement 1234567890123abc",
        "etag 9b74c9897bac770ffc029102a200c5de",
        "sha256 " + "0123456789abcdef" * 4,
        "trace 00-12345678901234567890123456789012-1234567890123456-01",
        "at 2026-01-21T22:50:00.000Z",
        "line 100001 of 20000000, 5000000000 bytes",
        "chunks 1 2 3 4 5 6 7 8 9 10 11 12 13",
        "https://example.com/path/without/query",
        "token: the file is empty",
        "token_seconds_left=12",
        "mapping: a pinned version",
    ],
)
def test_what_people_need_stays_readable(text: str) -> None:
    """Ids, digests, counts, times and addresses without a query are left alone."""
    assert mask_text(text) == text


def test_digests_without_two_letters_are_taken_for_cards() -> None:
    """Sixteen digits are a card before they are an id."""
    assert mask_text("id 1234567890123456 d411111111111111") == "id [digits] d[digits]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Card 100001 is blocked", "Card [digits] is blocked"),
        ("request req-123456", "request req-[digits]"),
        ("at 2026-01-21T22:50:00.000Z", "at 2026-01-21T22:50:00.000Z"),
        (f"No batch job found with GUID {GUID}", f"No batch job found with GUID {GUID}"),
        ("404 of 99999", "404 of 99999"),
        ("4111 1111 1111 1111", "[digits]"),
    ],
)
def test_six_digits_of_a_partner_are_masked(text: str, expected: str) -> None:
    """ECS numbers cards from 100001: in its own words every run of six digits may be a card."""
    assert mask_text(text, digits=FOREIGN_DIGITS) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET https://h/p?X-Amz-Signature=abc done", "GET https://h/p?… done"),
        ("https://user:pass@h:8443/p", "https://h:8443/p"),
        ("https://h/p#frag", "https://h/p?…"),
        ("s3://bucket/key?versionId=3", "s3://bucket/key?…"),
        ("'https://h/p?a=b'", "'https://h/p?…'"),
        ('{"url": "https://h/p?a=b", "n": 1}', '{"url": "https://h/p?…", "n": 1}'),
        ("GET /a/b?c=d HTTP/1.1", "GET /a/b?… HTTP/1.1"),
        ("https://h?x=y", "https://h?…"),
    ],
)
def test_url_queries_are_cut(text: str, expected: str) -> None:
    """Query, fragment and credentials of a URL go; scheme, host and path stay."""
    assert mask_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: [masked] [masked]"),
        ("sent Bearer abcdef123 twice", "sent Bearer [masked] twice"),
        ("basic dXNlcjpwYXNz", "basic [masked]"),
        ("saw eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln!", "saw [masked]!"),
        ("cut eyJhbGciOiJIUzI1NiJ9.eyJz", "cut [masked]"),
        ("{'access_token': 'abc', 'n': 1}", "{'access_token': '[masked]', 'n': 1}"),
        ('{"client_secret": "abc"}', '{"client_secret": "[masked]"}'),
        ("client_secret=abc&grant_type=x", "client_secret=[masked]&grant_type=x"),
        ("X-Amz-Signature=abc", "X-Amz-Signature=[masked]"),
        ("authToken=abc", "authToken=[masked]"),
        ("X-Webhook-Secret: abc", "X-Webhook-Secret: [masked]"),
        ("pin: 1234", "pin: [masked]"),
        ("CVV 123", "CVV [masked]"),
        ("card_number=100001", "card_number=[masked]"),
        ("the PIN is 1234", "the PIN is [masked]"),
        ("mytoken=abc", "mytoken=[masked]"),
        ('{"token": "a \\"b\\" c=d", "n": 1}', '{"token": "[masked]", "n": 1}'),
        ("token='a b", "token='[masked]"),
    ],
)
def test_credentials_are_masked(text: str, expected: str) -> None:
    """Tokens by shape, secrets by the name beside them."""
    assert mask_text(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("emailAddress=ada@example.com", "emailAddress=[masked]"),
        ("{'fullName': 'Ada Example', 'n': 1}", "{'fullName': '[masked]', 'n': 1}"),
        ('"senderIban" : "GB00TEST00000000000000"', '"senderIban" : "[masked]"'),
        ("KycEvent(consumer_email='ada@example.com')", "KycEvent(consumer_email='[masked]')"),
        ("date-of-birth=1990-12-31", "date-of-birth=[masked]"),
        ('{"cardNumberLastFour":"1111","mode":"debit"}', '{"cardNumberLastFour":"[masked]","mode":"debit"}'),
    ],
)
def test_sensitive_fields_of_events_are_masked(text: str, expected: str) -> None:
    """In the form of the wire and in that of Python, whole if they are quoted."""
    assert mask_text(text) == expected


@given(st.text(alphabet=st.sampled_from("4195 -?/:.=&'\"\\{}aefyJ[]…BearerbasictokenpinhttpsX@#\n"), max_size=200))
def test_masking_is_idempotent(text: str) -> None:
    """Text may pass several nets: the second changes nothing."""
    once = mask_text(text)
    assert mask_text(once) == once


@given(st.integers(10**12, 10**19 - 1), st.text(max_size=20), st.text(max_size=20))
def test_no_card_like_number_survives(number: int, before: str, after: str) -> None:
    """Wherever it stands, a number of 13 to 19 digits is gone."""
    assert str(number) not in mask_text(f"{before} {number} {after}")


@pytest.mark.parametrize(
    "unit",
    [
        *("eyJ", "a-", "1 ", "12 ", "token", "x-", "https://", "/", "?", "bearer ", "00-", "'", "pin ", "a.", "card_"),
        *("token='", "token=", "iban='\\", "='", "' : "),
    ],
)
def test_hostile_text_costs_linear_time(unit: str) -> None:
    """64 KiB of any repetition is masked in well under a second."""
    text = unit * (65_536 // len(unit))
    began = time.perf_counter()
    mask_text(text, digits=FOREIGN_DIGITS)
    assert time.perf_counter() - began < 1.0


def test_urls_can_be_dropped_whole() -> None:
    """A text for a partner names no address."""
    assert drop_urls("see https://h/p?q#f, or (http://x)") == "see [url] or ([url]"


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "access_token",
        "authToken",
        "X-Webhook-Secret",
        "Authorization",
        "Set-Cookie",
        "cvv",
        "PIN",
        "card",
        "card_number",
        "cardNumber",
        "pan",
        "api_key",
        "X-Api-Key",
        "client_secret",
        "password",
        "signature",
    ],
)
def test_secret_names(name: str) -> None:
    """Snake case, camel case and header names are read alike."""
    assert is_secret_name(name)


@pytest.mark.parametrize("name", sorted(SENSITIVE_IN_LOGS))
def test_sensitive_fields_are_secret_names(name: str) -> None:
    """The list of events' sensitive fields counts in logs too, in camel and in snake case."""
    assert is_secret_name(name)
    assert is_secret_name(re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name))


def test_a_sensitive_field_may_have_words_before_it() -> None:
    """Whose e-mail address it is makes no difference."""
    assert is_secret_name("newEmailAddress")


@pytest.mark.parametrize("name", sorted(SENSITIVE - SENSITIVE_IN_LOGS))
def test_words_that_mean_something_else_in_logs_stay_readable(name: str) -> None:
    """The name of a source and the address of a broker are no secrets."""
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "token_seconds_left",
        "cards",
        "key",
        "job_key",
        "event",
        "pinned",
        "span",
        "mapping",
        "token_file",
        "discard",
        "email_count",
        "state",
        "merchant_id",
        "",
    ],
)
def test_names_that_hold_no_secret(name: str) -> None:
    """The last word of a name decides whether it names a secret."""
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(4111111111111111, True), (4111111111111112, False), (378282246310005, True), (42, False), (4 * 10**19, False)],
)
def test_card_numbers_are_recognised(number: int, expected: bool) -> None:  # noqa: FBT001 - a parametrised expectation
    """Length and check digit decide."""
    assert looks_like_card(number) is expected


JOB_GUID = UUID("cffde776-1d2a-4614-8023-a5148e411462")


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
        (JOB_GUID, str(JOB_GUID)),
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

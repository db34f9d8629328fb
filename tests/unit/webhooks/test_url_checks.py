"""Checks of a URL, without a server. What senders send is in tests/inputs/test_url_checks.py."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from pipeline.contracts import Headers
from pipeline.webhooks.sources import WebhookRequest
from pipeline.webhooks.url_checks import NO_URL_CHECKS, UrlChecked, UrlChecks
from pipeline.webhooks.verification import Reason, Secret, SignatureRefused

NOW = datetime(2026, 1, 22, tzinfo=UTC)
CHALLENGE = b'{"type": "url_verification", "challenge": "c"}'


def test_without_checks_nothing_is_one() -> None:
    assert not NO_URL_CHECKS
    assert NO_URL_CHECKS.methods == ("POST",)
    NO_URL_CHECKS.check_head("GET", "challenge=x", (), NOW)
    NO_URL_CHECKS.check_body(WebhookRequest("", (), CHALLENGE), (), "k")


def test_the_named_check_comes_before_the_one_that_takes_all() -> None:
    checks = UrlChecks(("get", "challenge"))
    assert checks.methods == ("POST", "GET")
    with pytest.raises(UrlChecked, match="challenge"):
        checks.check_head("GET", "challenge=x", (), NOW)
    with pytest.raises(UrlChecked, match="get"):
        checks.check_head("GET", "x=challenge", (), NOW)


def test_an_answer_is_signed_by_a_secret_that_is_active() -> None:
    old = Secret("old", SecretStr("synthetic-old"), not_after=NOW)
    new = Secret("new", SecretStr("synthetic-new"), not_before=NOW + timedelta(days=1))
    with pytest.raises(SignatureRefused) as refused:
        UrlChecks(("crc-token",), secrets=[old, new]).check_head("GET", "crc_token=x", (), NOW)
    assert refused.value.reason is Reason.NO_ACTIVE_SECRET
    with pytest.raises(UrlChecked):
        UrlChecks(("crc-token",), secrets=[old, new]).check_head("GET", "crc_token=x", (), NOW - timedelta(days=1))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("hub.mode=subscribe&hub.challenge=x&hub.verify_token=%C3%A4", Reason.URL_CHECK_TOKEN),
        ("hub.mode=subscribe&hub.challenge=x&hub.verify_token=", Reason.URL_CHECK_TOKEN),
    ],
)
def test_an_empty_token_proves_nothing(query: str, reason: Reason) -> None:
    for token in (b"", b"synthetic"):
        with pytest.raises(SignatureRefused) as refused:
            UrlChecks(("hub-challenge",), token=token).check_head("GET", query, (), NOW)
        assert refused.value.reason is reason


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"type": "url_verification", "challenge": 1}', b'{"type": ["url_verification"]}']
)
def test_a_body_that_is_no_challenge_is_no_check(body: bytes) -> None:
    checks = UrlChecks(("url-verification", "endpoint-validation", "eventsub"))
    checks.check_body(WebhookRequest("", (), body), (), "k")


@pytest.mark.parametrize("text", [b"", b"=", b"==", b"token", b"to+ken/_-==", b"x" * 300])
@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "gzip"])
def test_what_crc_token_signs_for_anybody_is_no_event(text: bytes, *, encoded: bool) -> None:
    """With `signed_body = "plain"` the signature covers it without its compression, else maybe with a time before."""
    headers = (("content-encoding", b"gzip"),) if encoded else ()
    request = WebhookRequest.received("", headers, gzip.compress(text) if encoded else text)
    with pytest.raises(SignatureRefused) as refused:
        UrlChecks(("crc-token",)).check_body(request, headers, "k")
    assert refused.value.reason is Reason.URL_CHECK_TOKEN


@pytest.mark.parametrize("body", [b"{}", b"a=b", b"two words", b"=a"])
def test_what_crc_token_never_signs_may_be_an_event(body: bytes) -> None:
    UrlChecks(("crc-token",)).check_body(WebhookRequest("", (), body), (), "k")


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("x-hook-secret", b""),),
        (("x-hook-secret", b"\xff"),),
        (("x-hook-secret", b"x" * 257),),
        (("x-hook-secret", b"x"), ("x-hook-secret", b"x")),
        (("x-hook-secret", b"x"), ("x-hook-signature", b"")),
    ],
)
def test_only_one_printable_secret_is_sent_back(headers: Headers) -> None:
    UrlChecks(("hook-secret",)).check_head("POST", "", headers, NOW)


def test_the_answer_says_nothing_of_the_request_but_what_is_asked_for() -> None:
    with pytest.raises(UrlChecked) as checked:
        UrlChecks(("url-verification",)).check_body(WebhookRequest("", (), CHALLENGE), (), "k")
    answer = checked.value.response()
    assert (answer.status, answer.body, answer.content_type) == (200, b"c", "text/plain")
    assert str(checked.value) == "url-verification"

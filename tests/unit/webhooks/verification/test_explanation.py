"""The steps of a verification, as a person reads them who must find out why it fails."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr, TypeAdapter
from support.signed_requests import ALL, NOW, OF_PRESETS, OF_WEAVR, STANDARD, SignedRequest

from pipeline.contracts import Headers
from pipeline.webhooks.verification import Explanation, Reason, Scheme, SchemeSpec, Secret, Step, explain, scheme_of

ADAPTER: TypeAdapter[Any] = TypeAdapter(SchemeSpec)
WEAVR = OF_WEAVR[0]


def scheme(request: SignedRequest, *more: Secret) -> Scheme:
    return scheme_of(ADAPTER.validate_python(request.scheme), [Secret("current", SecretStr(request.secret)), *more])


def explained(request: SignedRequest, headers: Headers, *, now: datetime = NOW) -> Explanation:
    return explain(scheme(request), headers, request.body, now)


def test_each_step_of_a_verified_request_is_explained() -> None:
    expired = Secret("expired", SecretStr("AAAA"), not_after=NOW)
    explanation = explain(scheme(WEAVR, expired), WEAVR.headers, WEAVR.body, NOW)
    assert explanation == Explanation(
        (
            Step("secrets", ok=True, detail="1 of 2 are active at this time: current"),
            Step("header", ok=True, detail="the request has one header signature-v2"),
            Step("form", ok=True, detail="1 of sha256 in base64"),
            Step("timestamp", ok=True, detail="0.7 s old, 18000 s are allowed"),
            Step("signed", ok=True, detail="header?:call-ref + body + timestamp: 140 bytes"),
            Step("match", ok=True, detail="verified by current"),
        ),
        by="current",
    )
    assert explanation.steps[0].document() == {
        "step": "secrets",
        "ok": True,
        "detail": "1 of 2 are active at this time: current",
    }


def test_the_steps_of_standard_webhooks_and_of_a_secret_in_a_header() -> None:
    (standard, *_) = STANDARD
    assert [step.detail for step in explained(standard, standard.headers).steps] == [
        "1 of 1 are active at this time: current",
        "the request has one header webhook-signature",
        "1 of v1",
        "1.0 s old, 300 s are allowed",
        "webhook-id + webhook-timestamp + body with full stops between: 129 bytes",
        "verified by current",
    ]
    shared = scheme_of(ADAPTER.validate_python({"scheme": "shared-secret"}), [Secret("current", SecretStr("alpha"))])
    explanation = explain(shared, (("X-Webhook-Secret", b"alpha"),), b"", NOW)
    assert [step.step for step in explanation.steps] == ["secrets", "header", "match"]


def test_the_first_step_that_fails_is_the_last() -> None:
    repeated = explained(WEAVR, (*WEAVR.headers, WEAVR.headers[-1]))
    assert repeated.steps[-1] == Step("header", ok=False, detail="The request has 2 headers signature-v2")
    assert (repeated.by, repeated.reason) == (None, Reason.HEADER_REPEATED)
    stale = explained(WEAVR, WEAVR.headers, now=NOW + timedelta(hours=6))
    assert stale.steps[-1] == Step("timestamp", ok=False, detail="The timestamp is 21600.7 s old, 18000 s are allowed")
    other = explain(scheme(WEAVR), WEAVR.headers, b"other", NOW)
    assert other.steps[-1] == Step("match", ok=False, detail="None of 1 active secrets verifies the request")
    assert [step.ok for step in other.steps] == [True] * 5 + [False]


@pytest.mark.parametrize("request_", ALL, ids=str)
def test_an_explanation_holds_neither_secret_nor_signature(request_: SignedRequest) -> None:
    """Neither what was received nor what was computed."""
    for body in (request_.body, b"other"):
        text = repr(explain(scheme(request_), request_.headers, body, NOW))
        assert request_.secret not in text
        assert request_.signature not in text


def test_every_reason_of_a_scheme_belongs_to_a_step() -> None:
    """A scheme without steps of its own has one step: how it ended."""

    class Strange:
        stored_headers: frozenset[str] = frozenset()

        def check_head(self, headers: Headers, now: datetime) -> None:
            scheme(OF_PRESETS["github"]).check_head(headers, now)

        def verify(self, headers: Headers, body: bytes, now: datetime) -> str:
            return scheme(OF_PRESETS["github"]).verify(headers, body, now)

    github = OF_PRESETS["github"]
    assert explain(Strange(), github.headers, github.body, NOW).steps == (
        Step("match", ok=True, detail="verified by current"),
    )
    assert explain(Strange(), (), github.body, NOW).reason is Reason.HEADER_MISSING

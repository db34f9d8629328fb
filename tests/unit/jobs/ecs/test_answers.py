"""What each answer of ECS, or of a gateway before it, means."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs.ecs.answers import Reaction, describe, interpret

GUID = UUID("cffde776-1d2a-4614-8023-a5148e411462")


def confirmation(**changes: Any) -> dict[str, Any]:
    """Return the success answer of the seed, with some members of ``data`` changed."""
    data = {
        "type": "batch-job-result",
        "id": str(GUID),
        "attributes": {
            "status": "RESULT_RECEIVED",
            "message": "Result upload confirmed",
            "received_at": "2026-01-21T22:50:00.000Z",
        },
    }
    return {
        "data": data | changes,
        "meta": {"timestamp": "2026-01-21T22:50:00.000Z", "requestId": "req-123456", "version": "1.0.0"},
        "jsonapi": {"version": "1.0"},
    }


def encoded(document: object) -> bytes:
    """Return a document as ECS sends it."""
    return json.dumps(document).encode()


ERROR = {
    "errors": [
        {
            "status": "404",
            "title": "Job not found",
            "detail": f"No batch job found with GUID {GUID}",
        }
    ],
    "meta": {"timestamp": "2026-01-21T22:50:00.000Z", "requestId": "req-123456"},
    "jsonapi": {"version": "1.0"},
}


@pytest.mark.parametrize("status", [200, 201, 202, 299])
def test_the_success_answer_of_the_seed_is_accepted(status: int) -> None:
    """2xx, the right type and this job's id."""
    found = interpret(status, encoded(confirmation()), job_guid=GUID)
    assert (found.reaction, found.code, found.warning) == (Reaction.ACCEPTED, "callback_accepted", None)
    assert found.detail == "RESULT_RECEIVED: Result upload confirmed"
    assert found.request_id == "req-123456"


def test_the_error_answer_of_the_seed_is_refused() -> None:
    """A 404 is permanent, and the text of ECS is kept."""
    found = interpret(404, encoded(ERROR), job_guid=GUID)
    assert (found.reaction, found.code) == (Reaction.REFUSED, "callback_refused")
    assert found.detail == f"404: Job not found: No batch job found with GUID {GUID}"
    assert found.request_id == "req-123456"


def test_ids_are_compared_as_uuids() -> None:
    """Case and dashes do not matter."""
    for spelling in (str(GUID).upper(), GUID.hex, f"{{{GUID}}}"):
        found = interpret(200, encoded(confirmation(id=spelling)), job_guid=GUID)
        assert found.reaction is Reaction.ACCEPTED


@pytest.mark.parametrize("attributes", [{"status": "ARCHIVED"}, {"status": 7}, {}, None, "text"])
def test_an_unknown_status_is_accepted_with_a_warning(attributes: object) -> None:
    """The webhook is in beta, so a new status must not be treated as a refusal."""
    found = interpret(200, encoded(confirmation(attributes=attributes)), job_guid=GUID)
    assert (found.reaction, found.warning) == (Reaction.ACCEPTED, "unknown_status")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (encoded(ERROR), "a success status with errors: 404: Job not found"),
        (encoded(confirmation() | {"errors": [{"title": "No"}]}), "a success status with errors: No"),
        (encoded(confirmation() | {"errors": {"a": 1}}), "a success status with errors"),
        (encoded(confirmation(id="11111111-1d2a-4614-8023-a5148e411462")), "data.id is not this job"),
        (encoded(confirmation(id=7)), "data.id is not this job"),
        (encoded(confirmation(id="req-1")), "data.id is not this job"),
        (encoded(confirmation(type="batch-job")), "data.type is not batch-job-result"),
    ],
)
def test_a_2xx_about_something_else_is_refused(body: bytes, reason: str) -> None:
    """Errors, another job, another type: the same body would get the same answer."""
    found = interpret(200, body, job_guid=GUID)
    assert (found.reaction, found.code) == (Reaction.REFUSED, "callback_not_confirmed")
    assert found.detail.startswith(reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (encoded({"data": [confirmation()["data"]]}), "no confirmation in the answer"),
        (encoded({"ok": True}), "no confirmation in the answer"),
        (encoded([1]), "no confirmation in the answer: [1]"),
        (b"<html><body>Welcome</body></html>", "no confirmation in the answer: <html><body>Welcome</body></html>"),
        (b"", "no confirmation in the answer"),
        (b"\xff\xfe\x00", "no confirmation in the answer"),
        (b"[" * 60_000, "no confirmation in the answer"),
        (b"1" * 60_000, "no confirmation in the answer: [digits]"),
    ],
)
def test_a_2xx_that_says_nothing_about_a_job_is_retried(body: bytes, reason: str) -> None:
    """HTML, an empty body or a maintenance page neither refuses nor confirms the job."""
    found = interpret(200, body, job_guid=GUID)
    assert (found.reaction, found.code) == (Reaction.RETRY, "callback_unclear")
    assert found.detail.startswith(reason)


def test_empty_errors_do_not_hinder_a_confirmation() -> None:
    """Some serialisers always write the member."""
    assert interpret(200, encoded(confirmation() | {"errors": []}), job_guid=GUID).reaction is Reaction.ACCEPTED


@pytest.mark.parametrize(
    ("status", "reaction", "code"),
    [
        (301, Reaction.RETRY, "callback_redirected"),
        (307, Reaction.RETRY, "callback_redirected"),
        (400, Reaction.REFUSED, "callback_refused"),
        (401, Reaction.UNAUTHORIZED, "callback_unauthorized"),
        (403, Reaction.RETRY, "callback_forbidden"),
        (404, Reaction.REFUSED, "callback_refused"),
        (405, Reaction.REFUSED, "callback_refused"),
        (408, Reaction.RETRY, "callback_try_later"),
        (409, Reaction.REFUSED, "callback_conflict"),
        (415, Reaction.REFUSED, "callback_refused"),
        (422, Reaction.REFUSED, "callback_refused"),
        (425, Reaction.RETRY, "callback_try_later"),
        (429, Reaction.RETRY, "callback_try_later"),
        (500, Reaction.RETRY, "callback_server_error"),
        (502, Reaction.RETRY, "callback_unanswered"),
        (503, Reaction.RETRY, "callback_server_error"),
        (504, Reaction.RETRY, "callback_unanswered"),
        (599, Reaction.RETRY, "callback_server_error"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>Gateway</html>", encoded(ERROR), encoded(confirmation())])
def test_the_status_decides_whatever_the_body_says(status: int, reaction: Reaction, code: str, body: bytes) -> None:
    """Retry, renew or give up: by status alone."""
    found = interpret(status, body, job_guid=GUID)
    assert (found.reaction, found.code) == (reaction, code)


@pytest.mark.parametrize("status", ["422", 422])
def test_the_status_of_an_error_may_be_text_or_number(status: object) -> None:
    """ECS writes both."""
    body = encoded({"errors": [{"status": status, "title": "Bad"}]})
    assert describe(body) == "422: Bad"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (encoded({"errors": [{"title": "a"}, "text", {"detail": "b"}, {"title": "not shown"}]}), "a; ; b"),
        (encoded({"errors": [{"status": True, "title": {"deep": 1}, "detail": "", "code": "E1"}]}), "E1"),
        (encoded({"errors": "text"}), ""),
        (encoded({"data": {"attributes": {"message": "x"}}}), "x"),
        (b"  two\r\n lines\t", "two lines"),
        (b"", ""),
    ],
)
def test_what_is_kept_of_a_body(body: bytes, said: str) -> None:
    """Words of the documented members, or the beginning of the text, on one line."""
    assert describe(body) == said


@pytest.mark.parametrize(
    ("planted", "gone"),
    [
        ("card 100001 is blocked", "100001"),
        ("card 4111 1111 1111 1111", "1111"),
        ("see https://h/p?X-Amz-Signature=abc", "abc"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJ"),
        ("sent Bearer abcdefghij", "abcdefghij"),
    ],
)
@pytest.mark.parametrize("form", ["json", "html"])
def test_what_ecs_writes_is_masked(planted: str, gone: str, form: str) -> None:
    """A partner may echo its request, so the text is masked before it is stored and logged."""
    body = encoded({"errors": [{"detail": planted}]}) if form == "json" else f"<p>{planted}</p>".encode()
    assert gone not in interpret(400, body, job_guid=GUID).detail


def test_what_is_kept_is_at_most_300_characters() -> None:
    """The limit holds for an answer of any size."""
    body = encoded({"errors": [{"detail": "word " * 20_000}]})
    detail = interpret(400, body, job_guid=GUID).detail
    assert len(detail) <= 300
    assert detail.endswith("word…")


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"requestId": "a"}, "a"),
        ({"request_id": "b"}, "b"),
        ({"requestId": 7, "request_id": "b"}, "b"),
        ({"requestId": "x" * 5000}, "x" * 128),
        ({"requestId": "4111111111111111"}, "[digits]"),
        ({}, None),
        ("text", None),
    ],
)
def test_both_spellings_of_the_request_id(meta: object, expected: str | None) -> None:
    """ECS spells both ``requestId`` and ``request_id``."""
    assert interpret(500, encoded({"meta": meta}), job_guid=GUID).request_id == expected


@given(st.integers(200, 599), st.binary(max_size=300))
def test_no_body_breaks_the_interpretation(status: int, body: bytes) -> None:
    """Any status and any bytes have a reaction; only a confirmation is accepted."""
    found = interpret(status, body, job_guid=GUID)
    assert found.reaction is not Reaction.ACCEPTED
    assert len(found.detail) <= 300

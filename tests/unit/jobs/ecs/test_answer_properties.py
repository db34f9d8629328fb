"""Laws of ECS's answers: any JSON:API-like document has a reaction, and shows no card, token or URL query."""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs.ecs.answers import Reaction, interpret

GUID: Final = UUID("cffde776-1d2a-4614-8023-a5148e411462")
CARD: Final = "4111111111111111"
TEXTS: Final = st.sampled_from(
    (
        "", "batch-job-result", "RESULT_RECEIVED", str(GUID), str(GUID).upper(), f"{{{GUID}}}", CARD,
        f"card {CARD[:4]} {CARD[4:8]} {CARD[8:12]} {CARD[12:]}", f"https://a.example.com/b?X-Amz-Signature={'ab' * 32}",
        "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "a\r\nb\x00c\u2028d", "x" * 5000,
    )
) | st.text(max_size=20)  # fmt: skip
SCALARS: Final = TEXTS | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True)
NAMES: Final = st.sampled_from(
    (
        "data", "type", "id", "attributes", "status", "message", "errors", "title", "detail", "code", "meta",
        "requestId", "request_id", "jsonapi",
    )
)  # fmt: skip
VALUES: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A confirmation whose members are right, absent or anything."""

    def maybe(right: object) -> Any:
        return draw(st.just(right) | VALUES)

    attributes = maybe({"status": draw(TEXTS), "message": draw(TEXTS)})
    data = maybe({"type": maybe("batch-job-result"), "id": maybe(str(GUID)), "attributes": attributes})
    found: dict[str, Any] = {"data": data, "meta": maybe({"requestId": draw(TEXTS)})}
    if draw(st.booleans()):
        found["errors"] = draw(st.lists(st.dictionaries(NAMES, VALUES, max_size=5), max_size=5) | VALUES)
    return found


def confirms(document: dict[str, Any]) -> bool:
    """Whether it confirms this job, written apart from the code under test."""
    data = document.get("data")
    if document.get("errors") or not isinstance(data, dict) or data.get("type") != "batch-job-result":
        return False
    try:
        return isinstance(data.get("id"), str) and UUID(data["id"]) == GUID
    except ValueError:
        return False


@given(status=st.integers(100, 999), document=documents())
def test_a_job_is_confirmed_by_its_confirmation_alone(status: int, document: dict[str, Any]) -> None:
    found = interpret(status, json.dumps(document).encode(), job_guid=GUID)
    assert (found.reaction is Reaction.ACCEPTED) == (200 <= status < 300 and confirms(document))


@given(status=st.integers(100, 999), document=documents(), cut=st.integers(0, 400))
def test_what_is_kept_of_an_answer_is_short_and_masked(status: int, document: dict[str, Any], cut: int) -> None:
    """One line of at most 300 characters, without a card number, a signature or a token."""
    body = json.dumps(document, ensure_ascii=bool(cut % 2)).encode("utf-8", "surrogatepass")
    for received in (body, body[: len(body) - cut]):
        found = interpret(status, received, job_guid=GUID)
        assert len(found.detail) <= 300
        assert len(found.detail.splitlines()) <= 1
        for text in (found.detail, found.request_id or ""):
            assert CARD not in text.replace(" ", "")
            assert "abababab" not in text
            assert "c2lnbmF0dXJl" not in text
        assert found.request_id is None or len(found.request_id) <= 128

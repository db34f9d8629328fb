from __future__ import annotations

import pytest

from pipeline.webhooks.answers import STATUS, STATUSES, Answer, Problem, Status


def test_every_answer_has_exactly_one_row() -> None:
    """Every answer has exactly one row."""
    assert [row.answer for row in STATUSES] == list(Answer)
    assert set(STATUS) == set(Answer)


def test_every_status_that_is_promised_is_in_the_table() -> None:
    """Every status that is promised is in the table."""
    promised = {200, 202, 204, 400, 401, 404, 405, 408, 413, 415, 422, 500, 503}
    assert {code for row in STATUSES for code in row.codes} == promised


def test_rows_stand_in_the_order_of_their_status() -> None:
    """Rows are in the order of their status."""
    assert [row.codes[0] for row in STATUSES] == sorted(row.codes[0] for row in STATUSES)


@pytest.mark.parametrize("row", STATUSES, ids=lambda row: row.answer)
def test_only_what_may_pass_is_to_be_repeated(row: Status) -> None:
    """Only what may pass is to be repeated."""
    assert row.retry == (row.codes[0] in {408, 500, 503})
    assert row.meaning
    assert row.cause
    assert row.remedy


@pytest.mark.parametrize("answer", [answer for answer in Answer if answer is not Answer.ACCEPTED])
def test_every_refusal_is_a_problem_document(answer: Answer) -> None:
    """Every refusal is a problem document."""
    document = Problem(answer).document("abc")
    assert document["type"] == f"urn:card-pipeline:problem:{answer.replace('_', '-')}"
    assert document["status"] == STATUS[answer].codes[0]
    assert document["rule"] == answer.value
    assert document["trace_id"] == "abc"
    assert all(isinstance(document[name], str) and document[name] for name in ("title", "detail", "remedy"))

from __future__ import annotations

import json
import re
from typing import Any, Final

import jsonschema
import pytest
from support.paths import ROOT

from pipeline.contracts.strict_json import Finding
from pipeline.webhooks.answers import STATUS, STATUSES, Answer, Problem, Status


def test_every_answer_has_exactly_one_row() -> None:
    assert [row.answer for row in STATUSES] == list(Answer)
    assert set(STATUS) == set(Answer)


def test_every_status_that_is_promised_is_in_the_table() -> None:
    promised = {200, 202, 204, 400, 401, 404, 405, 408, 413, 415, 422, 500, 503}
    assert {code for row in STATUSES for code in row.codes} == promised


def test_rows_stand_in_the_order_of_their_status() -> None:
    assert [row.codes[0] for row in STATUSES] == sorted(row.codes[0] for row in STATUSES)


@pytest.mark.parametrize("row", STATUSES, ids=lambda row: row.answer)
def test_only_what_may_pass_is_to_be_repeated(row: Status) -> None:
    assert row.retry == (row.codes[0] in {408, 500, 503})
    assert row.meaning
    assert row.cause
    assert row.remedy


@pytest.mark.parametrize("answer", [answer for answer in Answer if answer is not Answer.ACCEPTED])
def test_every_refusal_is_a_problem_document(answer: Answer) -> None:
    document = Problem(answer).document("abc")
    assert document["type"] == f"urn:card-pipeline:problem:{answer.replace('_', '-')}"
    assert document["status"] == STATUS[answer].codes[0]
    assert document["rule"] == answer.value
    assert document["trace_id"] == "abc"
    assert all(isinstance(document[name], str) and document[name] for name in ("title", "detail", "remedy"))


SCHEMA: Final[dict[str, Any]] = json.loads((ROOT / "schemas" / "problem.v1.json").read_text("utf-8"))
OPENAPI: Final = " ".join((ROOT / "schemas" / "openapi.json").read_text("utf-8").split())
STATUSES_PAGE, MEMBERS_PAGE, RULES_PAGE = (
    (ROOT / "docs" / "reference" / "statuses.md").read_text("utf-8").split("\n## ")
)
REFUSALS: Final = [row.answer for row in STATUSES if row.codes[0] >= 400]


def documents(answer: Answer) -> list[dict[str, Any]]:
    """What an answer may look like: with and without findings and a trace."""
    one, two = Finding("record_count", "too_small", "Send at least 1"), Finding("", "not_json", "Send valid JSON")
    problems = [Problem(answer), Problem(answer, findings=[one]), Problem(answer, findings=[two, one])]
    return [
        problem.document(trace_id) for problem in problems for trace_id in (None, "4bf92f3577b34da6a3ce929d0e0e4736")
    ]


@pytest.mark.parametrize("answer", REFUSALS)
def test_every_problem_document_fits_the_schema(answer: Answer) -> None:
    """It has no member that the schema does not name."""
    closed = SCHEMA | {"additionalProperties": False}
    for document in documents(answer):
        jsonschema.validate(document, closed)


def test_the_page_has_the_members_of_the_schema() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (.+) \|$", MEMBERS_PAGE, re.MULTILINE)
    assert [(name, always == "yes", means) for name, always, means in rows] == [
        (name, name in SCHEMA["required"], schema["description"]) for name, schema in SCHEMA["properties"].items()
    ]


def test_the_page_and_the_openapi_document_have_the_same_types_and_statuses() -> None:
    """The schema sends its reader to the page: each `type` and each `status` must be there."""
    rows = re.findall(r'^\| ([45]\d\d) \| <a id="([a-z-]+)"></a>`(\w+)` \|', STATUSES_PAGE, re.MULTILINE)
    on_page = {(f"urn:card-pipeline:problem:{anchor}", int(status), rule) for status, anchor, rule in rows}
    answered = [Problem(answer).document() for answer in REFUSALS]
    assert on_page == {(one["type"], one["status"], one["rule"]) for one in answered}
    published = re.findall(r'"type": "(urn:card-pipeline:problem:[a-z-]+)", "title": "[^"]+", "status": (\d+)', OPENAPI)
    assert {(kind, int(status)) for kind, status in published} == {(kind, status) for kind, status, _ in on_page}


def test_the_page_has_the_rules_of_findings() -> None:
    """As the schema says of `rule`; the findings of announcements are what a sender sees."""
    rules = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", RULES_PAGE, re.MULTILINE))
    assert all(rules.values())
    assert {"too_small", "not_json", "host_not_allowed", "too_late", "url_userinfo", "required"} <= rules.keys()

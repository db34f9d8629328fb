"""``schemas/openapi.json``: valid, and in step with what the ingress takes and answers."""

from __future__ import annotations

import json
from typing import Final

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from support.openapi import DOCUMENT, PATH, bundled_document

from pipeline.contracts.weavr import KINDS, EventKind
from pipeline.webhooks.answers import STATUSES

REFUSED: Final = 400
PREFIX: Final = "/webhooks/weavr/{integration}"


def test_it_is_valid() -> None:
    validate(DOCUMENT, base_uri=PATH.as_uri())


def test_it_is_valid_with_all_that_it_refers_to() -> None:
    document = bundled_document()
    validate(document)
    assert len(document["components"]["schemas"]) == len(KINDS) + 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.type)
def test_each_path_of_weavr_is_there_with_its_body_and_headers(kind: EventKind) -> None:
    operation = DOCUMENT["paths"][f"{PREFIX}{kind.path}"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert json.loads((PATH.parent / schema).read_text("utf-8"))["$id"] == kind.dataschema
    headers = [one["name"] for one in operation["parameters"] if one.get("in") == "header"]
    reference = "call-ref" if kind.signed else "request-ref"
    assert headers == ["published-timestamp", reference]
    assert operation["security"] == ([{"weavrSignature": []}] if kind.signed else [{}])


def test_every_status_is_answered_but_for_422_where_invalid_bodies_are_kept() -> None:
    codes = {str(code) for row in STATUSES for code in row.codes}
    for name, path in DOCUMENT["paths"].items():
        assert {*path["post"]["responses"]} == (codes if name.startswith("/webhooks/ecs/") else codes - {"422"})


def test_every_refusal_is_described_with_a_problem_document() -> None:
    schema = json.loads((PATH.parent / "problem.v1.json").read_text("utf-8"))
    told = set()
    for response in DOCUMENT["components"]["responses"].values():
        for rule, shown in response.get("content", {}).get("application/problem+json", {}).get("examples", {}).items():
            assert [error.message for error in Draft202012Validator(schema).iter_errors(shown["value"])] == []
            told.add(rule)
    assert told == {row.answer.value for row in STATUSES if row.codes[0] >= REFUSED}

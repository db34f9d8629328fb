"""Which changes of a schema break somebody, and how they are named."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tools.schema_changes import breaking

RELEASED: dict[str, Any] = {
    "$id": "urn:card-pipeline:schema:weavr.test:v1",
    "title": "Test",
    "type": "object",
    "properties": {
        "id": {"$ref": "#/$defs/CardId"},
        "former": {"$ref": "#/$defs/CardId"},
        "amount": {"type": ["string", "integer"], "pattern": "^[0-9]+$"},
        "email": {"type": "string", "x-sensitive": True},
        "status": {"type": "string", "x-known-values": ["ACTIVE", "BLOCKED"]},
        "outcome": {"enum": ["completed", "failed"], "type": "string"},
        "spend": {"type": "array", "items": {"$ref": "#/$defs/Spend"}},
    },
    "required": ["id", "amount"],
    "additionalProperties": True,
    "$defs": {
        "CardId": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
        "Spend": {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/Spend"}}},
    },
}
GONE = "nothing is here any more"


def changed(pointer: str, value: Any) -> dict[str, Any]:
    """The released schema with one thing changed."""
    schema = deepcopy(RELEASED)
    *location, last = pointer.strip("/").split("/")
    node = schema
    for step in location:
        node = node[step]
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    return schema


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/properties/nickname", {"type": "string"}),
        ("/properties/status/x-known-values", ["ACTIVE", "BLOCKED", "DESTROYED"]),
        ("/properties/status/x-known-values", ["ACTIVE"]),
        ("/properties/status/x-sensitive", True),
        ("/properties/amount/x-pattern", "^[0-9]{1,12}$"),
        ("/properties/amount/description", "Minor units."),
        ("/properties/amount/deprecated", True),
        ("/title", "Another"),
        ("/$defs/Spend/properties/interval", {"type": "string"}),
        ("/additionalProperties", GONE),
    ],
)
def test_additions_and_words_break_nobody(pointer: str, value: Any) -> None:
    assert breaking(RELEASED, changed(pointer, value)) == []


@pytest.mark.parametrize(
    ("pointer", "value", "told"),
    [
        ("/properties/email", GONE, ("/properties/email", "field-removed")),
        ("/$defs/CardId/properties/id", GONE, ("/$defs/CardId/properties/id", "field-removed")),
        ("/$defs/Spend/properties/value", GONE, ("/$defs/Spend/properties/value", "field-removed")),
        ("/required", ["id"], ("/properties/amount", "required-dropped")),
        ("/required", ["id", "amount", "status"], ("/properties/status", "required-added")),
        ("/required", ["id", "amount", "nickname"], ("/properties", "required-added")),
        ("/properties/email/type", ["string", "integer"], ("/properties/email/type", "type-widened")),
        ("/properties/email/type", ["string", "null"], ("/properties/email/type", "type-widened")),
        ("/properties/email/type", GONE, ("/properties/email/type", "type-widened")),
        ("/properties/amount/type", "integer", ("/properties/amount/type", "type-narrowed")),
        ("/properties/email/type", "object", ("/properties/email/type", "type-changed")),
        ("/$defs/Spend/properties/value/type", "string", ("/$defs/Spend/properties/value/type", "type-changed")),
        ("/properties/outcome/enum", ["completed", "failed", "gone"], ("/properties/outcome/enum", "values-widened")),
        ("/properties/outcome/enum", GONE, ("/properties/outcome/enum", "values-widened")),
        ("/properties/outcome/enum", ["completed"], ("/properties/outcome/enum", "values-narrowed")),
        ("/properties/status/enum", ["ACTIVE", "BLOCKED"], ("/properties/status/enum", "values-narrowed")),
        ("/properties/amount/pattern", GONE, ("/properties/amount/pattern", "rule-changed")),
        ("/properties/email/maxLength", 10, ("/properties/email/maxLength", "rule-changed")),
        ("/properties/email/x-sensitive", GONE, ("/properties/email", "sensitive-dropped")),
        ("/properties/spend/items", {"$ref": "#/$defs/CardId"}, ("/$defs/Spend/properties/value", "field-removed")),
        ("/additionalProperties", False, ("/additionalProperties", "additional-changed")),
        ("/$id", "urn:card-pipeline:schema:weavr.test:v2", ("/$id", "id-changed")),
    ],
)
def test_a_broken_promise_is_named_with_its_location(pointer: str, value: Any, told: tuple[str, str]) -> None:
    found = [(change.pointer, change.rule) for change in breaking(RELEASED, changed(pointer, value))]
    assert found[0] == told


def test_a_definition_may_be_renamed_as_nothing_of_it_is_on_the_wire() -> None:
    current = deepcopy(RELEASED)
    current["$defs"]["InstrumentId"] = current["$defs"].pop("CardId")
    current["properties"]["id"] = current["properties"]["former"] = {"$ref": "#/$defs/InstrumentId"}
    assert breaking(RELEASED, current) == []


def test_what_two_fields_share_is_reported_once() -> None:
    current = changed("/$defs/CardId/properties/id/type", "integer")
    assert [change.pointer for change in breaking(RELEASED, current)] == ["/$defs/CardId/properties/id/type"]

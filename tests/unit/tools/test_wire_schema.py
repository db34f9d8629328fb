"""Schemas as code generators read them: one ``type`` per field, definitions by reference, marks at sensitive leaves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from pipeline.contracts import AuditEvent
from tools.wire_schema import fields, wire_schema

IDENT = "urn:card-pipeline:schema:test:v1"


class Location(BaseModel):
    """Where."""

    city: str | None = None
    country: str | None = None


class Journey(BaseModel):
    """A journey.

    With ``places``.
    """

    at: Location
    past: tuple[Location, ...] = ()
    then: Location | None = None
    amount: Annotated[str, Field(pattern="^[0-9]+$")] | int
    outcome: Literal["done", "late"] | None = None
    only: Literal["this"] = "this"


class Branch(BaseModel):
    """A tree."""

    name: str
    branches: tuple[Branch, ...] = ()


SCHEMA = wire_schema(Journey, IDENT)
PROPERTIES = SCHEMA["properties"]


def test_a_schema_says_dialect_name_title_and_description() -> None:
    assert [(key, SCHEMA[key]) for key in [*SCHEMA][:4]] == [
        ("$schema", "https://json-schema.org/draft/2020-12/schema"),
        ("$id", IDENT),
        ("title", "Journey"),
        ("description", "A journey. With `places`."),
    ]


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("at", {"$ref": "#/$defs/Location"}),
        ("then", {"$ref": "#/$defs/Location"}),
        ("amount", {"type": ["string", "integer"], "pattern": "^[0-9]+$"}),
        ("outcome", {"type": ["string", "null"], "enum": ["done", "late", None]}),
        ("only", {"type": "string", "enum": ["this"], "default": "this"}),
    ],
)
def test_a_field_names_its_types_once(name: str, schema: dict[str, Any]) -> None:
    assert PROPERTIES[name] == schema


def test_what_may_be_null_somewhere_says_so_at_its_definition() -> None:
    assert SCHEMA["$defs"]["Location"]["type"] == ["object", "null"]


def test_a_sensitive_name_is_marked_wherever_it_occurs() -> None:
    assert SCHEMA["$defs"]["Location"]["properties"] == {
        "city": {"type": ["string", "null"], "x-sensitive": True},
        "country": {"type": ["string", "null"]},
    }


def test_an_object_of_a_sensitive_name_is_decided_by_its_fields() -> None:
    class Holder(BaseModel):
        address: Location

    assert wire_schema(Holder, IDENT)["properties"]["address"] == {"$ref": "#/$defs/Location"}


def test_what_we_write_always_has_all_fields() -> None:
    assert wire_schema(Location, IDENT, ours=True)["required"] == ["city", "country"]


def test_steps_of_the_audit_log_may_become_more() -> None:
    action = wire_schema(AuditEvent, IDENT)["$defs"]["AuditAction"]
    assert "enum" not in action
    assert "job.processed" in action["x-known-values"]


def test_a_union_that_no_generator_reads_is_refused() -> None:
    class Unclear(BaseModel):
        thing: Location | str

    with pytest.raises(ValueError, match="cannot be published"):
        wire_schema(Unclear, IDENT)


def test_fields_are_named_by_their_way() -> None:
    assert [(name, required) for name, _, required in fields(SCHEMA)] == [
        ("at", True),
        ("at.city", False),
        ("at.country", False),
        ("past", False),
        ("past[].city", False),
        ("past[].country", False),
        ("then", False),
        ("then.city", False),
        ("then.country", False),
        ("amount", True),
        ("outcome", False),
        ("only", False),
    ]


def test_what_holds_itself_is_gone_into_once() -> None:
    assert [name for name, _, _ in fields(wire_schema(Branch, IDENT))] == ["name", "branches"]

"""The models against Weavr's description: every field of it, under its name, with its type and its flag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from pipeline.contracts.weavr import BY_PATH, known_values
from pipeline.contracts.weavr.wire import KNOWN_VALUES
from pipeline.sandbox.weavr.facts import Field, document, weavr_kinds

PATHS: Final = sorted(weavr_kinds())
JSON_TYPES: Final = {"date": "string", "map": "object"}
DEPRECATED_AND_REQUIRED: Final = {".merchantName"}
"""Of authorisations: the description requires what it says will go; the model does not."""
Schema = Mapping[str, Any]


def non_null(node: Schema, root: Schema) -> Schema:
    """The schema of a value that is there, with what it refers to."""
    branches = [branch for branch in node.get("anyOf", ()) if branch != {"type": "null"}]
    found = {**node, **branches[0]} if branches else node
    return {**root["$defs"][found["$ref"].rpartition("/")[2]], **found} if "$ref" in found else found


def may_be_null(node: Schema) -> bool:
    return {"type": "null"} in node.get("anyOf", ())


def types(node: Schema) -> list[str]:
    return [node["type"]] if isinstance(node["type"], str) else node["type"]


def field_differences(field: Field, node: Schema, root: Schema, location: str) -> Iterator[str]:
    """What a schema says otherwise about one value than the description."""
    inner = non_null(node, root)
    if JSON_TYPES.get(field.kind, field.kind) not in types(inner):
        yield f"{location}: {field.kind} is missing in {inner}"
    elif field.item:
        items = inner["items"] if field.kind == "array" else inner["additionalProperties"]
        yield from field_differences(field.item, items, root, f"{location}[]")
    elif field.alternatives:
        yield from alternative_differences(field.alternatives, inner, root, location)
    elif field.fields:
        yield from object_differences(field.fields, inner, root, location)
    if not set(field.values) <= set(inner.get(KNOWN_VALUES, ())):
        yield f"{location}: values are missing"


def object_differences(fields: tuple[Field, ...], node: Schema, root: Schema, location: str) -> Iterator[str]:
    """What a schema says otherwise about an object."""
    there = node["properties"]
    if sorted(there) != sorted(field.name for field in fields):
        yield f"{location}: {sorted(there)}"
    for field in fields:
        where = f"{location}.{field.name}"
        required = field.required and where not in DEPRECATED_AND_REQUIRED
        if (field.name in node.get("required", ())) != required:
            yield f"{where}: required is {not required}"
        if may_be_null(there[field.name]) == required:
            yield f"{where}: null"
        yield from field_differences(field, there[field.name], root, where)


def alternative_differences(
    alternatives: tuple[Field, ...], node: Schema, root: Schema, location: str
) -> Iterator[str]:
    """What a schema says otherwise about an object of several shapes: it requires their common ``type`` alone."""
    every = [field for one in alternatives for field in one.fields]
    if set(node["properties"]) < {field.name for field in every}:
        yield f"{location}: {sorted(node['properties'])}"
    tagged = all(any(field.name == "type" and field.required for field in one.fields) for one in alternatives)
    if node.get("required", []) != (["type"] if tagged else []):
        yield f"{location}: requires {node['required']}"
    undefined = {
        field.name for field in every if field.kind == "object" and not field.fields and not field.alternatives
    }
    for field in every:
        told = replace(field, fields=tuple(map(optional, field.fields))) if field.name in undefined else field
        yield from field_differences(told, node["properties"][field.name], root, f"{location}.{field.name}")


def optional(field: Field) -> Field:
    """A field of an object that another shape does not define: it cannot be required."""
    return replace(field, required=False)


@pytest.mark.parametrize("path", PATHS)
def test_a_model_says_what_the_description_says(path: str) -> None:
    """Every field and no other, by its name on the wire: type, required or not, null where not, values."""
    schema = BY_PATH[path].model.model_json_schema()
    assert list(object_differences(weavr_kinds()[path].body.fields, schema, schema, "")) == []


@pytest.mark.parametrize("name", sorted(document()["enums"]))
def test_an_enumeration_knows_the_values_of_the_description(name: str) -> None:
    """In their order, under the description's name."""
    alias = getattr(known_values, name)
    assert alias.__metadata__[0].values.split() == document()["enums"][name]


def test_the_table_has_the_kinds_of_the_description() -> None:
    assert {kind.path: (kind.category, kind.signed) for kind in BY_PATH.values()} == {
        kind.path: (kind.category, kind.signed) for kind in weavr_kinds().values()
    }


@pytest.mark.parametrize("path", PATHS)
def test_a_model_is_called_as_in_the_description(path: str) -> None:
    """So a reader finds the model in Weavr's documentation by its name."""
    assert BY_PATH[path].model.__name__ == document()["events"][path]["schema"]


@pytest.mark.parametrize("path", PATHS)
def test_no_enumeration_is_closed(path: str) -> None:
    """A consumer that generates code from the schema must not break when Weavr adds a value."""
    assert '"enum"' not in str(BY_PATH[path].model.model_json_schema()).replace("'", '"')

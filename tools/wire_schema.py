"""JSON Schema of a model's values on the wire, limited to keywords that code generators of any language support.

Pydantic writes an optional field as ``anyOf`` with ``null``, which generators turn into an untyped object. Here a field
has one location where its types stand: ``type``, as an array where there are several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from pipeline.contracts.sensitive import SENSITIVE_MARK, is_sensitive
from pipeline.contracts.weavr.wire import KNOWN_VALUES

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_ORDER: Final = ("$schema", "$id", "title", "description", "$ref", "type", "properties", "required", "items", "enum")
"""The first keywords of a schema, in this order: the general ones before the specific ones."""

_REF: Final = "#/$defs/"
_OPEN: Final = frozenset({"AuditAction"})
"""Our enumerations that grow with releases. In schemas, they are open."""


def wire_schema(model: type[BaseModel], ident: str, *, title: str | None = None, ours: bool = False) -> Schema:
    """Return the schema of a model's values on the wire.

    Args:
        model: Its docstring becomes the description.
        ident: The schema's ``$id``.
        title: Name of the class in generated code; default: the model's name.
        ours: Whether we write the values, so that fields with a default are always present.

    Raises:
        ValueError: The model has a union that ``type`` cannot express, and that generators could not read.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    if ours:
        raw["required"] = [*raw["properties"]]
    raw.pop("$schema", None)
    definitions = {name: value for name, value in raw.pop("$defs", {}).items() if value}
    nullable = {name for part in (raw, definitions) for name in _nullable(part)}
    schema = _ordered(_plain(raw) | {"$schema": DIALECT, "$id": ident, "title": title or model.__name__})
    if definitions:
        schema["$defs"] = {name: _definition(name, value, nullable) for name, value in sorted(definitions.items())}
    for node in (schema, *schema.get("$defs", {}).values()):
        for name, value in node.get("properties", {}).items():
            if is_sensitive(name) and not _has_fields(value, schema):
                value[SENSITIVE_MARK] = True
    return schema


def fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, Schema, bool]]:
    """Yield each field of a schema in its order: name such as ``details.spend[].value``, its schema, whether required.

    A field that repeats one of the objects around it is not gone into again.
    """
    yield from _fields(*_entered(schema, schema, ()), root=schema, location="")


def resolved(node: Mapping[str, Any], root: Mapping[str, Any]) -> Schema:
    """Return a schema with its references resolved; keywords beside a reference override it."""
    if "$ref" not in node:
        return dict(node)
    beside = {key: value for key, value in node.items() if key != "$ref"}
    behind: Schema = root["$defs"][node["$ref"].removeprefix(_REF)]
    return behind | beside


def _fields(
    node: Mapping[str, Any], around: tuple[str, ...], *, root: Mapping[str, Any], location: str
) -> Iterator[tuple[str, Schema, bool]]:
    for name, value in node.get("properties", {}).items():
        where = f"{location}.{name}".lstrip(".")
        yield where, resolved(value, root), name in node.get("required", ())
        inner, entered = _entered(value, root, around)
        while "items" in inner:
            where += "[]"
            inner, entered = _entered(inner["items"], root, entered)
        if len(set(entered)) == len(entered):
            yield from _fields(inner, entered, root=root, location=where)


def _entered(
    node: Mapping[str, Any], root: Mapping[str, Any], around: tuple[str, ...]
) -> tuple[Schema, tuple[str, ...]]:
    return resolved(node, root), (*around, node["$ref"]) if "$ref" in node else around


def _has_fields(node: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    """Return whether a value has fields of its own, each of which is sensitive or not."""
    inner = resolved(node, root)
    return "properties" in inner or ("items" in inner and _has_fields(inner["items"], root))


def _definition(name: str, raw: Schema, nullable: set[str]) -> Schema:
    schema = _plain(raw)
    if name in _OPEN:
        schema[KNOWN_VALUES] = schema.pop("enum")
    if name in nullable:
        schema["type"] = _with_null(schema["type"])
    return _ordered(schema | {"title": name})


def _nullable(node: Any) -> Iterator[str]:
    """Yield the names of definitions that may be ``null`` somewhere, which a reference alone cannot express."""
    if isinstance(node, Mapping):
        branches = node.get("anyOf", ())
        if {"type": "null"} in branches:
            yield from (one["$ref"].removeprefix(_REF) for one in branches if "$ref" in one)
        for value in node.values():
            yield from _nullable(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nullable(value)


def _plain(raw: Mapping[str, Any]) -> Schema:
    """Return a schema without unions, null defaults, and titles that repeat the field's name."""
    node = _merged(raw)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if node.get("default", ...) is None:
        del node["default"]
    if "description" in node:
        node["description"] = " ".join(node["description"].replace("``", "`").split())
    if "properties" in node:
        node["properties"] = {name: _without_title(value) for name, value in node["properties"].items()}
    if "items" in node:
        node["items"] = _without_title(node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = _without_title(node["additionalProperties"])
    return _ordered(node)


def _ordered(node: Schema) -> Schema:
    return {key: node[key] for key in (*_ORDER, *node) if key in node}


def _without_title(raw: Mapping[str, Any]) -> Schema:
    if raw == {"$ref": f"{_REF}JsonValue"}:  # any value at all
        return {}
    return {key: value for key, value in _plain(raw).items() if key != "title"}


def _merged(raw: Mapping[str, Any]) -> Schema:
    """Return a schema with ``type`` and its alternatives instead of ``anyOf``."""
    node = {key: value for key, value in raw.items() if key != "anyOf"}
    branches = [_merged(branch) for branch in raw.get("anyOf", ()) if branch != {"type": "null"}]
    if not branches:
        return node
    kinds: list[str] = []
    for branch in branches:
        if len(branches) > 1 and not isinstance(branch.get("type"), str):
            raise ValueError(f"a union of more than simple types cannot be published: {raw}")
        kinds += [branch.pop("type")] if isinstance(branch.get("type"), str) else branch.pop("type", [])
        if branch.keys() & node.keys() - {"title", "description"}:
            raise ValueError(f"two types of a union have the same rule: {raw}")
        node = branch | node
    if {"type": "null"} in raw["anyOf"] and "$ref" not in node:
        kinds.append("null")
        if "enum" in node:
            node["enum"] = [*node["enum"], None]
    return {**_typed(kinds), **node}


def _typed(kinds: list[str]) -> Schema:
    found = list(dict.fromkeys(kinds))
    if not found:
        return {}
    return {"type": found[0] if len(found) == 1 else found}


def _with_null(kind: str | list[str]) -> list[str]:
    kinds = [kind] if isinstance(kind, str) else kind
    return [*kinds, *(["null"] if "null" not in kinds else [])]

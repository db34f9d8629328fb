"""Base classes of Weavr's events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from pipeline.contracts.sensitive import MASK, SENSITIVE_MARK, is_sensitive

_VALUES: Final = frozenset({"string", "integer", "number", "boolean"})


class WeavrObject(BaseModel):
    """An object in one of Weavr's events, read leniently: it keeps unknown fields and values.

    Attributes have names in snake case; fields on the wire are in camel case. An unknown field is an attribute with its
    name on the wire. Immutable.
    """

    model_config = ConfigDict(
        defer_build=True,
        alias_generator=to_camel,
        extra="allow",
        frozen=True,
        hide_input_in_errors=True,
        serialize_by_alias=True,
    )

    def as_received(self) -> dict[str, Any]:
        """Return the original JSON object, with the names and values as received."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show the fields that are set. Mask sensitive values, since representations end up in logs and tracebacks."""
        for name, field in self.__class__.model_fields.items():
            if name in self.model_fields_set:
                value = getattr(self, name)
                hidden = is_sensitive(field.alias or name) and not isinstance(value, WeavrObject)
                yield name, MASK if hidden else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        for name, value in handler.resolve_ref_schema(schema).get("properties", {}).items():
            if is_sensitive(name) and _holds_values(value):
                value[SENSITIVE_MARK] = True
        return schema


class WeavrEvent(WeavrObject):
    """The body of one event."""


def _holds_values(node: Mapping[str, Any]) -> bool:
    """Return whether a field holds values or lists of values. The fields of an object are marked one by one."""
    if "anyOf" in node:
        return any(map(_holds_values, node["anyOf"]))
    if node.get("type") == "array":
        return _holds_values(node.get("items", {}))
    kinds = node.get("type", ())
    return not _VALUES.isdisjoint([kinds] if isinstance(kinds, str) else kinds)

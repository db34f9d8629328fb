"""What may be shown of an event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pipeline.contracts.sensitive import MASK, SENSITIVE_MARK, UNKNOWN
from pipeline.contracts.weavr.kinds import EventKind

_NAME: Final = re.compile(r"(?!(?:\D*\d){4})\w{1,64}", re.ASCII)
"""At most three digits: a key may be anything, also a card number."""
_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_REF: Final = "#/$defs/"


def masked(kind: EventKind, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be shown of a body, also of one that does not fit its model.

    Values of fields that are known and not sensitive stay. Sensitive ones become ``[masked]``. What the model does not
    know, or knows as something else (an object where text should be), becomes ``[unknown]``: it may be anything. A name
    that the model does not know stays if it looks like one; else it becomes ``[unknown]``, ``[unknown 2]`` and so on.

    The values of open enumerations and other text of known fields stay as they are. A caller that shows them
    passes them through the masking of text as well.
    """
    schema = _schema(kind)
    return _object(schema, schema, body)


@cache
def _schema(kind: EventKind) -> dict[str, Any]:
    return kind.model.model_json_schema(by_alias=True)


def _object(root: Mapping[str, Any], node: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    fields = node.get("properties", {})
    rest = node.get("additionalProperties")
    others = rest if isinstance(rest, Mapping) else {}
    shown: dict[str, Any] = {}
    hidden = 0
    for name, value in body.items():
        told = name
        if name not in fields and not _NAME.fullmatch(name):
            hidden += 1
            told = UNKNOWN if hidden == 1 else f"{UNKNOWN[:-1]} {hidden}]"
        shown[told] = _shown(root, fields.get(name, others), value)
    return shown


def _shown(root: Mapping[str, Any], node: Mapping[str, Any], value: Any) -> Any:
    if node.get(SENSITIVE_MARK):
        return MASK
    found = (_fitting(root, one, value) for one in node.get("anyOf", [node]))
    return next((shown for shown in found if shown is not UNKNOWN), UNKNOWN)


def _fitting(root: Mapping[str, Any], node: Mapping[str, Any], value: Any) -> Any:
    """Return what may be shown of a value if it is of the node's type, else ``UNKNOWN``."""
    if "$ref" in node:
        node = root["$defs"][node["$ref"].removeprefix(_REF)]
    kinds = node.get("type", ())
    if kinds == "object":
        return _object(root, node, value) if isinstance(value, Mapping) else UNKNOWN
    if kinds == "array":
        return [_shown(root, node.get("items", {}), item) for item in value] if isinstance(value, list) else UNKNOWN
    fits = any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))
    return value if fits else UNKNOWN


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))

"""Masks the body of an event for display."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pipeline.contracts.sensitive import MASK, SENSITIVE_MARK, UNKNOWN
from pipeline.contracts.weavr.kinds import EventKind

_NAME: Final = re.compile(r"(?!(?:\D*\d){4})\w{1,64}", re.ASCII)
"""The form of a displayed name, with at most three digits: a key may be anything, even a card number."""
_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
_REF: Final = "#/$defs/"


def masked(kind: EventKind, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body masked for display. The body need not fit its model.

    Values of known fields stay if they are not sensitive. Sensitive values become ``[masked]``. Values of unknown
    fields, and values of a wrong type (an object instead of text), become ``[unknown]``, because they may be anything.
    An unknown name stays if it looks like a field name; otherwise it becomes ``[unknown]``, ``[unknown 2]`` and so on.

    Text of known fields stays unchanged, also values of open enumerations. The caller must mask such text by pattern
    before it shows it.
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
    """Return a masked value if it has the node's type, otherwise ``UNKNOWN``."""
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

"""``schemas/openapi.json`` as one document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from support.paths import ROOT

PATH: Final = ROOT / "schemas" / "openapi.json"
DOCUMENT: Final[dict[str, Any]] = json.loads(PATH.read_text("utf-8"))


def bundled_document() -> dict[str, Any]:
    """Return the document together with all schemas that it refers to."""
    files: dict[str, Any] = {}
    document = _bundled(DOCUMENT, files)
    document["components"]["schemas"] = files
    found: dict[str, Any] = document
    return found


def _bundled(node: Any, files: dict[str, Any], within: str = "") -> Any:
    """Return the document, with references to the schemas in ``files`` instead of references to their files."""
    if isinstance(node, list):
        return [_bundled(one, files, within) for one in node]
    if not isinstance(node, Mapping):
        return node
    found = {key: _bundled(value, files, within) for key, value in node.items() if key != "$id"}
    if node.get("$ref", "").startswith("./"):
        name = node["$ref"].rpartition("/")[2]
        files[name] = _bundled(json.loads((PATH.parent / node["$ref"]).read_text("utf-8")), files, name)
        found["$ref"] = f"#/components/schemas/{name}"
    elif within and "$ref" in node:
        found["$ref"] = node["$ref"].replace("#", f"#/components/schemas/{within}")
    return found

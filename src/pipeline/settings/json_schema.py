"""The JSON Schema of the settings file. Editors use it to complete keys and to show descriptions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from pipeline.settings.model import Settings
from pipeline.settings.shape import is_secret, item, models

FILE_NAME: Final = "pipeline.schema.json"
"""Name of the schema file beside each generated settings file."""
FIRST_LINE: Final = f"#:schema ./{FILE_NAME}\n"
"""The first line of each generated settings file. Taplo, and with it Even Better TOML, reads it."""

_DIALECT: Final = "http://json-schema.org/draft-07/schema#"
"""The latest version that Taplo supports."""
_TABLES_BY_NAME: Final = ("EcsIntegration", "WeavrIntegration", "WebhookIntegration")


def settings_schema() -> dict[str, Any]:
    """Return the schema of the settings file: JSON Schema draft 7.

    It has all keys, with descriptions, types and bounds. A secret appears as the name of its file (``KEY_file``). Rules
    that concern several keys are not in it; `pipeline config check` checks them.
    """
    schema = Settings.model_json_schema()
    definitions = schema.pop("$defs")
    for model in _all_models(Settings):
        table = schema if model is Settings else definitions.get(model.__name__)
        if table is not None:
            _name_files(table, model)
    for name in _TABLES_BY_NAME:
        del definitions[name]["properties"]["name"]  # the key of the table is its name
        definitions[name]["required"].remove("name")
    tidy: dict[str, Any] = _tidy({**schema, "definitions": definitions})
    return {"$schema": _DIALECT, **tidy, "title": "Settings of the card pipeline"}


def schema_text() -> str:
    """Return the schema as the text of a file."""
    return json.dumps(settings_schema(), indent=2, ensure_ascii=False) + "\n"


def write_schema_beside(settings_file: Path) -> None:
    """Write the schema beside a settings file, under the name in the file's first line."""
    settings_file.with_name(FILE_NAME).write_text(schema_text(), "utf-8")


def _all_models(model: type[BaseModel], known: set[type[BaseModel]] | None = None) -> set[type[BaseModel]]:
    found = set() if known is None else known
    if model not in found:
        found.add(model)
        for field in model.model_fields.values():
            for inner in (*models(field.annotation), *models(item(field.annotation))):
                _all_models(inner, found)
    return found


def _name_files(table: dict[str, Any], model: type[BaseModel]) -> None:
    """Replace each secret by the key for the name of its file, as the loader expects it."""
    properties = table["properties"]
    required = table.get("required", [])
    for name, field in model.model_fields.items():
        if not is_secret(field.annotation) or f"{name}_file" in model.model_fields:
            continue
        properties[f"{name}_file"] = {
            "type": "string",
            "description": f"File with only this value, and at most one newline: {field.description or name}",
        }
        if name in required:
            required.remove(name)
            either = {"oneOf": [{"required": [name]}, {"required": [f"{name}_file"]}]}
            table["allOf"] = [*table.get("allOf", []), either]


def _tidy(value: Any, *, names: bool = False) -> Any:
    """Return a schema without parts that no editor needs; ``names`` says that the keys are names of properties."""
    if isinstance(value, list):
        return [_tidy(one) for one in value]
    if not isinstance(value, dict):
        return value.replace("#/$defs/", "#/definitions/") if isinstance(value, str) else value
    if names:
        return {name: _tidy(one) for name, one in value.items()}
    kept = {_BOUNDS.get(str(key), str(key)): one for key, one in value.items() if not _noise(key, one)}
    shown: dict[str, Any] = {key: _tidy(one, names=key in ("properties", "definitions")) for key, one in kept.items()}
    if isinstance(shown.get("description"), str):
        shown["description"] = " ".join(shown["description"].replace("``", "`").split())
    return _without_null(shown)


def _noise(key: str, value: Any) -> bool:
    return (
        key in ("title", "writeOnly", "discriminator", "read_by", "format")
        or (key == "default" and (value is None or isinstance(value, dict)))
        or (key == "required" and not value)
    )


_BOUNDS: Final[dict[str, str]] = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""Pydantic's names for the bounds of an optional number, and JSON Schema's names."""


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema without the alternative null, which TOML does not have."""
    alternatives = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(alternatives) == 1:
        rest = {key: one for key, one in schema.items() if key != "anyOf"}
        return {**alternatives[0], **rest} if not _refers(alternatives[0]) else {**rest, "allOf": alternatives}
    return {**schema, "anyOf": alternatives} if alternatives else schema


def _refers(schema: Mapping[str, Any]) -> bool:
    return "$ref" in schema  # draft 7 ignores all keys beside a reference

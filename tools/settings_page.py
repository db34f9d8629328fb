"""``docs/settings.md``: every settings key, from the models."""

from __future__ import annotations

import types
from collections.abc import Container, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, IPvAnyNetwork, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.settings import Settings, toml_value
from pipeline.settings.shape import is_secret, item, members, models, unit_of
from tools.markdown import page, table

_INTRO: Final = """\
One TOML file (`--config FILE`, else `$PIPELINE_CONFIG`, else `pipeline.toml` where it is there), environment
variables over it, and secret files. `pipeline config check` names every problem at once, with what to write;
`pipeline config show` prints what counts.

- **Variables**: `PIPELINE_` and the keys with two underscores between, in capitals:
  `PIPELINE_KAFKA__BOOTSTRAP_SERVERS=kafka-0:9092`, `PIPELINE_ECS__ACME__LIMITS__CHUNK_BYTES=1048576`. Lists and
  tables are written as JSON. They count more than the file. An integration with a dash in its name needs a name
  with a dash (`env 'PIPELINE_ECS__ACME-EU__SUCCESS_STATUS=200' pipeline ...`), or is set in the file.
- **Secrets**: for every key of the type *secret*, write `KEY_file = "PATH"` instead; the file holds nothing but
  the secret and at most one newline after it. A file that everybody can read is warned of. Files of
  webhook secrets must be there for the ingress alone; token files of callbacks are read again and again, so
  that replacing one rotates the token.
- **Paths** that are relative are relative to the folder of the settings file (without one: to the working
  directory), except those inside a processor's options.
- **Units**: the column *Type* names the unit of a number, and names end in it (`_seconds`, `_bytes`). Write the
  number alone: `"10s"` and `"5MB"` are refused, with the number to write instead.
- An unknown key is refused, with the nearest known one."""

_KINDS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    UUID: "GUID",
    Path: "path",
    SecretStr: "secret",
    AwareDatetime: "moment with a zone",
    datetime: "moment",
    IPvAnyNetwork: "network (CIDR)",
}


def render() -> str:
    """Return the page."""
    # what two alternatives have in common is written once
    return page("Settings", _INTRO, *dict.fromkeys(_tables(Settings, "")))


def _tables(model: type[BaseModel], path: str) -> Iterator[str]:
    """Yield the section of a table, then those of the tables in it."""
    known = model.model_fields
    rows = [_row(name, field, known) for name, field in known.items() if field.description and not _inner(field)]
    if rows:
        yield table(("Key", "Type", "Default", "Meaning"), rows)
    for name, field in model.model_fields.items():
        for inner, heading in _inner(field):
            where = f"{path}.{name}".lstrip(".")
            keys, *rest = _tables(inner, heading.format(where).strip("[]"))
            yield f"## {heading.format(where)}{_chosen_by(inner, field)}\n\n{_about(inner, field)}\n\n{keys}"
            yield from rest


def _inner(field: FieldInfo) -> list[tuple[type[BaseModel], str]]:
    """Return the models that a field holds, each with the heading of its table."""
    named = any(get_origin(one) is dict for one in members(field.annotation))
    return [
        *((model, "[{}]") for model in models(field.annotation)),
        *((model, "[{}.NAME]" if named else "[[{}]]") for model in models(item(field.annotation))),
    ]


def _chosen_by(model: type[BaseModel], field: FieldInfo) -> str:
    if field.discriminator is None:
        return ""
    key = str(field.discriminator)
    return f" with {key} = {toml_value(get_args(model.model_fields[key].annotation)[0])}"


def _about(model: type[BaseModel], field: FieldInfo) -> str:
    needed = " Needed." if field.is_required() else ""
    return f"{' '.join((model.__doc__ or '').replace('``', '`').split())}{needed}"


def _row(name: str, field: FieldInfo, known: Container[str]) -> tuple[str, ...]:
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        shown = "needed"
    elif default is None:
        shown = "none"
    else:
        shown = f"`{toml_value(default)}`"
    from_file = is_secret(field.annotation) and f"{name}_file" not in known
    key = f"`{name}` or `{name}_file`" if from_file else f"`{name}`"
    return key, _kind(field.annotation, field), shown, field.description or ""


def _kind(annotation: Any, field: FieldInfo | None = None) -> str:
    kinds = [_kind_of(one) for one in members(annotation) if one is not types.NoneType]
    unit = unit_of(field, annotation)
    return " or ".join(dict.fromkeys(kinds)) + (f" of {unit.name}" if unit and unit.name else "")


def _kind_of(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{toml_value(one)}`" for one in get_args(annotation))
    if origin is dict:
        return "table"
    if origin in (tuple, list):
        return f"list of {_kind(item(annotation))}"
    assert origin not in (Union, types.UnionType)  # noqa: S101 - members() resolves unions
    return _KINDS.get(annotation, "value")

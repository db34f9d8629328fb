"""``docs/reference/settings.md``: every settings key, from the models."""

from __future__ import annotations

import re
import types
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, IPvAnyNetwork, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.settings import Settings, toml_value
from pipeline.settings.shape import is_secret, item, members, models, unit_of
from tools.markdown import anchor, page, table

_INTRO: Final = """\
Settings come from one TOML file: the file of `--config FILE`, otherwise the file in `$PIPELINE_CONFIG`, otherwise
`pipeline.toml` if it exists. Environment variables override the file. Each secret has its own file.
`pipeline config check` lists every problem with its remedy, and `pipeline config show` prints the settings in effect.

- **Variables** are named `PIPELINE_` plus the keys in capitals, joined by two underscores:
  `PIPELINE_KAFKA__BOOTSTRAP_SERVERS=kafka-0:9092`, `PIPELINE_ECS__ACME__LIMITS__CHUNK_BYTES=1048576`. Write lists and
  tables as JSON. If the name of an integration has a dash, so does its variable
  (`env 'PIPELINE_ECS__ACME-EU__SUCCESS_STATUS=200' pipeline ...`). It is simpler to set such a key in the file.
- **Secrets**: for a key of the type *secret*, write `KEY_file = "PATH"`. The file contains the secret, with or without
  a newline at its end. A file that every user can read causes a warning. Only the ingress needs the files of webhook
  secrets. To rotate a callback token, replace its file: the next callback uses the new token.
- **Paths**: a relative path is relative to the folder of the settings file, or to the working directory if there is no
  file. Paths in a processor's options are relative to the working directory.
- **Units**: the column *Type* names the unit of a number, and the key ends with the unit (`_seconds`, `_bytes`). Write
  the number alone. A value such as `"10s"` or `"5MB"` is refused, and the error message says which number to write.
- **Unknown keys** are refused. The error message names the most similar known key."""

_KINDS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    UUID: "GUID",
    Path: "path",
    SecretStr: "secret",
    AwareDatetime: "date and time with a zone",
    datetime: "date and time",
    IPvAnyNetwork: "network (CIDR)",
}


_GROUPS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "To start": ("everybody", ("kafka", "store")),
    "eCard Systems": ("anybody who connects to ECS", ("ecs.NAME",)),
    "Weavr": ("anybody who connects to Weavr", ("weavr.NAME",)),
    "Other senders": ("anybody who receives webhooks of other senders", ("webhooks.NAME",)),
    "Security": (
        "anybody who is responsible for security",
        ("kafka.tls", "kafka.sasl", "network", "parts", "audit"),
    ),
    "Operation": (
        "anybody who is on call, or who tunes speed and memory",
        ("ingress", "management", "logging", "retention", "consumer", "process", "transfer", "watch", "parking"),
    ),
}
"""Who needs each group, and the tables of the group. Tables inside these tables belong to the group too."""

_TITLE: Final = re.compile(r"\A## \[+([^\]]+)\]")


def render() -> str:
    """Return the page."""
    groups: dict[str, list[str]] = {title: [] for title in _GROUPS}
    for section in _once(_tables(Settings, "", {})):
        groups[_group(section)].append(section)
    rows = [
        (f"[{title}](#{title.lower().replace(' ', '-')})", who, _links(groups[title]))
        for title, (who, _) in _GROUPS.items()
    ]
    parts = [f"## {title}\n\n" + "\n\n".join(f"#{section}" for section in found) for title, found in groups.items()]
    return page("Settings", _INTRO, table(("Group", "For", "Tables"), rows), *parts)


def keys(model: type[BaseModel]) -> str:
    """Return the table of a model's own keys."""
    known = model.model_fields
    rows = [_row(name, field, known) for name, field in known.items() if field.description and not _inner(field)]
    return table(("Key", "Type", "Default", "Meaning"), rows) if rows else ""


def _group(section: str) -> str:
    """Return the group of a section: the one with the longest table name that begins the section's name."""
    found = _TITLE.match(section)
    name = found[1] if found else ""
    fitting = [
        (len(one), title)
        for title, (_, tables) in _GROUPS.items()
        for one in tables
        if name == one or name.startswith(f"{one}.")
    ]
    return max(fitting)[1]


def _links(sections: Iterable[str]) -> str:
    """Return a link to each table, once; of alternatives of a table, to the first."""
    first: dict[str, str] = {}
    for section in sections:
        heading = section.partition("\n")[0].removeprefix("## ")
        first.setdefault(heading.partition(" ")[0], heading)
    return ", ".join(f"[`{name}`](#{anchor(heading)})" for name, heading in first.items())


def _once(sections: Iterable[str]) -> Iterator[str]:
    """Yield every section and every table of keys once, since alternatives of a table may share tables."""
    printed: set[str] = set()
    known: set[tuple[str, str]] = set()
    for section in sections:
        if section in printed:
            continue
        printed.add(section)
        about, _, keys = section.rpartition("\n\n")
        table_of_heading = about.partition("\n")[0], keys
        yield f"{about}\n\nThe same keys as in the table of this name above." if table_of_heading in known else section
        known.add(table_of_heading)


def _tables(model: type[BaseModel], path: str, printed: dict[type[BaseModel], str]) -> Iterator[str]:
    """Yield the section of a table, then those of its tables. If a table is already printed, refer to it instead."""
    if own := keys(model):
        yield own
    for name, field in model.model_fields.items():
        for inner, heading in _inner(field):
            where = f"{path}.{name}".lstrip(".")
            first = printed.setdefault(inner, heading.format(where))
            if first == heading.format(where):
                sections = list(_tables(inner, heading.format(where).strip("[]"), printed))
                own_table = [sections.pop(0)] if keys(inner) else []
            else:
                own_table, sections = [f"The same keys as `{first}`."], []
            title = f"## {heading.format(where)}{_chosen_by(inner, field)}"
            yield "\n\n".join([title, _about(inner, field), *own_table])
            yield from sections


def _inner(field: FieldInfo) -> list[tuple[type[BaseModel], str]]:
    """Return the models of a field, each with the heading of its table."""
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
    needed = " Required." if field.is_required() else ""
    return f"{' '.join((model.__doc__ or '').replace('``', '`').split())}{needed}"


def _row(name: str, field: FieldInfo, known: Container[str]) -> tuple[str, ...]:
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        shown = "required"
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
